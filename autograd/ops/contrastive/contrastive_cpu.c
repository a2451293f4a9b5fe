/*
 * CPU kernels of the contrastive loss. B pairs, D columns. s[k,j] is the cosine of ev[k] and et[j];
 * pr[k,j] = softmax over j of s[k,j] / tau, pc[k,j] = softmax over k.
 *
 * Terms are taken relative to the positive s[k,k], so that a batch of one is exactly 0. Sums over a
 * batch are in f64, each in its own fixed order.
 */
#include <math.h>

#include "autograd/device/cpu/gemm.h"
#include "autograd/device/cpu/row_math.h"
#include "autograd/device/cpu/vector_math.h"
#include "autograd/ops/contrastive/contrastive_internal.h"

f2b_kernel KERNEL(f2bi_contrastive_forward), KERNEL(f2bi_contrastive_backward);

/* Everything between forward and backward, in one block. */
typedef struct workspace {
    int64_t B, D;
    double inverse_tau;
    /* Softmax of each anchor, by row (side 0) and by column (side 1) of s: the sum of
     * exp((s - largest) / tau). */
    double *sum[2];                 /* [B] */
    real *largest[2];               /* [B] */
    real *unit[2];                  /* [B,D] rows of length 1 (or 0) of ev, et */
    real *inverse_norm[2];          /* [B] */
    real *s;                        /* [B,B] */
} workspace;

static size_t workspace_bytes(int64_t B, int64_t D)
{
    return 2 * (size_t)B * sizeof(double)
           + (size_t)B * (2 * (size_t)D + 4 + (size_t)B) * sizeof(real);
}

static workspace workspace_at(const f2b_node *n, void *block)
{
    workspace w = { .B = f2b_dim(n->in[0], 0), .D = f2b_dim(n->in[0], 1) };
    const f2bi_contrastive_attr *a = n->attr;
    w.inverse_tau = 1 / a->temperature;
    if (n->in[2] != NULL) {
        double log_tau;
        f2b_convert(&log_tau, F2B_F64, n->in[2]->data, n->in[2]->dtype, 1);
        w.inverse_tau = exp(-log_tau);
    }
    w.sum[0] = block, w.sum[1] = w.sum[0] + w.B;
    w.largest[0] = (real *)(w.sum[1] + w.B), w.largest[1] = w.largest[0] + w.B;
    w.unit[0] = w.largest[1] + w.B, w.unit[1] = w.unit[0] + w.B * w.D;
    w.inverse_norm[0] = w.unit[1] + w.B * w.D, w.inverse_norm[1] = w.inverse_norm[0] + w.B;
    w.s = w.inverse_norm[1] + w.B;
    return w;
}

/* ---- Forward ---- */

static void normalise(const workspace *w, const T *x, int side)
{
#pragma omp parallel for schedule(static) if (w->B * w->D > F2BI_PARALLEL_FROM)
    for (int64_t k = 0; k < w->B; k++) {
        const T *row = x + k * w->D;
        real *unit = w->unit[side] + k * w->D;
        F2BI_ROW_SUM(squares, w->D, (double)LOAD(row[i]) * (double)LOAD(row[i]));
        /* A row of zeros stays one; NaN stays NaN. */
        const real inverse = squares > 0 ? (real)(1 / sqrt(squares)) : (real)squares;
        for (int64_t c = 0; c < w->D; c++) unit[c] = LOAD(row[c]) * inverse;
        w->inverse_norm[side][k] = inverse;
    }
}

/* c [M,N] = a [M,k] * b [k,N], by their strides. */
static f2b_status product(int64_t M, int64_t N, int64_t k, const real *a, int64_t a_row,
                          int64_t a_col, const real *b, int64_t b_row, int64_t b_col, real *c)
{
    const f2b_gemm_term term = { .a = a, .a_type = F2B_REAL_DTYPE, .a_row = a_row, .a_col = a_col,
                                 .b = b, .b_type = F2B_REAL_DTYPE, .b_row = b_row, .b_col = b_col,
                                 .k = k, .alpha = 1 };
    const f2b_gemm_out out = { .c = c, .c_type = F2B_REAL_DTYPE, .c_row = N, .c_col = 1 };
    return f2bi_gemm(F2B_KERNEL_DTYPE, M, N, &term, 1, out);
}

