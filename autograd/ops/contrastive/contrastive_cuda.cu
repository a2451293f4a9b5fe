/*
 * CUDA kernels of the contrastive loss. B pairs, D columns. s[k,j] is the cosine of ev[k] and et[j];
 * pr[k,j] = softmax over j of s[k,j] / tau, pc[k,j] = softmax over k. Rows of length 1 and everything
 * after them are f32. Terms are taken relative to the positive s[k,k], so that a batch of one is
 * exactly 0. A block has a row, or a stretch of columns; sums over a batch are in f64.
 */
#include <math.h>

#include "autograd/device/cuda/operand.cuh"
#include "autograd/ops/contrastive/contrastive_internal.h"

F2B_DECLARE_KERNELS(f2bi_contrastive_forward);
F2B_DECLARE_KERNELS(f2bi_contrastive_backward);

/* Everything between forward and backward, in one block of memory. */
typedef struct workspace {
    int64_t B, D;
    double temperature;             /* where there is no log_tau */
    const void *log_tau;
    int64_t log_tau_type;
    real *largest[2], *sum[2];      /* [B] of each anchor's softmax, by row and by column of s */
    real *unit[2];                  /* [B,D] rows of length 1 (or 0) of ev, et */
    real *inverse_norm[2];          /* [B] */
    real *s;                        /* [B,B] */
} workspace;

static size_t workspace_bytes(int64_t B, int64_t D)
{
    return (size_t)B * (2 * (size_t)D + 6 + (size_t)B) * sizeof(real);
}

/* The large ones first: products want operands that are aligned. */
static workspace workspace_at(const f2b_node *n, void *block)
{
    workspace w;
    w.B = f2b_dim(n->in[0], 0), w.D = f2b_dim(n->in[0], 1);
    w.temperature = ((const f2bi_contrastive_attr *)n->attr)->temperature;
    w.log_tau = n->in[2] != NULL ? n->in[2]->data : NULL;
    w.log_tau_type = n->in[2] != NULL ? n->in[2]->dtype : F2B_F32;
    w.unit[0] = (real *)block, w.unit[1] = w.unit[0] + w.B * w.D;
    w.s = w.unit[1] + w.B * w.D;
    w.largest[0] = w.s + w.B * w.B, w.largest[1] = w.largest[0] + w.B;
    w.sum[0] = w.largest[1] + w.B, w.sum[1] = w.sum[0] + w.B;
    w.inverse_norm[0] = w.sum[1] + w.B, w.inverse_norm[1] = w.inverse_norm[0] + w.B;
    return w;
}

F2BI_ON_DEVICE real inverse_tau(const workspace *w)
{
    if (w->log_tau == NULL) return (real)(1 / w->temperature);
    return expf(-f2bi_get(w->log_tau, (f2b_dtype)w->log_tau_type, 0));
}

static f2b_status product(const f2b_node *n, int64_t M, int64_t N, int64_t K, const real *a, int64_t lda,
                          bool a_turned, const real *b, int64_t ldb, bool b_turned, real *c)
{
    const f2bi_matrix left = { a, F2B_F32, lda, a_turned }, right = { b, F2B_F32, ldb, b_turned };
    return f2bi_product(n, M, N, K, left, right, 1, 0, c, F2B_F32, N);
}

/* ---- Forward ---- */

static __global__ void normalise(const workspace w, const T *x, int side)
{
    const int64_t k = blockIdx.x;
    const T *row = x + k * w.D;
    real squares = 0;
    for (int64_t c = threadIdx.x; c < w.D; c += blockDim.x) squares += LOAD(row[c]) * LOAD(row[c]);
    squares = f2bi_block_sum(squares);
    const real inverse = squares > 0 ? 1 / sqrtf(squares) : squares;    /* zeros stay; NaN stays */
    for (int64_t c = threadIdx.x; c < w.D; c += blockDim.x)
        w.unit[side][k * w.D + c] = LOAD(row[c]) * inverse;
    if (threadIdx.x == 0) w.inverse_norm[side][k] = inverse;
}

/* A block an anchor: of side 0 a row of s, of side 1 a column. */
static __global__ void softmax(const workspace w)
{
    const int64_t k = blockIdx.x, side = blockIdx.y;
    const real *s = w.s + (side == 0 ? k * w.B : k);
    const int64_t step = side == 0 ? 1 : w.B;
    const real tau = inverse_tau(&w);
    real top = s[0], sum = 0;
    for (int64_t j = threadIdx.x; j < w.B; j += blockDim.x) top = fmaxf(top, s[j * step]);
    top = f2bi_block_most(top);
    for (int64_t j = threadIdx.x; j < w.B; j += blockDim.x) sum += expf((s[j * step] - top) * tau);
    sum = f2bi_block_sum(sum);
    if (threadIdx.x == 0) w.largest[side][k] = top, w.sum[side][k] = sum;
}

/* One thread adds 2 B numbers: -log softmax at the positives, in their order. */
static __global__ void add_terms(const workspace w, real *loss)
{
    const double tau = (double)inverse_tau(&w);
    double sum = 0;
    for (int64_t k = 0; k < w.B; k++)
        for (int side = 0; side < 2; side++)
            sum += (double)(w.largest[side][k] - w.s[k * w.B + k]) * tau
                   + (double)logf(w.sum[side][k]);
    *loss = (real)(sum / (double)w.B);
}

