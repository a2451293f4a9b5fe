/* CPU kernels of quick_gelu. R rows, D columns: a row's bits do not depend on its place. */
#include "autograd/core/op.h"
#include "autograd/device/cpu/row_math.h"
#include "autograd/device/cpu/vector_math.h"

/* d/dv v s(a v) = s + a v s (1 - s), a = 1.702. */
static inline real slope(real v)
{
    const real a = (real)1.702, s = f2bi_sigmoid(a * v);
    return s + a * v * s * (1 - s);
}

f2b_kernel KERNEL(f2bi_quick_gelu_forward), KERNEL(f2bi_quick_gelu_backward);

f2b_status KERNEL(f2bi_quick_gelu_forward)(f2b_node *n)
{
    const int64_t D = f2b_dim(n->in[0], -1), R = f2b_rows(n->in[0]);
    const T *x = n->in[0]->data;
    T *y = n->out[0]->data;
#pragma omp parallel for schedule(static) if (R * D > F2BI_PARALLEL_FROM)
    for (int64_t r = 0; r < R; r++)
        for (int64_t i = r * D; i < (r + 1) * D; i++)
            STORE(y[i], LOAD(x[i]) * f2bi_sigmoid((real)1.702 * LOAD(x[i])));
    return F2B_OK;
}

F2BI_ROW_LOOP gradient_row(int64_t D, const T *restrict x, const T *restrict dy, T *restrict dx,
                           const bool fresh)
{
    for (int64_t c = 0; c < D; c++) {
        const real old = fresh ? 0 : LOAD(dx[c]);
        STORE(dx[c], old + LOAD(dy[c]) * slope(LOAD(x[c])));
    }
}

f2b_status KERNEL(f2bi_quick_gelu_backward)(f2b_node *n)
{
    const int64_t D = f2b_dim(n->in[0], -1), R = f2b_rows(n->in[0]);
    const T *x = n->in[0]->data, *dy = n->out[0]->grad;
    bool fresh;
    T *dx = f2b_node_grad(n, 0, &fresh);
#pragma omp parallel for schedule(static) if (R * D > F2BI_PARALLEL_FROM)
    for (int64_t r = 0; r < R; r++) {
        const int64_t at = r * D;
        if (fresh) gradient_row(D, x + at, dy + at, dx + at, true);
        else gradient_row(D, x + at, dy + at, dx + at, false);
    }
    return F2B_OK;
}
