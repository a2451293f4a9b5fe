/* CPU kernels of silu_mul. R rows, D columns: a row's bits do not depend on its place. */
#include "autograd/core/op.h"
#include "autograd/device/cpu/row_math.h"
#include "autograd/ops/silu_mul/silu_mul_rows.h"

f2b_kernel KERNEL(f2bi_silu_mul_forward), KERNEL(f2bi_silu_mul_backward);

f2b_status KERNEL(f2bi_silu_mul_forward)(f2b_node *n)
{
    const int64_t D = f2b_dim(n->in[0], -1), R = f2b_rows(n->in[0]);
    const T *gate = n->in[0]->data, *up = n->in[1]->data;
    T *y = n->out[0]->data;
#pragma omp parallel for schedule(static) if (R * D > F2BI_PARALLEL_FROM)
    for (int64_t r = 0; r < R; r++) KERNEL(f2bi_silu_row)(D, gate + r * D, up + r * D, y + r * D);
    return F2B_OK;
}

f2b_status KERNEL(f2bi_silu_mul_backward)(f2b_node *n)
{
    const int64_t D = f2b_dim(n->in[0], -1), R = f2b_rows(n->in[0]);
    f2bi_silu_slopes s = { .gate = n->in[0]->data, .up = n->in[1]->data };
    s.dg = f2b_node_grad(n, 0, &s.fresh_gate);
    s.du = f2b_node_grad(n, 1, &s.fresh_up);
#pragma omp parallel for schedule(static) if (R * D > F2BI_PARALLEL_FROM)
    for (int64_t r = 0; r < R; r++) KERNEL(f2bi_silu_back)(&s, n->out[0]->grad, r * D, D);
    return F2B_OK;
}
