/*
 * CPU kernels of attention. One task is one sequence and one key/value head; it goes through the
 * query heads of the group and through blocks of BQ query rows in order, so that sums over queries
 * (dk, dv) need no atomics and have one order. Legend: L keys a block sees, D head_dim.
 */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "autograd/device/cpu/gemm.h"
#include "autograd/device/cpu/kernel.h"
#include "autograd/device/cpu/threads.h"
#include "autograd/device/cpu/vector_math.h"
#include "autograd/ops/attention/attention_internal.h"

f2b_kernel KERNEL(f2bi_attention_forward), KERNEL(f2bi_attention_backward);

#if defined(F2B_KERNEL_F64)
#define EXP exp
#define PACK f2bi_gemm_pack_f64
#define GEMM f2bi_gemm_block_f64
#define PANELS f2bi_gemm_packed_elements_f64
#else
#define EXP f2b_expf_fast
#define PACK f2bi_gemm_pack_f32
#define GEMM f2bi_gemm_block_f32
#define PANELS f2bi_gemm_packed_elements_f32
#endif

enum { BQ = 64 };

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

/* Rows of x (stride `width`) in the compute type: in place where that is the type, else in `space`. */
static const real *real_rows(const T *x, int64_t width, int64_t rows, int64_t D, real *space,
                             int64_t *ld)
{
#if defined(F2B_KERNEL_BF16)
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < D; c++) space[i * D + c] = LOAD(x[i * width + c]);
    *ld = D;
    return space;
#else
    (void)rows, (void)D, (void)space;
    *ld = width;
    return x;
#endif
}

/* B(i,c) = x[i,c]: rows along k. */
static void pack_rows(real *packed, const T *x, int64_t width, int64_t rows, int64_t D)
{
    const f2b_gemm_term t = { .b = x, .b_type = F2B_KERNEL_DTYPE, .b_row = width, .b_col = 1, .k = rows };
    PACK(packed, &t, 0, D);
}

/* B(c,i) = x[i,c]: rows along n. */
static void pack_columns(real *packed, const T *x, int64_t width, int64_t rows, int64_t D)
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

static int64_t panels(int64_t k, int64_t N) { return PANELS(k, N); }

/* Runs task(view, sequence, kv head, this thread's `space` reals, context) for all, on all threads. */
typedef void task_fn(const view *w, int64_t s, int64_t g, real *space, void *context);
static f2b_status run_tasks(const view *w, int64_t space, task_fn *task, void *context)
{
    real *all = f2b_alloc_host((size_t)(space * f2b_threads()) * sizeof(real), F2B_TAG_SCRATCH);
    if (all == NULL) return F2B_ERR_MEMORY;
#pragma omp parallel for schedule(dynamic, 1) if (w->n * w->kv_heads > 1)
    for (int64_t i = 0; i < w->n * w->kv_heads; i++)
        task(w, i / w->kv_heads, i % w->kv_heads, all + omp_get_thread_num() * space, context);
    f2b_free(all);
    return F2B_OK;
}

/* ---- Forward ---- */

/* Softmax of the first n of a row in place, zeros up to L; returns the log of the sum. */
static real softmax_row(real *s, int64_t n, int64_t L)
{
    real top = s[0];
#pragma omp simd reduction(max : top)
    for (int64_t j = 0; j < n; j++) top = s[j] > top ? s[j] : top;
    real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n; j++) {
        s[j] = EXP(s[j] - top);
        sum += s[j];
    }
    const real inverse = 1 / sum;
    for (int64_t j = 0; j < n; j++) s[j] *= inverse;
    for (int64_t j = n; j < L; j++) s[j] = 0;
    return top + R(log)(sum);
}

typedef struct forward_out {
    T *o;
    real *lse;                  /* [heads, Tq] or NULL */
} forward_out;

static int64_t forward_space(const view *w)
{
    return panels(w->D, w->longest) + panels(w->longest, w->D) + BQ * (w->longest + 2 * w->D);
}

