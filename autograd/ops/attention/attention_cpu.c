/*
 * CPU kernels of attention. One task is one sequence and one key/value head; it goes through the
 * query heads of the group and through blocks of BQ query rows in order, so that sums over queries
 * (dk, dv) need no atomics and have one order. Legend: L keys a block sees, D head_dim.
 */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "autograd/device/cpu/gemm.h"
#include "autograd/device/cpu/row_math.h"
#include "autograd/device/cpu/threads.h"
#include "autograd/device/cpu/vector_math.h"
#include "autograd/ops/attention/attention_internal.h"

f2b_kernel KERNEL(f2bi_attention_forward), KERNEL(f2bi_attention_backward);

#if defined(F2B_KERNEL_F64)
#define TURN f2bi_gemm_turn_f64
#else
#define TURN f2bi_gemm_turn_f32
#endif
#define PACK KERNEL(f2bi_gemm_pack)
#define BLOCK KERNEL(f2bi_gemm_block)
#define PACKED KERNEL(f2bi_gemm_packed_elements)

enum {
    BQ_FORWARD = 56, BQ = 64, BK = 112,     /* query rows of a block; keys of one in backward */
    PAD = 64 / sizeof(real)                 /* rows of scores are whole vectors */
};

/* Everything a task needs to know of the node. */
typedef struct view {
    const T *q, *k, *v;
    const int32_t *q_start, *k_start, *k_count, *limit;
    int64_t n, Tq, D, heads, kv_heads, group, q_width, k_width, longest;
    real scale;
} view;

static view view_of(const f2b_node *n)
{
    const attention_attr *a = n->attr;
    view w = { .q = n->in[ATT_Q]->data, .k = n->in[ATT_K]->data, .v = n->in[ATT_V]->data,
               .q_start = n->in[ATT_Q_START]->data, .k_start = n->in[ATT_K_START]->data,
               .k_count = n->in[ATT_K_COUNT]->data, .limit = n->in[ATT_LIMIT]->data,
               .n = f2b_numel(n->in[ATT_K_START]), .Tq = n->in[ATT_Q]->shape[0],
               .D = a->head_dim, .q_width = n->in[ATT_Q]->shape[1],
               .k_width = n->in[ATT_K]->shape[1], .scale = (real)a->scale };
    w.heads = w.q_width / w.D, w.kv_heads = w.k_width / w.D, w.group = w.heads / w.kv_heads;
    for (int64_t s = 0; s < w.n; s++)
        if (w.k_count[s] > w.longest) w.longest = w.k_count[s];
    return w;
}

static double flops_of(const view *w)
{
    double pairs = 0;
    for (int64_t t = 0; t < w->Tq; t++) pairs += w->limit[t];
    return 4.0 * pairs * (double)(w->heads * w->D);
}

static inline int64_t even(int64_t n) { return (n + 1) / 2 * 2; }
static inline int64_t padded(int64_t n) { return (n + PAD - 1) / PAD * PAD; }

/* Rows of x (stride `width`) as the left side of a product: in place, but where pairs would be read
 * across their end (bf16 and an odd D) copied to `space` [rows, even(D)]. */
static const T *left_rows(const T *x, int64_t width, int64_t rows, int64_t D, T *space, int64_t *ld)
{
    *ld = width;
    if (sizeof(T) != sizeof(f2b_bf16) || D % 2 == 0) return x;
    *ld = even(D);
    for (int64_t i = 0; i < rows; i++) {
        memcpy(space + i * *ld, x + i * width, (size_t)D * sizeof(T));
        space[i * *ld + D] = 0;
    }
    return space;
}

/* B(i,c) = x[i,c]: rows along k. */
static void pack_rows(T *packed, const T *x, int64_t width, int64_t rows, int64_t D)
{
    const f2b_gemm_term t = { .b = x, .b_type = F2B_KERNEL_DTYPE, .b_row = width, .b_col = 1, .k = rows };
    PACK(packed, &t, 0, D);
}