static f2b_status compute(f2b_node *n, const workspace *w)
{
    for (int side = 0; side < 2; side++)
        F2B_LAUNCH(normalise, (unsigned)w->B, f2bi_row_threads(w->D), 0, f2bi_stream(n), *w,
                   (const T *)n->in[side]->data, side);
    F2B_TRY(product(n, w->B, w->B, w->D, w->unit[0], w->D, false, w->unit[1], w->D, true, w->s));
    n->flops = 2.0 * (double)w->B * (double)w->B * (double)w->D;
    F2B_LAUNCH(softmax, dim3((unsigned)w->B, 2), f2bi_row_threads(w->B), 0, f2bi_stream(n), *w);
    F2B_LAUNCH(add_terms, 1, 1, 0, f2bi_stream(n), *w, (real *)n->out[0]->data);
    return F2B_OK;
}

f2b_status KERNEL(f2bi_contrastive_forward)(f2b_node *n)
{
    const size_t bytes = workspace_bytes(f2b_dim(n->in[0], 0), f2b_dim(n->in[0], 1));
    void *saved, *own = NULL;
    F2B_TRY(f2b_node_save(n, 0, bytes, &saved));
    if (saved == NULL) {
        saved = own = f2bi_scratch(n, bytes);
        if (own == NULL) return F2B_ERR_MEMORY;
    }
    const workspace w = workspace_at(n, saved);
    const f2b_status status = compute(n, &w);
    f2b_free(own);
    F2B_TRY(status);
    return f2bi_launched(n);
}

/* ---- Backward ---- */

/* ds [B,B] = dL/ds = dy / (B tau) (pr + pc - 2 [k = j]); per_row[k] = -sum of ds * s over row k. */
static __global__ void slope(const workspace w, const real *dy, real *ds, real *per_row)
{
    const int64_t k = blockIdx.x;
    const real tau = inverse_tau(&w), factor = *dy * tau / (real)w.B;
    real sum = 0;
    for (int64_t j = threadIdx.x; j < w.B; j += blockDim.x) {
        const real s = w.s[k * w.B + j], positive = j == k ? 1 : 0;
        const real pr = expf((s - w.largest[0][k]) * tau) / w.sum[0][k];
        const real pc = expf((s - w.largest[1][j]) * tau) / w.sum[1][j];
        const real d = factor * ((pr - positive) + (pc - positive));
        ds[k * w.B + j] = d;
        sum -= d * s;
    }
    sum = f2bi_block_sum(sum);
    if (threadIdx.x == 0) per_row[k] = sum;
}

/* With u = x / |x| and du given:  dx = (du - u (u . du)) / |x|. */
static __global__ void through_norm(const workspace w, int side, const real *du, T *dx, bool fresh)
{
    const int64_t k = blockIdx.x;
    const real *u = w.unit[side] + k * w.D, *d = du + k * w.D;
    T *row = dx + k * w.D;
    real dot = 0;
    for (int64_t c = threadIdx.x; c < w.D; c += blockDim.x) dot += u[c] * d[c];
    dot = f2bi_block_sum(dot);
    for (int64_t c = threadIdx.x; c < w.D; c += blockDim.x) {
        const real old = fresh ? 0 : LOAD(row[c]);
        STORE(row[c], old + (d[c] - u[c] * dot) * w.inverse_norm[side][k]);
    }
}

static __global__ void add_rows(void *grad, f2b_dtype type, const real *per_row, int64_t B)
{
    double sum = 0;
    for (int64_t k = 0; k < B; k++) sum += (double)per_row[k];
    f2bi_put(grad, type, 0, (real)((double)f2bi_get(grad, type, 0) + sum));
}

static f2b_status gradients(f2b_node *n, const workspace *w, real *ds, real *du, real *per_row)
{
    const int64_t B = w->B, D = w->D;
    F2B_LAUNCH(slope, (unsigned)B, f2bi_row_threads(B), 0, f2bi_stream(n), *w,
               (const real *)n->out[0]->grad, ds, per_row);
    for (int side = 0; side < 2; side++) {
        bool fresh;
        T *dx = (T *)f2b_node_grad(n, side, &fresh);
        if (dx == NULL || D == 0) continue;
        F2B_TRY(product(n, B, D, B, ds, B, side == 1, w->unit[1 - side], D, false, du));
        F2B_LAUNCH(through_norm, (unsigned)B, f2bi_row_threads(D), 0, f2bi_stream(n), *w, side,
                   (const real *)du, dx, fresh);
        n->flops += 2.0 * (double)B * (double)B * (double)D;
    }
    void *d_temperature = f2b_node_grad(n, 2, NULL);
    if (d_temperature != NULL)
        F2B_LAUNCH(add_rows, 1, 1, 0, f2bi_stream(n), d_temperature, n->in[2]->dtype,
                   (const real *)per_row, B);
    return F2B_OK;
}

f2b_status KERNEL(f2bi_contrastive_backward)(f2b_node *n)
{
    const workspace w = workspace_at(n, n->saved[0]);
    real *ds = (real *)f2bi_scratch(n, (size_t)(w.B * (w.B + w.D + 1)) * sizeof(real));
    if (ds == NULL) return F2B_ERR_MEMORY;
    real *du = ds + w.B * w.B;
    const f2b_status status = gradients(n, &w, ds, du, du + w.B * w.D);
    f2b_free(ds);
    F2B_TRY(status);
    return f2bi_launched(n);
}
