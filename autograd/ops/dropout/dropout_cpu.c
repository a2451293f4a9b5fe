/* CPU kernels of dropout. */
#include "autograd/core/op.h"
#include "autograd/device/cpu/kernel.h"
#include "autograd/ops/dropout/dropout_internal.h"

f2b_kernel KERNEL(f2bi_dropout_forward), KERNEL(f2bi_dropout_backward);

f2b_status KERNEL(f2bi_dropout_forward)(f2b_node *n)
{
    const f2b_dropout *d = n->attr;
    const int64_t rows = f2b_rows(n->in[0]), D = f2b_dim(n->in[0], -1);
    const T *x = n->in[0]->data;
    T *y = n->out[0]->data;
#pragma omp parallel for schedule(static) if (rows * D > 16384)
    for (int64_t r = 0; r < rows; r++) f2bi_dropout_row(d, r, D, x + r * D, y + r * D);
    return F2B_OK;
}

f2b_status KERNEL(f2bi_dropout_backward)(f2b_node *n)
{
    const f2b_dropout *d = n->attr;
    const int64_t rows = f2b_rows(n->in[0]), D = f2b_dim(n->in[0], -1);
    const T *dy = n->out[0]->grad;
    bool fresh;
    T *dx = f2b_node_grad(n, 0, &fresh);
#pragma omp parallel for schedule(static) if (rows * D > 16384)
    for (int64_t r = 0; r < rows; r++)
        f2bi_dropout_row_backward(d, r, D, dy + r * D, dx + r * D, fresh);
    return F2B_OK;
}
