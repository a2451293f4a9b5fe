/* CPU kernels of layer_norm. R rows, D columns. */
#include <math.h>

#include "autograd/core/op.h"
#include "autograd/device/cpu/row_math.h"

f2b_kernel KERNEL(f2bi_layer_norm_forward), KERNEL(f2bi_layer_norm_backward);

typedef struct moments {
    real mean, rstd;
} moments;

f2b_status KERNEL(f2bi_layer_norm_forward)(f2b_node *n)
{
    const double eps = *(const double *)n->attr;
    const int64_t D = f2b_dim(n->in[0], -1), R = f2b_rows(n->in[0]);
    const T *x = n->in[0]->data;
    T *y = n->out[0]->data;
    void *saved, *w_scratch, *b_scratch;
    const real *w, *b;
    F2B_TRY(f2b_node_save(n, 0, (size_t)R * sizeof(moments), &saved));
    F2B_TRY(f2bi_parameter_as_real(n->in[1], &w, &w_scratch));
    if (f2bi_parameter_as_real(n->in[2], &b, &b_scratch) != F2B_OK) {
        f2b_free(w_scratch);
        return F2B_ERR_MEMORY;
    }
    moments *m = saved;
#pragma omp parallel for schedule(static) if (R * D > F2BI_PARALLEL_FROM)
    for (int64_t r = 0; r < R; r++) {
        const T *xr = x + r * D;
        T *yr = y + r * D;
        F2BI_ROW_SUM(sum, D, LOAD(xr[i]));
        const double mean = sum / (double)D;
        F2BI_ROW_SUM(squares, D, ((double)LOAD(xr[i]) - mean) * ((double)LOAD(xr[i]) - mean));
        const moments mr = { (real)mean, (real)(1.0 / sqrt(squares / (double)D + eps)) };
        for (int64_t c = 0; c < D; c++)
            STORE(yr[c], (LOAD(xr[c]) - mr.mean) * mr.rstd * w[c] + b[c]);
        if (m != NULL) m[r] = mr;
    }
    f2b_free(w_scratch);
    f2b_free(b_scratch);
    return F2B_OK;
}

/* With g = dy * w and u = (x - mean) * rstd:
 *   dx = rstd * (g - mean_c(g) - u * mean_c(g * u)),  dw = sum_r dy * u,  db = sum_r dy. */
f2b_status KERNEL(f2bi_layer_norm_backward)(f2b_node *n)
{
    const int64_t D = f2b_dim(n->in[0], -1), R = f2b_rows(n->in[0]);
    const T *x = n->in[0]->data, *dy = n->out[0]->grad;
    const moments *m = n->saved[0];
    const real *w;
    void *scratch;
    F2B_TRY(f2bi_parameter_as_real(n->in[1], &w, &scratch));
    bool fresh;
    T *dx = f2b_node_grad(n, 0, &fresh);
    if (dx != NULL) {
#pragma omp parallel for schedule(static) if (R * D > F2BI_PARALLEL_FROM)
        for (int64_t r = 0; r < R; r++) {
            const T *xr = x + r * D, *dyr = dy + r * D;
            T *dxr = dx + r * D;
            const real mean = m[r].mean, s = m[r].rstd;
            F2BI_ROW_SUM(g, D, LOAD(dyr[i]) * w[i]);
            F2BI_ROW_SUM(gu, D, (double)(LOAD(dyr[i]) * w[i]) * (double)((LOAD(xr[i]) - mean) * s));
            const real g_mean = (real)(g / (double)D), gu_mean = (real)(gu / (double)D);
            for (int64_t c = 0; c < D; c++) {
                const real old = fresh ? 0 : LOAD(dxr[c]), u = (LOAD(xr[c]) - mean) * s;
                STORE(dxr[c], old + s * (LOAD(dyr[c]) * w[c] - g_mean - u * gu_mean));
            }
        }
    }
    f2b_free(scratch);
    void *dw = f2b_node_grad(n, 1, NULL);
    if (dw != NULL)
        F2BI_ADD_COLUMN_SUMS(dw, n->in[1]->dtype, R, D,
                             LOAD(dy[r * D + c]) * ((LOAD(x[r * D + c]) - m[r].mean) * m[r].rstd));
    void *db = f2b_node_grad(n, 2, NULL);
    if (db != NULL) F2BI_ADD_COLUMN_SUMS(db, n->in[2]->dtype, R, D, LOAD(dy[r * D + c]));
    return F2B_OK;
}