static void softmax_by_row(const workspace *w)
{
    const int64_t B = w->B;
    const real inverse_tau = (real)w->inverse_tau;
#pragma omp parallel for schedule(static) if (B * B > F2BI_PARALLEL_FROM)
    for (int64_t k = 0; k < B; k++) {
        const real *s = w->s + k * B;
        real largest = s[0];
        for (int64_t j = 1; j < B; j++) largest = s[j] > largest ? s[j] : largest;
        F2BI_ROW_SUM(sum, B, f2bi_exp((s[i] - largest) * inverse_tau));
        w->largest[0][k] = largest, w->sum[0][k] = sum;
    }
}

/* A block of columns at a time, so that rows of s are read in order. */
static void softmax_by_column(const workspace *w)
{
    const int64_t B = w->B, blocks = (B + F2BI_COLUMN_BLOCK - 1) / F2BI_COLUMN_BLOCK;
    const real inverse_tau = (real)w->inverse_tau;
#pragma omp parallel for schedule(static) if (B * B > F2BI_PARALLEL_FROM)
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t first = block * F2BI_COLUMN_BLOCK;
        const int64_t m = B - first < F2BI_COLUMN_BLOCK ? B - first : F2BI_COLUMN_BLOCK;
        real largest[F2BI_COLUMN_BLOCK];
        double sum[F2BI_COLUMN_BLOCK] = { 0 };
        for (int64_t i = 0; i < m; i++) largest[i] = w->s[first + i];
        for (int64_t k = 1; k < B; k++) {
            const real *s = w->s + k * B + first;
            for (int64_t i = 0; i < m; i++) largest[i] = s[i] > largest[i] ? s[i] : largest[i];
        }
        for (int64_t k = 0; k < B; k++) {
            const real *s = w->s + k * B + first;
            for (int64_t i = 0; i < m; i++)
                sum[i] += (double)f2bi_exp((s[i] - largest[i]) * inverse_tau);
        }
        for (int64_t i = 0; i < m; i++)
            w->largest[1][first + i] = largest[i], w->sum[1][first + i] = sum[i];
    }
}

/* -log softmax at the positive. */
static double term(const workspace *w, int side, int64_t k)
{
    return (double)(w->largest[side][k] - w->s[k * w->B + k]) * w->inverse_tau
           + log(w->sum[side][k]);
}

static f2b_status compute(f2b_node *n, const workspace *w)
{
    normalise(w, n->in[0]->data, 0);
    normalise(w, n->in[1]->data, 1);
    F2B_TRY(product(w->B, w->B, w->D, w->unit[0], w->D, 1, w->unit[1], 1, w->D, w->s));
    n->flops = 2.0 * (double)w->B * (double)w->B * (double)w->D;
    softmax_by_row(w);
    softmax_by_column(w);
    double loss = 0;
    for (int64_t k = 0; k < w->B; k++) loss += term(w, 0, k) + term(w, 1, k);
    *(real *)n->out[0]->data = (real)(loss / (double)w->B);
    return F2B_OK;
}

f2b_status KERNEL(f2bi_contrastive_forward)(f2b_node *n)
{
    const size_t bytes = workspace_bytes(f2b_dim(n->in[0], 0), f2b_dim(n->in[0], 1));
    void *saved, *own = NULL;
    F2B_TRY(f2b_node_save(n, 0, bytes, &saved));
    if (saved == NULL) {
        saved = own = f2b_alloc_host(bytes, F2B_TAG_SCRATCH);
        if (own == NULL) return F2B_ERR_MEMORY;
    }
    const workspace w = workspace_at(n, saved);
    const f2b_status status = compute(n, &w);
    f2b_free(own);
    return status;
}

/* ---- Backward ---- */

