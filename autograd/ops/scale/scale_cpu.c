/* CPU kernels of scale. R rows, D columns: a row's bits do not depend on its place. */
#include "autograd/core/op.h"
#include "autograd/device/cpu/row_math.h"

f2b_kernel KERNEL(f2bi_scale_forward), KERNEL(f2bi_scale_backward);

f2b_status KERNEL(f2bi_scale_forward)(f2b_node *n)
{
    const int64_t D = f2b_dim(n->in[0], -1), R = f2b_rows(n->in[0]);
    const T *x = n->in[0]->data;
    T *y = n->out[0]->data;
    const real c = (real)*(const double *)n->attr;
#pragma omp parallel for schedule(static) if (R * D > F2BI_PARALLEL_FROM)
    for (int64_t r = 0; r < R; r++)
        for (int64_t i = r * D; i < (r + 1) * D; i++) STORE(y[i], c * LOAD(x[i]));
    return F2B_OK;
}

f2b_status KERNEL(f2bi_scale_backward)(f2b_node *n)
{
    const int64_t D = f2b_dim(n->in[0], -1), R = f2b_rows(n->in[0]);
    const T *dy = n->out[0]->grad;
    const real c = (real)*(const double *)n->attr;
    bool fresh;
    T *dx = f2b_node_grad(n, 0, &fresh);
#pragma omp parallel for schedule(static) if (R * D > F2BI_PARALLEL_FROM)
    for (int64_t r = 0; r < R; r++)
        for (int64_t i = r * D; i < (r + 1) * D; i++) {
            const real old = fresh ? 0 : LOAD(dx[i]);
            STORE(dx[i], old + LOAD(dy[i]) * c);
        }
    return F2B_OK;
}