/* B(c,i) = x[i,c]: rows along n. */
static void pack_columns(T *packed, const T *x, int64_t width, int64_t rows, int64_t D)
{
    const f2b_gemm_term t = { .b = x, .b_type = F2B_KERNEL_DTYPE, .b_row = 1, .b_col = width, .k = D };
    PACK(packed, &t, 0, rows);
}

static int64_t most_visible(const view *w, int64_t t0, int64_t rows)
{
    int64_t most = 0;
    for (int64_t t = t0; t < t0 + rows; t++)
        if (w->limit[t] > most) most = w->limit[t];
    return most;
}

/* Parts of a thread's space, each on a cache line of its own. */
static void *take(char **space, int64_t count, size_t size)
{
    void *part = *space;
    *space += (count * (int64_t)size + 63) / 64 * 64;
    return part;
}
#define TAKE(type, name, count) type *name = take(&space, count, sizeof(type))

/* Runs task(view, sequence, kv head, this thread's space, context) for all, on all threads. */
typedef void task_fn(const view *w, int64_t s, int64_t g, char *space, void *context);
static f2b_status run_tasks(const view *w, int64_t bytes, task_fn *task, void *context)
{
    char *all = f2b_alloc_host((size_t)(bytes * f2b_threads()), F2B_TAG_SCRATCH);
    if (all == NULL) return F2B_ERR_MEMORY;
#pragma omp parallel for schedule(dynamic, 1) if (w->n * w->kv_heads > 1)
    for (int64_t i = 0; i < w->n * w->kv_heads; i++)
        task(w, i / w->kv_heads, i % w->kv_heads, all + omp_get_thread_num() * bytes, context);
    f2b_free(all);
    return F2B_OK;
}

/* ---- Forward ---- */

/* p[j] = exp(s[j] - largest) for j < n, 0 up to L; returns the log of the sum of exp(s), and one over
 * the sum of p. Goes on to the end of a vector: s is that long, and L. */
static real softmax_row(real *restrict s, T *restrict p, int32_t n, int64_t L, real *inverse)
{
    const int32_t end = (int32_t)padded(n);
    real top = s[0];
#pragma omp simd reduction(max : top)
    for (int32_t j = 0; j < end; j++) {
        const real x = j < n ? s[j] : s[0];
        top = x > top ? x : top;
    }
    real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int32_t j = 0; j < end; j++) {
        const real x = j < n ? f2bi_exp(s[j] - top) : 0;
        s[j] = x;
        sum += x;
    }
    for (int32_t j = 0; j < end; j++) STORE(p[j], s[j]);
    for (int64_t j = end; j < L; j++) p[j] = 0;
    *inverse = 1 / sum;
    return top + R(log)(sum);
}

typedef struct forward_out {
    T *o;
    real *lse;                  /* [heads, Tq] or NULL */
} forward_out;

static int64_t forward_space(const view *w)
{
    const int64_t L = w->longest, D = w->D;
    return (PACKED(D, padded(L)) + PACKED(L, D) + BQ_FORWARD * (padded(L) + even(D)))
           * (int64_t)sizeof(T) + BQ_FORWARD * (padded(L) + D) * (int64_t)sizeof(real) + 6 * 64;
}

