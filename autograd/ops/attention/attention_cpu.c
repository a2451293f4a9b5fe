/* CPU kernel of attention, forward: a block is some query rows by all keys that they see. */
#include <math.h>

#include "autograd/ops/attention/attention_parts.h"

f2b_kernel KERNEL(f2bi_attention_forward);

/* Query rows of a block: in registers the fewest whole groups of them, so that few see fewer keys than the last. */
enum { IN_TILES = 64, IN_REGISTERS = 12 };
static inline int64_t block_rows(void)
{
    const int64_t group = KERNEL(f2bi_gemm_group)();
    return in_tiles() ? IN_TILES : (IN_REGISTERS + group - 1) / group * group;
}

typedef struct forward_out {
    T *o;
    real *lse;                  /* [heads, Tq] or NULL */
} forward_out;

/* Elements of a head's keys or values in order, where sequences share some. */
static int64_t rows_space(const view *w) { return w->shared > 0 ? w->longest * even(w->D) : 0; }

static int64_t forward_space(const view *w)
{
    const int64_t L = w->longest, D = w->D, BQ = block_rows();
    return (PACKED(D, padded(L)) + PACKED(L, D) + apart(BQ * padded(L)) + BQ * even(D) + rows_space(w))
           * (int64_t)sizeof(T) + BQ * (padded(L) + D) * (int64_t)sizeof(real) + 7 * 64;
}

static void forward_task(const view *w, int64_t s, int64_t g, char *space, void *context)
{
    const forward_out *out = context;
    const int64_t D = w->D, L = w->k_count[s], BQ = block_rows();
    TAKE(T, keys, PACKED(D, padded(L))); TAKE(T, values, PACKED(L, D));
    TAKE(T, p_apart, apart(BQ * padded(L))); TAKE(T, q_space, BQ * even(D));
    TAKE(real, scores, BQ * padded(L)); TAKE(real, o, BQ * D); TAKE(T, in_order, rows_space(w));
    T *const p = F2BI_ATT_IN_PLACE ? (void *)scores : p_apart;
    if (w->q_start[s] == w->q_start[s + 1]) return;
    const int64_t copied = w->shared > 0 ? L : 0;
    int64_t ld;
    key_side_rows rows_of = keys_of(w, w->k, s, g, copied, in_order);
    const T *x = keys_from(&rows_of, 0, &ld);
    pack_columns(keys, x, ld, L, D);
    rows_of = keys_of(w, w->v, s, g, copied, in_order);
    x = keys_from(&rows_of, 0, &ld);
    pack_rows(values, x, ld, L, D);

    for (int64_t h = g * w->group; h < (g + 1) * w->group; h++) {
        for (int64_t t = w->q_start[s]; t < w->q_start[s + 1]; t += BQ) {
            const int64_t left = w->q_start[s + 1] - t, rows = left < BQ ? left : BQ;
            const int64_t seen = most_visible(w, t, rows), wide = padded(seen);
            real inverse[IN_TILES];
            int64_t ldq;
            const T *q = left_rows(w->q + t * w->q_width + h * D, w->q_width, rows, D, q_space, &ldq);
            BLOCK(rows, wide, D, 1, q, ldq, keys, D, 0, scores, wide);
            for (int64_t i = 0; i < rows; i++) {
                const real lse = KERNEL(f2bi_softmax_row)(scores + i * wide, p + i * wide,
                                                          w->limit[t + i], wide, w->scale, &inverse[i]);
                if (out->lse) out->lse[h * w->Tq + t + i] = lse;
            }
            ask_for_rows(out->o + t * w->q_width + h * D, w->q_width, rows, D);
            BLOCK(rows, D, steps_of(wide, seen), 1, p, wide, values, L, 0, o, D);
            KERNEL(f2bi_scaled_rows)(out->o + t * w->q_width + h * D, w->q_width, o, rows, D, inverse, 1, false);
        }
    }
}

int64_t KERNEL(f2bi_attention_forward_space)(const f2b_node *n)
{
    const view w = view_of(n);
    return forward_space(&w) * f2b_threads();
}

f2b_status KERNEL(f2bi_attention_forward)(f2b_node *n)
{
    const view w = view_of(n);
    void *lse;
    F2B_TRY(f2b_node_save(n, 0, (size_t)(w.heads * w.Tq) * sizeof(real), &lse));
    n->flops = attention_flops(n);
    forward_out out = { n->out[0]->data, lse };
    return run_tasks(&w, forward_space(&w), forward_task, &out);
}
