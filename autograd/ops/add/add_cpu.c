/* CPU kernels of add. */
#include "autograd/core/op.h"
#include "autograd/device/cpu/kernel.h"

f2b_kernel KERNEL(f2bi_add_forward), KERNEL(f2bi_add_backward);

f2b_status KERNEL(f2bi_add_forward)(f2b_node *n)
{
    const T *a = n->in[0]->data, *b = n->in[1]->data;
    T *y = n->out[0]->data;
    const int64_t count = f2b_numel(n->out[0]);
#pragma omp parallel for schedule(static) if (count > 16384)
    for (int64_t i = 0; i < count; i++) STORE(y[i], LOAD(a[i]) + LOAD(b[i]));
    return F2B_OK;
}

/* da += dy, db += dy. An uninitialised gradient is written instead of added to. */
f2b_status KERNEL(f2bi_add_backward)(f2b_node *n)
{
    const T *dy = n->out[0]->grad;
    const int64_t count = f2b_numel(n->out[0]);
    for (int input = 0; input < 2; input++) {
        bool fresh;
        T *dx = f2b_node_grad(n, input, &fresh);
        if (dx == NULL) continue;
        if (fresh) {
#pragma omp parallel for schedule(static) if (count > 16384)
            for (int64_t i = 0; i < count; i++) dx[i] = dy[i];
        } else {
#pragma omp parallel for schedule(static) if (count > 16384)
            for (int64_t i = 0; i < count; i++) STORE(dx[i], LOAD(dx[i]) + LOAD(dy[i]));
        }
    }
    return F2B_OK;
}
