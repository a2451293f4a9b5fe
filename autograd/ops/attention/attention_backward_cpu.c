/* CPU kernel of attention, backward. */
#include "autograd/ops/attention/attention_parts.h"

f2b_kernel KERNEL(f2bi_attention_backward);

#if defined(F2B_KERNEL_F64)
#define TURN f2bi_gemm_turn_f64
#else
#define TURN f2bi_gemm_turn_f32
#endif

enum { BQ = 64, BK = 128, BK_IN_REGISTERS = 112 };  /* query rows of a block, and keys */
enum { PANEL = 32, PANELS = BQ / PANEL };           /* query rows that products take together */

/*
 * With P the softmax and S its argument:  dV = P^T dO,  dP = dO V^T,
 * dS = P * (dP - rowsum(dO * O)),  dQ = scale * dS K,  dK = scale * dS^T Q
 * (scale comes last).
 * A block is BQ query rows by up to BK keys; its scores are held transposed ([keys, query rows]): P^T and
 * dS^T are then left operands as they lie, and dQ is summed as its transpose, K^T dS^T. Where a block ends
 * differs from panel to panel of query rows: what none of a panel sees is not multiplied. */
typedef struct backward_out {
    const T *o, *d_o;
    const real *lse;
    T *dq, *dk, *dv;            /* NULL where not wanted */
    bool fresh_q, fresh_k, fresh_v;
    real *shared_k, *shared_v;  /* [n, shared, k_width]: what each sequence gives to rows in common */
} backward_out;

/* What the query rows of a block bring: packed for both sides, and two numbers a row. */
typedef struct query_block {
    int64_t rows, wide;         /* query rows, to the end of a vector */
    int64_t n, seen[PANELS];    /* keys that any of them sees, that any of a panel sees */
    T *q_col, *do_col, *q_row, *do_row;
    real *delta, *lse;          /* [wide], 0 behind the rows, like */
    int32_t *limit;
} query_block;

/* What a block needs beside: the keys and values of the sequence, and room. */
typedef struct key_side {
    int64_t block;              /* keys of one */
    key_side_rows k, v;         /* as left operands; a block is copied or in place */
    int64_t ldt;
    T *k_turned;                /* [D, ldt] */
    real *s, *dp;               /* [BK, wide] */
    T *pt, *ds, *ds_packed;     /* [BK, wide]; dS^T as a right operand */
    real *dk, *dv, *dqt, *dq;   /* [L, D], [L, D], [D, wide], [wide, D] */
} key_side;

static int64_t backward_space(const view *w)
{
    const int64_t L = w->longest, D = w->D;
    return (2 * L * even(D) + D * even(L) + 2 * apart(BK * BQ) + PACKED(BK, BQ) + 2 * PACKED(D, BQ)
            + 2 * PACKED(BQ, D)) * (int64_t)sizeof(T)
           + (2 * L * D + 2 * BK * BQ + 2 * D * BQ + 3 * BQ) * (int64_t)sizeof(real) + 19 * 64;
}

/* Elements from panel to panel of an operand packed with k rows. */
static inline int64_t panel_of(int64_t k) { return PACKED(k, PANEL); }

/* C [keys, D] += P^T or dS^T times rows packed along k: the keys that the first panel sees by all query rows,
 * the others by those behind it. */
static void add_to_keys(const query_block *b, const T *p, const T *packed, int64_t first, int64_t keys, real *c,
                        int64_t D)
{
    const int64_t ld = b->wide, k = steps_of(ld, b->rows);
    BLOCK(first, D, k, 1, p, ld, packed, b->rows, 1, c, D);
    if (k > PANEL)
        BLOCK(keys - first, D, k - PANEL, 1, p + first * ld + PANEL, ld, packed + PACKED(PANEL, 1), b->rows, 1,
              c + first * D, D);
}

static void backward_block(const view *w, const backward_out *out, const query_block *b, key_side *x,
                           int64_t j0)
{
    const int64_t D = w->D, ld = b->wide;
    const int64_t keys = b->n - j0 < x->block ? b->n - j0 : x->block;
    int64_t ldk, ldv, seen[PANELS];     /* of the block's keys */
    const T *k = keys_from(&x->k, j0, &ldk), *v = keys_from(&x->v, j0, &ldv);
    for (int64_t p = 0, i = 0; i < ld; p++, i += PANEL) {
        const int64_t cols = ld - i < PANEL ? ld - i : PANEL, behind = p * panel_of(D);
        seen[p] = b->seen[p] < j0 ? 0 : b->seen[p] - j0 < keys ? b->seen[p] - j0 : keys;
        BLOCK(seen[p], cols, D, 1, k, ldk, b->q_col + behind, D, 0, x->s + i, ld);
        BLOCK(seen[p], cols, D, 1, v, ldv, b->do_col + behind, D, 0, x->dp + i, ld);
    }
    const f2bi_softmax_block softmax = { j0, keys, ld, w->scale, x->s, x->dp, b->lse, b->delta, b->limit,
                                         x->pt, x->ds };
    KERNEL(f2bi_softmax_backward)(&softmax);
    if (out->dv) add_to_keys(b, x->pt, b->do_row, seen[0], keys, x->dv + j0 * D, D);
    if (out->dk) add_to_keys(b, x->ds, b->q_row, seen[0], keys, x->dk + j0 * D, D);
    if (out->dq == NULL) return;
    pack_rows(x->ds_packed, x->ds, ld, keys, ld);
    for (int64_t p = 0, i = 0; i < ld; p++, i += PANEL)
        BLOCK(D, ld - i < PANEL ? ld - i : PANEL, seen[p], 1, x->k_turned + j0, x->ldt,
              x->ds_packed + p * panel_of(keys), keys, j0 > 0, x->dqt + i, ld);
}

