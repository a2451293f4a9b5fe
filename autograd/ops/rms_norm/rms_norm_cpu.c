/* CPU kernels of rms_norm. R rows, D columns. */
#include <math.h>

#include "autograd/core/op.h"
#include "autograd/device/cpu/row_math.h"

f2b_kernel KERNEL(f2bi_rms_norm_forward), KERNEL(f2bi_rms_norm_backward);

f2b_status KERNEL(f2bi_rms_norm_forward)(f2b_node *n)
{
    const double eps = *(const double *)n->attr;
    const int64_t D = f2b_dim(n->in[0], -1), R = f2b_rows(n->in[0]);
    const T *x = n->in[0]->data;
    T *y = n->out[0]->data;
    void *saved, *scratch;
    const real *w;
    F2B_TRY(f2b_node_save(n, 0, (size_t)R * sizeof(real), &saved));
    F2B_TRY(f2bi_parameter_as_real(n->in[1], &w, &scratch));
    real *rstd = saved;
#pragma omp parallel for schedule(static) if (R * D > F2BI_PARALLEL_FROM)
    for (int64_t r = 0; r < R; r++) {
        const T *xr = x + r * D;
        T *yr = y + r * D;
        F2BI_ROW_SUM(squares, D, (double)LOAD(xr[i]) * (double)LOAD(xr[i]));
        const real s = (real)(1.0 / sqrt(squares / (double)D + eps));
        for (int64_t c = 0; c < D; c++) {
            const T unit = f2bi_store(LOAD(xr[c]) * s); /* rounds before the weight, as HF does */
            STORE(yr[c], w[c] * LOAD(unit));
        }
        if (rstd != NULL) rstd[r] = s;
    }
    f2b_free(scratch);
    return F2B_OK;
}

/* With g = dy * w:  dx = rstd * g - x * rstd^3 * mean_c(g * x),  dw = sum_r dy * x * rstd. */
f2b_status KERNEL(f2bi_rms_norm_backward)(f2b_node *n)
{
    const int64_t D = f2b_dim(n->in[0], -1), R = f2b_rows(n->in[0]);
    const T *x = n->in[0]->data, *dy = n->out[0]->grad;
    const real *rstd = n->saved[0], *w;
    void *scratch;
    F2B_TRY(f2bi_parameter_as_real(n->in[1], &w, &scratch));
    bool fresh;
    T *dx = f2b_node_grad(n, 0, &fresh);
    if (dx != NULL) {
        int64_t count;
        const int32_t *wanted = f2b_node_grad_rows(n, 0, &count);
#pragma omp parallel for schedule(static) if (count * D > F2BI_PARALLEL_FROM)
        for (int64_t at = 0; at < count; at++) {
            const int64_t r = wanted != NULL ? wanted[at] : at;
            const T *xr = x + r * D, *dyr = dy + r * D;
            T *dxr = dx + r * D;
            const real s = rstd[r];
            F2BI_ROW_SUM(gx, D, (double)(LOAD(dyr[i]) * w[i]) * (double)LOAD(xr[i]));
            const real k = (real)(gx / (double)D * s * s * s);
            for (int64_t c = 0; c < D; c++) {
                const real old = fresh ? 0 : LOAD(dxr[c]);
                STORE(dxr[c], old + (s * (LOAD(dyr[c]) * w[c]) - k * LOAD(xr[c])));
            }
        }
    }
    f2b_free(scratch);
    void *dw = f2b_node_grad(n, 1, NULL);
    if (dw != NULL)
        F2BI_ADD_COLUMN_SUMS(dw, n->in[1]->dtype, R, D,
                             LOAD(dy[r * D + c]) * LOAD(x[r * D + c]) * rstd[r]);
    return F2B_OK;
}
