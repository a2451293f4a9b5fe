/*
 * What forward and backward of attention share. One task is one sequence and one key/value head; it goes
 * through the query heads of the group and through blocks of query rows in order, so that sums over
 * queries (dk, dv) need no atomics and have one order. Legend: L keys a block sees, D head_dim.
 */
#ifndef F2B_AUTOGRAD_OPS_ATTENTION_PARTS_H
#define F2B_AUTOGRAD_OPS_ATTENTION_PARTS_H

#include <omp.h>
#include <string.h>

#include "autograd/device/cpu/cache.h"
#include "autograd/device/cpu/gemm.h"
#include "autograd/device/cpu/products.h"
#include "autograd/device/cpu/threads.h"
#include "autograd/ops/attention/attention_internal.h"
#include "autograd/ops/attention/attention_rows.h"

#define PACK KERNEL(f2bi_gemm_pack)
#define BLOCK KERNEL(f2bi_gemm_block)
#define PACKED KERNEL(f2bi_gemm_packed_elements)

/* Everything a task needs to know of the node. */
typedef struct view {
    const T *q, *k, *v;
    const int32_t *q_start, *k_start, *k_count, *limit;
    const int32_t *key_rows;    /* or NULL */
    int64_t shared;
    int64_t n, Tq, D, heads, kv_heads, group, q_width, k_width, longest;
    real scale;
} view;

static inline view view_of(const f2b_node *n)
{
    const attention_attr *a = n->attr;
    view w = { .q = n->in[ATT_Q]->data, .k = n->in[ATT_K]->data, .v = n->in[ATT_V]->data,
               .q_start = n->in[ATT_Q_START]->data, .k_start = n->in[ATT_K_START]->data,
               .k_count = n->in[ATT_K_COUNT]->data, .limit = n->in[ATT_LIMIT]->data,
               .key_rows = n->in[ATT_KEY_ROWS] != NULL ? n->in[ATT_KEY_ROWS]->data : NULL,
               .shared = a->shared, .n = f2b_numel(n->in[ATT_K_START]), .Tq = n->in[ATT_Q]->shape[0],
               .D = a->head_dim, .q_width = n->in[ATT_Q]->shape[1],
               .k_width = n->in[ATT_K]->shape[1], .scale = (real)a->scale };
    w.heads = w.q_width / w.D, w.kv_heads = w.k_width / w.D, w.group = w.heads / w.kv_heads;
    for (int64_t s = 0; s < w.n; s++)
        if (w.k_count[s] > w.longest) w.longest = w.k_count[s];
    return w;
}

static inline int64_t even(int64_t n) { return (n + 1) / 2 * 2; }
static inline int64_t padded(int64_t n) { return (n + F2BI_ATT_PAD - 1) / F2BI_ATT_PAD * F2BI_ATT_PAD; }

/* Elements of P or dS that are not where S or dP were. */
static inline int64_t apart(int64_t elements) { return F2BI_ATT_IN_PLACE ? 0 : elements; }

/* Whether rows can't be the left side of a product where they lie: pairs would be read across their end (bf16
 * and an odd D), or they collide in the cache. */
static inline bool must_copy(int64_t width, int64_t D)
{
    return (sizeof(T) == sizeof(f2b_bf16) && D % 2 != 0) || f2b_rows_collide(width * (int64_t)sizeof(T));
}

/* Rows of x (stride `width`) as the left side of a product: in place, or copied to `space` [rows, even(D)]. */
static inline const T *left_rows(const T *x, int64_t width, int64_t rows, int64_t D, T *space, int64_t *ld)
{
    *ld = width;
    if (!must_copy(width, D)) return x;
    *ld = even(D);
    for (int64_t i = 0; i < rows; i++) {
        memcpy(space + i * *ld, x + i * width, (size_t)D * sizeof(T));
        if (D != *ld) space[i * *ld + D] = 0;
    }
    return space;
}

/* The row of k that is the sequence's first key of its own; `shared` or more. */
static inline int64_t own_row(const view *w, int64_t s)
{
    return w->key_rows == NULL ? w->k_start[s] : w->k_count[s] == w->shared
        ? w->shared : w->key_rows[w->k_start[s] + w->shared];
}

/* A head's keys or values of a sequence, as a product takes them: the first `copied` rows lie in a copy, the
 * others in place. */
