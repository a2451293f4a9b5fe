/* CPU kernels of mul. */
#include "autograd/core/op.h"
#include "autograd/device/cpu/row_math.h"

f2b_kernel KERNEL(f2bi_mul_forward), KERNEL(f2bi_mul_backward);

f2b_status KERNEL(f2bi_mul_forward)(f2b_node *n)
{
    const T *a = n->in[0]->data, *b = n->in[1]->data;
    T *y = n->out[0]->data;
    const int64_t count = f2b_numel(n->out[0]);
#pragma omp parallel for schedule(static) if (count > F2BI_PARALLEL_FROM)
    for (int64_t i = 0; i < count; i++) STORE(y[i], LOAD(a[i]) * LOAD(b[i]));
    return F2B_OK;
}

/* da = dy * b, db = dy * a. Rows, so that the fused additions fall alike for each. */
f2b_status KERNEL(f2bi_mul_backward)(f2b_node *n)
{
    const int64_t D = f2b_dim(n->in[0], -1), R = f2b_rows(n->in[0]);
    const T *dy = n->out[0]->grad;
    for (int input = 0; input < 2; input++) {
        const T *other = n->in[1 - input]->data;
        bool fresh;
        T *dx = f2b_node_grad(n, input, &fresh);
        if (dx == NULL) continue;
#pragma omp parallel for schedule(static) if (R * D > F2BI_PARALLEL_FROM)
        for (int64_t r = 0; r < R; r++)
            for (int64_t i = r * D; i < (r + 1) * D; i++) {
                const real old = fresh ? 0 : LOAD(dx[i]);
                STORE(dx[i], old + LOAD(dy[i]) * LOAD(other[i]));
            }
    }
    return F2B_OK;
}
