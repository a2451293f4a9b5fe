/* CPU kernels of rms_norm. R rows, D columns. */
#include <math.h>

#include "autograd/core/op.h"
#include "autograd/device/cpu/row_math.h"

f2b_kernel KERNEL(f2bi_rms_norm_forward), KERNEL(f2bi_rms_norm_backward);

#define ROW_SUM static inline __attribute__((always_inline)) double

/* What is done to a row. Rows of bf16 are read in pairs (row_math.h) and summed in f32. */
#if defined(F2B_KERNEL_BF16)

/* Sum of x * y, or of x * y * w. */
ROW_SUM row_product(int64_t D, const T *restrict x, const T *restrict y, const real *restrict w,
                    const bool weighted)
{
    const f2bi_pair *restrict xp = (const f2bi_pair *)x, *restrict yp = (const f2bi_pair *)y;
    real lane[F2BI_LANES] = { 0 };
    int64_t i = 0;
    for (; i + F2BI_LANES <= D / 2; i += F2BI_LANES)
        for (int64_t l = 0; l < F2BI_LANES; l++) {
            const real a = f2bi_pair_first(xp[i + l]) * f2bi_pair_first(yp[i + l]);
            const real b = f2bi_pair_second(xp[i + l]) * f2bi_pair_second(yp[i + l]);
            lane[l] += weighted ? a * w[2 * (i + l)] + b * w[2 * (i + l) + 1] : a + b;
        }
    double sum[F2BI_LANES];
    for (int64_t l = 0; l < F2BI_LANES; l++) sum[l] = lane[l];
    for (i *= 2; i < D; i++) sum[i % F2BI_LANES] += LOAD(x[i]) * LOAD(y[i]) * (weighted ? w[i] : 1);
    return f2bi_sum_lanes(sum);
}

/* Rounds before the weight, as Hugging Face's module does. */
F2BI_ROW_LOOP normalise(int64_t D, const T *restrict x, const real *restrict w, real s, T *restrict y)
{
    const f2bi_pair *restrict from = (const f2bi_pair *)x;
    f2bi_pair *restrict to = (f2bi_pair *)y;
    for (int64_t i = 0; i < D / 2; i++)
        to[i] = f2bi_pair_of(w[2 * i] * f2bi_rounded(f2bi_pair_first(from[i]) * s),
                             w[2 * i + 1] * f2bi_rounded(f2bi_pair_second(from[i]) * s));
    if (D % 2 != 0) STORE(y[D - 1], w[D - 1] * f2bi_rounded(LOAD(x[D - 1]) * s));
}

F2BI_ROW_LOOP add_gradient(int64_t D, const T *restrict x, const T *restrict dy, const real *restrict w, real s,
                           real k, T *restrict dx, const bool fresh)
{
    const f2bi_pair *restrict xp = (const f2bi_pair *)x, *restrict dp = (const f2bi_pair *)dy;
    f2bi_pair *restrict to = (f2bi_pair *)dx;
    for (int64_t i = 0; i < D / 2; i++) {
        const real a = s * (f2bi_pair_first(dp[i]) * w[2 * i]) - k * f2bi_pair_first(xp[i]);
        const real b = s * (f2bi_pair_second(dp[i]) * w[2 * i + 1]) - k * f2bi_pair_second(xp[i]);
        to[i] = fresh ? f2bi_pair_of(a, b) : f2bi_pair_of(f2bi_pair_first(to[i]) + a, f2bi_pair_second(to[i]) + b);
    }
    if (D % 2 == 0) return;
    const real last = s * (LOAD(dy[D - 1]) * w[D - 1]) - k * LOAD(x[D - 1]);
    STORE(dx[D - 1], fresh ? last : LOAD(dx[D - 1]) + last);
}

#else

ROW_SUM row_product(int64_t D, const T *restrict x, const T *restrict y, const real *restrict w,
                    const bool weighted)
{
    F2BI_ROW_SUM(sum, D, (double)(weighted ? y[i] * w[i] : y[i]) * (double)x[i]);
    return sum;
}

F2BI_ROW_LOOP normalise(int64_t D, const T *restrict x, const real *restrict w, real s, T *restrict y)
{
    for (int64_t c = 0; c < D; c++) y[c] = w[c] * (x[c] * s);
}

F2BI_ROW_LOOP add_gradient(int64_t D, const T *restrict x, const T *restrict dy, const real *restrict w, real s,
                           real k, T *restrict dx, const bool fresh)
{
    for (int64_t c = 0; c < D; c++) dx[c] = (fresh ? 0 : dx[c]) + (s * (dy[c] * w[c]) - k * x[c]);
}
#endif

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
        const real s = (real)(1.0 / sqrt(row_product(D, xr, xr, NULL, false) / (double)D + eps));
        normalise(D, xr, w, s, y + r * D);
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
            const real k = (real)(row_product(D, xr, dyr, w, true) / (double)D * s * s * s);
            if (fresh) add_gradient(D, xr, dyr, w, s, k, dxr, true);
            else add_gradient(D, xr, dyr, w, s, k, dxr, false);
        }
    }
    f2b_free(scratch);
    void *dw = f2b_node_grad(n, 1, NULL);
    if (dw != NULL)
        F2BI_ADD_COLUMN_SUMS(dw, n->in[1]->dtype, R, D,
                             LOAD(dy[r * D + c]) * LOAD(x[r * D + c]) * rstd[r]);
    return F2B_OK;
}