/* In row k, s becomes dL/ds = dy / (B tau) (pr + pc - 2 [k = j]). Returns -sum dL/ds * s. */
static double slope_of_row(const workspace *w, int64_t k, real factor)
{
    const int64_t B = w->B;
    const real inverse_tau = (real)w->inverse_tau;
    const real row_largest = w->largest[0][k], row_sum = (real)w->sum[0][k];
    double sum = 0;
    for (int64_t first = 0; first < B; first += F2BI_COLUMN_BLOCK) {
        const int64_t m = B - first < F2BI_COLUMN_BLOCK ? B - first : F2BI_COLUMN_BLOCK;
        real *s = w->s + k * B + first, ds[F2BI_COLUMN_BLOCK];
        const real *largest = w->largest[1] + first;
        const double *column_sum = w->sum[1] + first;
        for (int64_t i = 0; i < m; i++) {
            const real positive = first + i == k ? 1 : 0;
            const real pr = f2bi_exp((s[i] - row_largest) * inverse_tau) / row_sum;
            const real pc = f2bi_exp((s[i] - largest[i]) * inverse_tau) / (real)column_sum[i];
            ds[i] = factor * ((pr - positive) + (pc - positive));
        }
        for (int64_t i = 0; i < m; i++) sum -= (double)ds[i] * (double)s[i];
        memcpy(s, ds, (size_t)m * sizeof(real));
    }
    return sum;
}

/* All of s; returns dL/dlog tau. */
static double slope_in_place(const workspace *w, double dy, double *per_row)
{
    const real factor = (real)(dy * w->inverse_tau / (double)w->B);
#pragma omp parallel for schedule(static) if (w->B * w->B > F2BI_PARALLEL_FROM)
    for (int64_t k = 0; k < w->B; k++) per_row[k] = slope_of_row(w, k, factor);
    double total = 0;
    for (int64_t k = 0; k < w->B; k++) total += per_row[k];
    return total;
}

/* With u = x / |x| and du given:  dx = (du - u (u . du)) / |x|. */
static void through_norm(const workspace *w, int side, const real *du, T *dx, bool fresh)
{
#pragma omp parallel for schedule(static) if (w->B * w->D > F2BI_PARALLEL_FROM)
    for (int64_t k = 0; k < w->B; k++) {
        const real *u = w->unit[side] + k * w->D, *d = du + k * w->D;
        T *row = dx + k * w->D;
        const real inverse = w->inverse_norm[side][k];
        F2BI_ROW_SUM(dot, w->D, (double)u[i] * (double)d[i]);
        for (int64_t c = 0; c < w->D; c++) {
            const real old = fresh ? 0 : LOAD(row[c]);
            STORE(row[c], old + (d[c] - u[c] * (real)dot) * inverse);
        }
    }
}

f2b_status KERNEL(f2bi_contrastive_backward)(f2b_node *n)
{
    const workspace w = workspace_at(n, n->saved[0]);
    const int64_t B = w.B, D = w.D;
    double *per_row = f2b_alloc_host((size_t)B * sizeof(double) + (size_t)(B * D) * sizeof(real),
                                     F2B_TAG_SCRATCH);
    if (per_row == NULL) return F2B_ERR_MEMORY;
    real *du = (real *)(per_row + B);
    const double d_log_tau = slope_in_place(&w, (double)*(const real *)n->out[0]->grad, per_row);
    f2b_status status = F2B_OK;
    for (int side = 0; side < 2 && status == F2B_OK; side++) {
        bool fresh;
        T *dx = f2b_node_grad(n, side, &fresh);
        if (dx == NULL) continue;
        status = product(B, D, B, w.s, side == 0 ? B : 1, side == 0 ? 1 : B, w.unit[1 - side], D, 1,
                         du);
        if (status == F2B_OK) through_norm(&w, side, du, dx, fresh);
        n->flops += 2.0 * (double)B * (double)B * (double)D;
    }
    void *d_temperature = f2b_node_grad(n, 2, NULL);
    if (d_temperature != NULL) {
        real old;
        f2bi_read_row(&old, d_temperature, n->in[2]->dtype, 0, 1);
        old = (real)((double)old + d_log_tau);
        f2bi_write_row(d_temperature, n->in[2]->dtype, 0, 1, &old);
    }
    f2b_free(per_row);
    return status;
}