/* An even number of keys, so that pairs of k_turned end with the block or the sequence. */
static void count_seen(const view *w, query_block *b, int64_t t, int64_t L)
{
    b->n = 0;
    for (int64_t p = 0, i = 0; i < b->rows; p++, i += PANEL) {
        const int64_t most = even(most_visible(w, t + i, b->rows - i < PANEL ? b->rows - i : PANEL));
        b->seen[p] = most < L ? most : L;
        if (b->seen[p] > b->n) b->n = b->seen[p];
    }
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

/* What read_queries reads next: for the second cache, by the time of a block. */
static void ask_for_queries(const view *w, const backward_out *out, int64_t h, int64_t t, int64_t rows)
{
    enum { SECOND_CACHE = 2 };
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < w->D; c += 64 / (int64_t)sizeof(T)) {
            const int64_t at = (t + i) * w->q_width + h * w->D + c;
            __builtin_prefetch(w->q + at, 0, SECOND_CACHE);
            __builtin_prefetch(out->d_o + at, 0, SECOND_CACHE);
            __builtin_prefetch(out->o + at, 0, SECOND_CACHE);
        }
}

static void add_queries(const view *w, const backward_out *out, key_side *x, const query_block *b,
                        int64_t h, int64_t t)
{
    const int64_t D = w->D;
    TURN(x->dq, D, x->dqt, b->wide, D, b->rows);
    KERNEL(f2bi_scaled_rows)(out->dq + t * w->q_width + h * D, w->q_width, x->dq, b->rows, D, &w->scale, 0,
                             !out->fresh_q);
}

/* dk or dv of a sequence's keys, [L, D], to its own rows and to the room for rows in common. */
static void give_keys(const view *w, int64_t s, int64_t g, const real *x, T *dx, real scale, bool fresh,
                      real *shared)
{
    if (dx == NULL) return;
    const int64_t D = w->D;
    for (int64_t j = 0; j < w->shared; j++)
        for (int64_t c = 0; c < D; c++)
            shared[(s * w->shared + j) * w->k_width + g * D + c] = scale * x[j * D + c];
    KERNEL(f2bi_scaled_rows)(dx + own_row(w, s) * w->k_width + g * D, w->k_width, x + w->shared * D,
                             w->k_count[s] - w->shared, D, &scale, 0, !fresh);
}

