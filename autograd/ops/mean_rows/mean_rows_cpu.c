/* CPU kernels of mean_rows. */
#include "autograd/core/op.h"
#include "autograd/device/cpu/row_math.h"

f2b_kernel KERNEL(f2bi_mean_rows_forward), KERNEL(f2bi_mean_rows_backward);

f2b_status KERNEL(f2bi_mean_rows_forward)(f2b_node *n)
{
    const int64_t K = *(const int64_t *)n->attr, D = f2b_dim(n->in[0], 1);
    const int64_t groups = f2b_dim(n->out[0], 0);
    const T *x = n->in[0]->data;
    T *y = n->out[0]->data;
    const real share = 1 / (real)K;
#pragma omp parallel for schedule(static) if (groups * K * D > F2BI_PARALLEL_FROM)
    for (int64_t g = 0; g < groups; g++)
        for (int64_t c = 0; c < D; c += F2BI_COLUMN_BLOCK) {
            const int64_t m = D - c < F2BI_COLUMN_BLOCK ? D - c : F2BI_COLUMN_BLOCK;
            real sum[F2BI_COLUMN_BLOCK] = { 0 };
            for (int64_t k = 0; k < K; k++)
                for (int64_t i = 0; i < m; i++) sum[i] += LOAD(x[(g * K + k) * D + c + i]);
            for (int64_t i = 0; i < m; i++) STORE(y[g * D + c + i], sum[i] * share);
        }
    return F2B_OK;
}

f2b_status KERNEL(f2bi_mean_rows_backward)(f2b_node *n)
{
    const int64_t K = *(const int64_t *)n->attr, R = f2b_dim(n->in[0], 0), D = f2b_dim(n->in[0], 1);
    const T *dy = n->out[0]->grad;
    const real share = 1 / (real)K;
    bool fresh;
    T *dx = f2b_node_grad(n, 0, &fresh);
#pragma omp parallel for schedule(static) if (R * D > F2BI_PARALLEL_FROM)
    for (int64_t r = 0; r < R; r++) {
        const T *g = dy + r / K * D;
        T *d = dx + r * D;
        for (int64_t c = 0; c < D; c++) {
            const real old = fresh ? 0 : LOAD(d[c]);
            STORE(d[c], old + LOAD(g[c]) * share);
        }
    }
    return F2B_OK;
}