static void forward_task(const view *w, int64_t s, int64_t g, real *space, void *context)
{
    const forward_out *out = context;
    const int64_t D = w->D, L = w->k_count[s];
    real *keys = space, *values = keys + panels(D, w->longest);
    real *scores = values + panels(w->longest, D), *o = scores + BQ * w->longest, *rows_q = o + BQ * D;
    if (w->q_start[s] == w->q_start[s + 1]) return;
    pack_columns(keys, w->k + w->k_start[s] * w->k_width + g * D, w->k_width, L, D);
    pack_rows(values, w->v + w->k_start[s] * w->k_width + g * D, w->k_width, L, D);

    for (int64_t h = g * w->group; h < (g + 1) * w->group; h++) {
        for (int64_t t = w->q_start[s]; t < w->q_start[s + 1]; t += BQ) {
            const int64_t left = w->q_start[s + 1] - t, rows = left < BQ ? left : BQ;
            const int64_t n = most_visible(w, t, rows);
            int64_t ldq;
            const real *q = real_rows(w->q + t * w->q_width + h * D, w->q_width, rows, D, rows_q, &ldq);
            GEMM(rows, n, D, w->scale, q, ldq, keys, 0, scores, n);
            for (int64_t i = 0; i < rows; i++) {
                const real lse = softmax_row(scores + i * n, w->limit[t + i], n);
                if (out->lse) out->lse[h * w->Tq + t + i] = lse;
            }
            /* The values were packed for all L keys: a panel is L rows long. */
            for (int64_t c = 0; c < D; c += panels(1, 1)) {
                const int64_t wide = D - c < panels(1, 1) ? D - c : panels(1, 1);
                GEMM(rows, wide, n, 1, scores, n, values + c * L, 0, o + c, D);
            }
            for (int64_t i = 0; i < rows; i++)
                for (int64_t c = 0; c < D; c++)
                    STORE(out->o[(t + i) * w->q_width + h * D + c], o[i * D + c]);
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
 * Scores are held transposed ([keys, query rows]): P^T and dS^T are then left operands as they lie,
 * and only dS is transposed once, for dQ. */
typedef struct backward_out {
    const T *o, *d_o;
    const real *lse;
    T *dq, *dk, *dv;            /* NULL where not wanted */
    bool fresh_q;
} backward_out;

static int64_t backward_space(const view *w)
{
    const int64_t L = w->longest, D = w->D;
    return panels(L, D) + 4 * L * D                 /* packed keys; rows of k, v; sums dk, dv */
           + 3 * BQ * L + BQ * D                    /* P^T, dS^T, dS; dq */
           + 2 * panels(D, BQ) + 2 * panels(BQ, D) + 2 * BQ;
}

/* pt = P^T and ds = dS^T from S^T and dP^T, [L, rows] each. */
static void softmax_backward(real *pt, real *ds, int64_t L, int64_t rows, const int32_t *limit,
                             const real *lse, const real *delta)
{
    for (int64_t j = 0; j < L; j++) {
        real *p = pt + j * rows, *d = ds + j * rows;
        for (int64_t i = 0; i < rows; i++) {
            const real x = EXP(p[i] - lse[i]);
            p[i] = j < limit[i] ? x : 0;
            d[i] = p[i] * (d[i] - delta[i]);
        }
    }
}

static void transpose_block(real *dst, const real *src, int64_t L, int64_t rows)
{
    for (int64_t j0 = 0; j0 < L; j0 += 16)
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = j0; j < L && j < j0 + 16; j++) dst[i * L + j] = src[j * rows + i];
}

static void add_rows(T *dst, int64_t width, const real *src, int64_t rows, int64_t D, bool fresh)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < D; c++) {
            T *place = &dst[i * width + c];
            STORE(*place, (fresh ? 0 : LOAD(*place)) + src[i * D + c]);
        }
}

static void backward_task(const view *w, int64_t s, int64_t g, real *space, void *context)
{
    const backward_out *out = context;
    const int64_t D = w->D, L = w->k_count[s], first = w->k_start[s] * w->k_width + g * D;
    real *keys = space;
#define TAKE(name, size) real *name = space; space += (size)
    space += panels(w->longest, D);
    TAKE(space_k, L * D); TAKE(space_v, L * D); TAKE(dk, L * D); TAKE(dv, L * D);
    TAKE(pt, BQ * L); TAKE(dst, BQ * L); TAKE(ds, BQ * L); TAKE(dq, BQ * D);
    TAKE(q_col, panels(D, BQ)); TAKE(do_col, panels(D, BQ));
    TAKE(q_row, panels(BQ, D)); TAKE(do_row, panels(BQ, D)); TAKE(delta, BQ); TAKE(lse, BQ);
#undef TAKE
    if (w->q_start[s] == w->q_start[s + 1]) return;
    int64_t ldk, ldv;
    const real *k = real_rows(w->k + first, w->k_width, L, D, space_k, &ldk);
    const real *v = real_rows(w->v + first, w->k_width, L, D, space_v, &ldv);
    pack_rows(keys, w->k + first, w->k_width, L, D);
    memset(dk, 0, (size_t)(2 * L * D) * sizeof(real));          /* dk and dv lie together */

    for (int64_t h = g * w->group; h < (g + 1) * w->group; h++) {
        for (int64_t t = w->q_start[s]; t < w->q_start[s + 1]; t += BQ) {
            const int64_t left = w->q_start[s + 1] - t, rows = left < BQ ? left : BQ;
            const int64_t n = most_visible(w, t, rows), at = t * w->q_width + h * D;
            pack_columns(q_col, w->q + at, w->q_width, rows, D);
            pack_rows(q_row, w->q + at, w->q_width, rows, D);
            pack_columns(do_col, out->d_o + at, w->q_width, rows, D);
            pack_rows(do_row, out->d_o + at, w->q_width, rows, D);
            for (int64_t i = 0; i < rows; i++) {
                const T *o = out->o + at + i * w->q_width, *d_o = out->d_o + at + i * w->q_width;
                real sum = 0;
                for (int64_t c = 0; c < D; c++) sum += LOAD(o[c]) * LOAD(d_o[c]);
                delta[i] = sum;
                lse[i] = out->lse[h * w->Tq + t + i];
            }
            GEMM(n, rows, D, w->scale, k, ldk, q_col, 0, pt, rows);
            GEMM(n, rows, D, 1, v, ldv, do_col, 0, dst, rows);
            softmax_backward(pt, dst, n, rows, w->limit + t, lse, delta);
            if (out->dv) GEMM(n, D, rows, 1, pt, rows, do_row, 1, dv, D);
            if (out->dk) GEMM(n, D, rows, w->scale, dst, rows, q_row, 1, dk, D);
            if (out->dq == NULL) continue;
            transpose_block(ds, dst, n, rows);
            for (int64_t c = 0; c < D; c += panels(1, 1)) {
                const int64_t wide = D - c < panels(1, 1) ? D - c : panels(1, 1);
                GEMM(rows, wide, n, w->scale, ds, n, keys + c * L, 0, dq + c, D);
            }
            add_rows(out->dq + at, w->q_width, dq, rows, D, out->fresh_q);
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