static void backward_task(const view *w, int64_t s, int64_t g, char *space, void *context)
{
    const backward_out *out = context;
    const int64_t D = w->D, L = w->k_count[s];
    if (w->q_start[s] == w->q_start[s + 1] && !out->fresh_k && !out->fresh_v && w->shared == 0) return;
    TAKE(T, k_space, L * even(D)); TAKE(T, v_space, L * even(D)); TAKE(T, k_turned, D * even(L));
    TAKE(T, p_apart, apart(BK * BQ)); TAKE(T, ds_apart, apart(BK * BQ)); TAKE(T, ds_packed, PACKED(BK, BQ));
    TAKE(T, q_col, PACKED(D, BQ)); TAKE(T, do_col, PACKED(D, BQ));
    TAKE(T, q_row, PACKED(BQ, D)); TAKE(T, do_row, PACKED(BQ, D));
    TAKE(real, dk, L * D); TAKE(real, dv, L * D); TAKE(real, dqt, D * BQ); TAKE(real, dq, D * BQ);
    TAKE(real, scores, BK * BQ); TAKE(real, dp, BK * BQ); TAKE(real, delta, BQ); TAKE(real, lse, BQ);
    TAKE(int32_t, limit, BQ);
    key_side x = { .block = in_tiles() ? BK : BK_IN_REGISTERS, .k_turned = k_turned, .ldt = even(L),
                   .s = scores, .dp = dp, .pt = F2BI_ATT_IN_PLACE ? (void *)scores : p_apart,
                   .ds = F2BI_ATT_IN_PLACE ? (void *)dp : ds_apart, .ds_packed = ds_packed, .dk = dk,
                   .dv = dv, .dqt = dqt, .dq = dq };
    const int64_t in_blocks = (w->shared + x.block - 1) / x.block * x.block;
    const int64_t copied = must_copy(w->k_width, D) || in_blocks > L ? L : in_blocks;
    x.k = keys_of(w, w->k, s, g, copied, k_space);
    x.v = keys_of(w, w->v, s, g, copied, v_space);
    if (out->dq) {
        KERNEL(f2bi_gemm_turn)(k_turned, x.ldt, k_space, x.k.ld_copy, copied, D);
        KERNEL(f2bi_gemm_turn)(k_turned + copied, x.ldt, x.k.place + copied * x.k.ld, x.k.ld, L - copied, D);
    }
    memset(dk, 0, (size_t)(L * D) * sizeof(real));
    memset(dv, 0, (size_t)(L * D) * sizeof(real));

    for (int64_t h = g * w->group; h < (g + 1) * w->group; h++) {
        for (int64_t t = w->q_start[s]; t < w->q_start[s + 1]; t += BQ) {
            const int64_t left = w->q_start[s + 1] - t, rows = left < BQ ? left : BQ;
            query_block b = { .rows = rows, .wide = padded(rows), .q_col = q_col, .q_row = q_row,
                              .do_col = do_col, .do_row = do_row, .delta = delta, .lse = lse,
                              .limit = limit };
            count_seen(w, &b, t, L);
            read_queries(w, out, &b, h, t);
            if (left > BQ) ask_for_queries(w, out, h, t + BQ, left - BQ < BQ ? left - BQ : BQ);
            for (int64_t j0 = 0; j0 < b.n; j0 += x.block) backward_block(w, out, &b, &x, j0);
            if (out->dq) add_queries(w, out, &x, &b, h, t);
        }
    }
    give_keys(w, s, g, dk, out->dk, w->scale, out->fresh_k, out->shared_k);
    give_keys(w, s, g, dv, out->dv, 1, out->fresh_v, out->shared_v);
}

/* Rows in common get the sum of what the sequences give, in their order. */
static void add_shared(const view *w, T *dx, bool fresh, const real *shared)
{
    const int64_t width = w->k_width;
#pragma omp parallel for schedule(static)
    for (int64_t j = 0; j < w->shared; j++)
        for (int64_t c = 0; c < width; c++) {
            real sum = fresh ? 0 : LOAD(dx[j * width + c]);
            for (int64_t s = 0; s < w->n; s++) sum += shared[(s * w->shared + j) * width + c];
            STORE(dx[j * width + c], sum);
        }
}

/* Sequences follow each other, behind what they share, to the last row of k. */
static bool keys_are_whole(const view *w, int64_t rows)
{
    int64_t next = w->shared;
    for (int64_t s = 0; s < w->n; s++) {
        if (w->k_count[s] > w->shared && own_row(w, s) != next) return false;
        next += w->k_count[s] - w->shared;
    }
    return next == rows;
}

/* Bytes for what the sequences give to rows in common, of k or of v. */
static int64_t shared_space(const view *w) { return w->n * w->shared * w->k_width * (int64_t)sizeof(real); }

int64_t KERNEL(f2bi_attention_backward_space)(const f2b_node *n)
{
    const view w = view_of(n);
    return backward_space(&w) * f2b_threads() + 2 * shared_space(&w);
}

f2b_status KERNEL(f2bi_attention_backward)(f2b_node *n)
{
    const view w = view_of(n);
    backward_out out = { .o = n->out[0]->data, .d_o = n->out[0]->grad, .lse = n->saved[0] };
    out.dq = f2b_node_grad(n, ATT_Q, &out.fresh_q);
    const bool all = keys_are_whole(&w, n->in[ATT_K]->shape[0]);    /* other rows get zero */
    out.dk = f2b_node_grad(n, ATT_K, all ? &out.fresh_k : NULL);
    out.dv = f2b_node_grad(n, ATT_V, all ? &out.fresh_v : NULL);
    n->flops = 2.5 * attention_flops(n);
    const int64_t bytes = shared_space(&w);
    if (bytes > 0) {
        char *room = f2b_alloc_host((size_t)(2 * bytes), F2B_TAG_SCRATCH);
        if (room == NULL) return F2B_ERR_MEMORY;
        out.shared_k = (real *)room, out.shared_v = (real *)(room + bytes);
    }
    const f2b_status status = run_tasks(&w, backward_space(&w), backward_task, &out);
    if (bytes > 0 && status == F2B_OK) {
        if (out.dk) add_shared(&w, out.dk, out.fresh_k, out.shared_k);
        if (out.dv) add_shared(&w, out.dv, out.fresh_v, out.shared_v);
    }
    f2b_free(out.shared_k);
    return status;
}