static void forward_task(const view *w, int64_t s, int64_t g, char *space, void *context)
{
    const forward_out *out = context;
    const int64_t D = w->D, L = w->k_count[s], first = w->k_start[s] * w->k_width + g * D;
    TAKE(T, keys, PACKED(D, padded(L))); TAKE(T, values, PACKED(L, D));
    TAKE(T, p, BQ_FORWARD * padded(L)); TAKE(T, q_space, BQ_FORWARD * even(D));
    TAKE(real, scores, BQ_FORWARD * padded(L)); TAKE(real, o, BQ_FORWARD * D);
    if (w->q_start[s] == w->q_start[s + 1]) return;
    pack_columns(keys, w->k + first, w->k_width, L, D);
    pack_rows(values, w->v + first, w->k_width, L, D);

    for (int64_t h = g * w->group; h < (g + 1) * w->group; h++) {
        for (int64_t t = w->q_start[s]; t < w->q_start[s + 1]; t += BQ_FORWARD) {
            const int64_t left = w->q_start[s + 1] - t, rows = left < BQ_FORWARD ? left : BQ_FORWARD;
            const int64_t n = most_visible(w, t, rows), wide = padded(n);
            real inverse[BQ_FORWARD];
            int64_t ldq;
            const T *q = left_rows(w->q + t * w->q_width + h * D, w->q_width, rows, D, q_space, &ldq);
            BLOCK(rows, wide, D, w->scale, q, ldq, keys, D, 0, scores, wide);
            for (int64_t i = 0; i < rows; i++) {
                const real lse = softmax_row(scores + i * wide, p + i * wide, w->limit[t + i], wide,
                                             &inverse[i]);
                if (out->lse) out->lse[h * w->Tq + t + i] = lse;
            }
            BLOCK(rows, D, n, 1, p, wide, values, L, 0, o, D);
            for (int64_t i = 0; i < rows; i++) {
                T *y = out->o + (t + i) * w->q_width + h * D;
                for (int64_t c = 0; c < D; c++) STORE(y[c], o[i * D + c] * inverse[i]);
            }
        }
    }
}

f2b_status KERNEL(f2bi_attention_forward)(f2b_node *n)
{
    const view w = view_of(n);
    void *lse;
    F2B_TRY(f2b_node_save(n, 0, (size_t)(w.heads * w.Tq) * sizeof(real), &lse));
    n->flops = flops_of(&w);
    forward_out out = { n->out[0]->data, lse };
    return run_tasks(&w, forward_space(&w), forward_task, &out);
}

/* ---- Backward ----
 *
 * With P the softmax and S its argument:  dV = P^T dO,  dP = dO V^T,
 * dS = P * (dP - rowsum(dO * O)),  dQ = scale * dS K,  dK = scale * dS^T Q.
 * A block is BQ query rows by BK keys; its scores are held transposed ([keys, query rows]): P^T and
 * dS^T are then left operands as they lie, and dQ is summed as its transpose, K^T dS^T. */
typedef struct backward_out {
    const T *o, *d_o;
    const real *lse;
    T *dq, *dk, *dv;            /* NULL where not wanted */
    bool fresh_q;
} backward_out;

/* What the query rows of a block bring: packed for both sides, and two numbers a row. */
typedef struct query_block {
    int64_t rows, wide, n;      /* query rows, to the end of a vector; keys that any of them sees */
    T *q_col, *do_col, *q_row, *do_row;
    real *delta, *lse;          /* [wide], 0 behind the rows, like */
    int32_t *limit;
} query_block;

/* What a block needs beside: the keys and values of the sequence, and room. */
typedef struct key_side {
    const T *k, *v;             /* rows, as left operands */
    int64_t ldk, ldv, ldt;
    T *k_turned;                /* [D, ldt] */
    real *s, *dp;               /* [BK, wide] */
    T *pt, *ds, *ds_packed;     /* [BK, wide]; dS^T as a right operand */
    real *dk, *dv, *dqt, *dq;   /* [L, D], [L, D], [D, wide], [wide, D] */
} key_side;

static int64_t backward_space(const view *w)
{
    const int64_t L = w->longest, D = w->D;
    return (2 * L * even(D) + D * even(L) + 2 * BK * BQ + PACKED(BK, BQ) + 2 * PACKED(D, BQ)
            + 2 * PACKED(BQ, D)) * (int64_t)sizeof(T)
           + (2 * L * D + 2 * BK * BQ + 2 * D * BQ + 3 * BQ) * (int64_t)sizeof(real) + 19 * 64;
}

