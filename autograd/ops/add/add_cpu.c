/* CPU kernel of add. */
#include "autograd/core/op.h"
#include "autograd/device/cpu/kernel.h"

f2b_kernel KERNEL(f2bi_add_forward);

f2b_status KERNEL(f2bi_add_forward)(f2b_node *n)
{
    const T *a = n->in[0]->data, *b = n->in[1]->data;
    T *y = n->out[0]->data;
    const int64_t count = f2b_numel(n->out[0]);
#pragma omp parallel for schedule(static) if (count > 16384)
    for (int64_t i = 0; i < count; i++) STORE(y[i], LOAD(a[i]) + LOAD(b[i]));
    return F2B_OK;
}