typedef struct key_side_rows {
    const T *copy, *place;      /* row j is at copy + j * ld_copy, or at place + j * ld */
    int64_t copied, ld_copy, ld;
} key_side_rows;

/* Those of x = k or v; as many rows as `copied` says go to `space` [copied, even(D)], at least the shared ones. */
static inline key_side_rows keys_of(const view *w, const T *x, int64_t s, int64_t g, int64_t copied, T *space)
{
    const int64_t D = w->D, ld = even(D), own = (own_row(w, s) - w->shared) * w->k_width;
    x += g * D;
    for (int64_t j = 0; j < copied; j++) {
        memcpy(space + j * ld, x + (j < w->shared ? 0 : own) + j * w->k_width, (size_t)D * sizeof(T));
        if (D != ld) space[j * ld + D] = 0;
    }
    return (key_side_rows){ space, x + own, copied, ld, w->k_width };
}

static inline const T *keys_from(const key_side_rows *r, int64_t j, int64_t *ld)
{
    *ld = j < r->copied ? r->ld_copy : r->ld;
    return j < r->copied ? r->copy + j * r->ld_copy : r->place + j * r->ld;
}

/* B(i,c) = x[i,c]: rows along k. */
static inline void pack_rows(T *packed, const T *x, int64_t width, int64_t rows, int64_t D)
{
    const f2b_gemm_term t = { .b = x, .b_type = F2B_KERNEL_DTYPE, .b_row = width, .b_col = 1, .k = rows };
    PACK(packed, &t, 0, D);
}

/* B(c,i) = x[i,c]: rows along n. */
static inline void pack_columns(T *packed, const T *x, int64_t width, int64_t rows, int64_t D)
{
    const f2b_gemm_term t = { .b = x, .b_type = F2B_KERNEL_DTYPE, .b_row = 1, .b_col = width, .k = D };
    PACK(packed, &t, 0, rows);
}

/* Asks for `rows` rows of D, `width` apart, that will be written. */
static inline void ask_for_rows(T *y, int64_t width, int64_t rows, int64_t D)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < D; c += 64 / (int64_t)sizeof(T)) __builtin_prefetch(y + i * width + c, 1);
}

static inline int64_t most_visible(const view *w, int64_t t0, int64_t rows)
{
    int64_t most = 0;
    for (int64_t t = t0; t < t0 + rows; t++)
        if (w->limit[t] > most) most = w->limit[t];
    return most;
}

/* Parts of a thread's space, each on a cache line of its own. */
static inline void *take(char **space, int64_t count, size_t size)
{
    void *part = *space;
    *space += (count * (int64_t)size + 63) / 64 * 64;
    return part;
}
#define TAKE(type, name, count) type *name = take(&space, count, sizeof(type))

/* Runs task(view, sequence, kv head, this thread's space, context) for all, on all threads. */
typedef void task_fn(const view *w, int64_t s, int64_t g, char *space, void *context);
static inline f2b_status run_tasks(const view *w, int64_t bytes, task_fn *task, void *context)
{
    char *all = f2b_alloc_host((size_t)(bytes * f2b_threads()), F2B_TAG_SCRATCH);
    if (all == NULL) return F2B_ERR_MEMORY;
#pragma omp parallel if (w->n * w->kv_heads > 1)
    {
#pragma omp for schedule(dynamic, 1) nowait
        for (int64_t i = 0; i < w->n * w->kv_heads; i++)
            task(w, i / w->kv_heads, i % w->kv_heads, all + omp_get_thread_num() * bytes, context);
        KERNEL(f2bi_gemm_done)();
    }
    f2b_free(all);
    return F2B_OK;
}

/* How far a product along rows of P or dS (`wide` long, 0 behind the last of n) goes: in bf16 whole units,
 * which packed operands are too. */
static inline int64_t steps_of(int64_t wide, int64_t n)
{
    return F2B_KERNEL_DTYPE == F2B_BF16 ? wide : wide < n ? wide : n;
}

/* Kernels in registers take 14 rows, tiles 32. */
static inline bool in_tiles(void)
{
    return F2B_KERNEL_DTYPE == F2B_BF16 && f2b_cpu_products() == F2B_PRODUCTS_AMX_BF16;
}

#endif