/* P^T and dS^T of `keys` keys from j0 on from S^T and dP^T; 0 where a query row does not see the key. */
static void softmax_backward(const query_block *b, key_side *x, int64_t j0, int64_t keys)
{
    const real *lse = b->lse, *delta = b->delta;
    const int32_t *limit = b->limit, wide = (int32_t)b->wide;
    for (int64_t j = 0; j < keys; j++) {
        real *restrict s = x->s + j * wide, *restrict dp = x->dp + j * wide;
        T *restrict pt = x->pt + j * wide, *restrict ds = x->ds + j * wide;
        const int32_t key = (int32_t)(j0 + j);
        for (int32_t i = 0; i < wide; i++) {
            const real p = key < limit[i] ? f2bi_exp(s[i] - lse[i]) : 0;
            const real d = key < limit[i] ? p * (dp[i] - delta[i]) : 0;
            s[i] = p, dp[i] = d;
        }
        for (int32_t i = 0; i < wide; i++) {
            STORE(pt[i], s[i]);
            STORE(ds[i], dp[i]);
        }
    }
}

static void backward_block(const view *w, const backward_out *out, const query_block *b, key_side *x,
                           int64_t j0)
{
    const int64_t D = w->D, rows = b->rows, ld = b->wide;
    const int64_t keys = b->n - j0 < BK ? b->n - j0 : BK;
    BLOCK(keys, ld, D, w->scale, x->k + j0 * x->ldk, x->ldk, b->q_col, D, 0, x->s, ld);
    BLOCK(keys, ld, D, 1, x->v + j0 * x->ldv, x->ldv, b->do_col, D, 0, x->dp, ld);
    softmax_backward(b, x, j0, keys);
    if (out->dv) BLOCK(keys, D, rows, 1, x->pt, ld, b->do_row, rows, 1, x->dv + j0 * D, D);
    if (out->dk) BLOCK(keys, D, rows, w->scale, x->ds, ld, b->q_row, rows, 1, x->dk + j0 * D, D);
    if (out->dq == NULL) return;
    pack_rows(x->ds_packed, x->ds, ld, keys, ld);
    BLOCK(D, ld, keys, w->scale, x->k_turned + j0, x->ldt, x->ds_packed, keys, j0 > 0, x->dqt, ld);
}

static void read_queries(const view *w, const backward_out *out, query_block *b, int64_t h, int64_t t)
{
    const int64_t D = w->D, at = t * w->q_width + h * D;
    pack_columns(b->q_col, w->q + at, w->q_width, b->rows, D);
    pack_rows(b->q_row, w->q + at, w->q_width, b->rows, D);
    pack_columns(b->do_col, out->d_o + at, w->q_width, b->rows, D);
    pack_rows(b->do_row, out->d_o + at, w->q_width, b->rows, D);
    for (int64_t i = 0; i < b->rows; i++) {
        const T *o = out->o + at + i * w->q_width, *d_o = out->d_o + at + i * w->q_width;
        real sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < D; c++) sum += LOAD(o[c]) * LOAD(d_o[c]);
        b->delta[i] = sum;
        b->lse[i] = out->lse[h * w->Tq + t + i];
        b->limit[i] = w->limit[t + i];
    }
    for (int64_t i = b->rows; i < b->wide; i++) b->delta[i] = b->lse[i] = 0, b->limit[i] = 0;
}

F2BI_ROW_LOOP add_rows(T *dst, int64_t width, const real *src, int64_t rows, int64_t D,
                       const bool fresh)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < D; c++)
            STORE(dst[i * width + c], (fresh ? 0 : LOAD(dst[i * width + c])) + src[i * D + c]);
}

static void add_queries(const view *w, const backward_out *out, key_side *x, const query_block *b,
                        int64_t h, int64_t t)
{
    const int64_t D = w->D;
    T *dq = out->dq + t * w->q_width + h * D;
    TURN(x->dq, D, x->dqt, b->wide, D, b->rows);
    if (out->fresh_q) add_rows(dq, w->q_width, x->dq, b->rows, D, true);
    else add_rows(dq, w->q_width, x->dq, b->rows, D, false);
}

static void backward_task(const view *w, int64_t s, int64_t g, char *space, void *context)
{
    const backward_out *out = context;
    const int64_t D = w->D, L = w->k_count[s], first = w->k_start[s] * w->k_width + g * D;
    if (w->q_start[s] == w->q_start[s + 1]) return;
    TAKE(T, k_space, L * even(D)); TAKE(T, v_space, L * even(D)); TAKE(T, k_turned, D * even(L));
    TAKE(T, pt, BK * BQ); TAKE(T, ds, BK * BQ); TAKE(T, ds_packed, PACKED(BK, BQ));
    TAKE(T, q_col, PACKED(D, BQ)); TAKE(T, do_col, PACKED(D, BQ));
    TAKE(T, q_row, PACKED(BQ, D)); TAKE(T, do_row, PACKED(BQ, D));
    TAKE(real, dk, L * D); TAKE(real, dv, L * D); TAKE(real, dqt, D * BQ); TAKE(real, dq, D * BQ);
    TAKE(real, scores, BK * BQ); TAKE(real, dp, BK * BQ); TAKE(real, delta, BQ); TAKE(real, lse, BQ);
    TAKE(int32_t, limit, BQ);
    key_side x = { .k_turned = k_turned, .ldt = even(L), .s = scores, .dp = dp, .pt = pt, .ds = ds,
                   .ds_packed = ds_packed, .dk = dk, .dv = dv, .dqt = dqt, .dq = dq };
    x.k = left_rows(w->k + first, w->k_width, L, D, k_space, &x.ldk);
    x.v = left_rows(w->v + first, w->k_width, L, D, v_space, &x.ldv);
    if (out->dq) KERNEL(f2bi_gemm_turn)(k_turned, x.ldt, w->k + first, w->k_width, L, D);
    memset(dk, 0, (size_t)(L * D) * sizeof(real));
    memset(dv, 0, (size_t)(L * D) * sizeof(real));

    for (int64_t h = g * w->group; h < (g + 1) * w->group; h++) {
        for (int64_t t = w->q_start[s]; t < w->q_start[s + 1]; t += BQ) {
            const int64_t left = w->q_start[s + 1] - t, rows = left < BQ ? left : BQ;
            query_block b = { .rows = rows, .wide = padded(rows), .q_col = q_col, .q_row = q_row,
                              .do_col = do_col, .do_row = do_row, .delta = delta, .lse = lse,
                              .limit = limit };
            /* An even number of keys, so that pairs of k_turned end with the block or the sequence. */
            b.n = even(most_visible(w, t, rows)) < L ? even(most_visible(w, t, rows)) : L;
            read_queries(w, out, &b, h, t);
            for (int64_t j0 = 0; j0 < b.n; j0 += BK) backward_block(w, out, &b, &x, j0);
            if (out->dq) add_queries(w, out, &x, &b, h, t);
        }
    }
    if (out->dk) add_rows(out->dk + first, w->k_width, dk, L, D, false);
    if (out->dv) add_rows(out->dv + first, w->k_width, dv, L, D, false);
}

f2b_status KERNEL(f2bi_attention_backward)(f2b_node *n)
{
    const view w = view_of(n);
    backward_out out = { .o = n->out[0]->data, .d_o = n->out[0]->grad, .lse = n->saved[0] };
    out.dq = f2b_node_grad(n, ATT_Q, &out.fresh_q);
    out.dk = f2b_node_grad(n, ATT_K, NULL);     /* rows outside all sequences get zero */
    out.dv = f2b_node_grad(n, ATT_V, NULL);
    n->flops = 2.5 * flops_of(&w);
    return run_tasks(&w, backward_space(&w), backward_task, &out);
}
