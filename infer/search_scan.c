/*
 * Scanning items. See search_scan.h. The queries are packed once as the right side of a product; a
 * thread fetches a block of items, multiplies, and puts what is good enough on its own heaps.
 *
 * Hits have a strict order (score, then row), so the best k of all are the same whoever saw them;
 * and gemm.h's products do not depend on where a row lies or what is computed beside it.
 */
#include "infer/search_scan.h"

#include <math.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "autograd/device/cpu/gemm.h"
#include "autograd/device/cpu/threads.h"
#include "infer/unit_row.h"

enum {
    BLOCK_VALUES = 128 << 10,           /* of items at a time */
    BLOCK_ROWS = 1024,
    MOST_QUERIES = 256,                 /* a pass over the items */
    MOST_HIT_BYTES = 256 << 20,
};

/* The best hits of one query: a heap with the worst on top. */
typedef struct heap {
    f2b_search_hit *hits;               /* [k] */
    int64_t n;
} heap;

typedef struct worker {
    float *rows;                        /* [block, d] */
    float *scores;                      /* [block, queries] */
    void *scratch;
    heap *heaps;                        /* [queries] */
    f2b_error error;
} worker;

struct f2b_search {
    int64_t queries, d, k, block;
    float *packed;
    f2b_search_hit *hits;               /* of all heaps: those of the search, then the workers' */
    heap *best;                         /* [queries] of the items so far, then the workers' */
    worker *workers;                    /* [threads] */
    int threads;
};

int64_t f2b_search_block(int64_t d)
{
    const int64_t rows = BLOCK_VALUES / d;
    return rows < 1 ? 1 : rows < BLOCK_ROWS ? rows : BLOCK_ROWS;
}

int64_t f2b_search_most_queries(int64_t k)
{
    const int64_t of_one = (f2b_threads() + 1) * k * (int64_t)sizeof(f2b_search_hit);
    const int64_t n = MOST_HIT_BYTES / of_one;
    return n < 1 ? 1 : n < MOST_QUERIES ? n : MOST_QUERIES;
}

/* ---- Heaps ---- */

static bool is_better(f2b_search_hit a, f2b_search_hit b)
{
    return a.score > b.score || (a.score == b.score && a.row < b.row);
}

/* hits[at] may be better than those below it; of n hits. */
static void sift_down(f2b_search_hit *hits, int64_t n, int64_t at)
{
    const f2b_search_hit hit = hits[at];
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && is_better(hits[child], hits[child + 1])) child++;
        if (!is_better(hit, hits[child])) break;
        hits[at] = hits[child];
    }
    hits[at] = hit;
}

static void offer(heap *h, int64_t k, f2b_search_hit hit)
{
    if (h->n == k) {
        if (!is_better(hit, h->hits[0])) return;
        h->hits[0] = hit;
        sift_down(h->hits, k, 0);
        return;
    }
    int64_t at = h->n++;
    for (int64_t up; at > 0 && is_better(h->hits[up = (at - 1) / 2], hit); at = up)
        h->hits[at] = h->hits[up];
    h->hits[at] = hit;
}

/* Best first: the worst goes to the end, again and again. */
static void sort_heap(heap *h)
{
    for (int64_t n = h->n; n > 1; n--) {
        const f2b_search_hit worst = h->hits[0];
        h->hits[0] = h->hits[n - 1];
        sift_down(h->hits, n - 1, 0);
        h->hits[n - 1] = worst;
    }
}

/* ---- Making ---- */

static f2b_status pack_queries(f2b_search *s, const float *queries)
{
    const int64_t Q = s->queries, d = s->d;
    s->packed = f2b_calloc((size_t)f2bi_gemm_packed_elements_f32(d, Q), sizeof *s->packed,
                           F2B_TAG_SCRATCH);
    float *unit = f2b_calloc((size_t)Q, (size_t)d * sizeof *unit, F2B_TAG_SCRATCH);
    f2b_status status = s->packed != NULL && unit != NULL ? F2B_OK : f2b_last_status();
    if (status == F2B_OK) memcpy(unit, queries, (size_t)(Q * d) * sizeof *unit);
    for (int64_t q = 0; status == F2B_OK && q < Q; q++)
        if (!f2b_unit_row(unit + q * d, d))
            status = f2b_fail(F2B_ERR_NUMBERS, "the embedding of query %lld is not finite",
                              (long long)q + 1);
    const f2b_gemm_term term = { .b = unit, .b_type = F2B_F32, .b_row = 1, .b_col = d, .k = d };
    if (status == F2B_OK) f2bi_gemm_pack_f32(s->packed, &term, 0, Q);
    f2b_free(unit);
    return status;
}

static f2b_status allocate(f2b_search *s)
{
    const int64_t heaps = s->queries * (s->threads + 1);
    s->hits = f2b_calloc((size_t)heaps, (size_t)s->k * sizeof *s->hits, F2B_TAG_SCRATCH);
    s->best = f2b_calloc((size_t)heaps, sizeof *s->best, F2B_TAG_SCRATCH);
    s->workers = f2b_calloc((size_t)s->threads, sizeof *s->workers, F2B_TAG_SCRATCH);
    if (s->hits == NULL || s->best == NULL || s->workers == NULL) return f2b_last_status();
    for (int64_t i = 0; i < heaps; i++) s->best[i].hits = s->hits + i * s->k;
    for (int t = 0; t < s->threads; t++) {
        worker *w = &s->workers[t];
        w->heaps = s->best + (t + 1) * s->queries;
        w->rows = f2b_calloc((size_t)s->block, (size_t)s->d * sizeof(float), F2B_TAG_SCRATCH);
        w->scores =
            f2b_calloc((size_t)s->block, (size_t)s->queries * sizeof(float), F2B_TAG_SCRATCH);
        if (w->rows == NULL || w->scores == NULL) return f2b_last_status();
    }
    return F2B_OK;
}

f2b_search *f2b_search_new(const float *queries, int64_t n, int64_t d, int64_t k)
{
    f2b_search *s = f2b_calloc(1, sizeof *s, F2B_TAG_SCRATCH);
    if (s == NULL) return NULL;
    *s = (f2b_search){ .queries = n, .d = d, .k = k, .block = f2b_search_block(d),
                       .threads = f2b_threads() };
    if (pack_queries(s, queries) == F2B_OK && allocate(s) == F2B_OK) return s;
    f2b_search_free(s);
    return NULL;
}

void f2b_search_free(f2b_search *s)
{
    if (s == NULL) return;
    for (int t = 0; s->workers != NULL && t < s->threads; t++) {
        f2b_free(s->workers[t].rows);
        f2b_free(s->workers[t].scores);
    }
    f2b_free(s->workers);
    f2b_free(s->best);
    f2b_free(s->hits);
    f2b_free(s->packed);
    f2b_free(s);
}

/* ---- Scanning ---- */

/* Rows kept as f16 have a length of 1 only to 2e-4, which is more than lies between images that look
 * alike: without this one of them could come before the image that was asked for. */
static float scale_to_unit(const float *row, int64_t d)
{
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t j = 0; j < d; j++) squares += row[j] * row[j];
    return squares > 0 ? 1 / sqrtf(squares) : 0;
}

static f2b_status scan_block(const f2b_search *s, worker *w, const f2b_search_items *items,
                             int64_t row)
{
    const int64_t Q = s->queries, n = items->n - row < s->block ? items->n - row : s->block;
    F2B_TRY(items->fetch(items->context, row, n, w->scratch, w->rows));
    f2bi_gemm_block_f32(n, Q, s->d, 1, w->rows, s->d, s->packed, s->d, 0, w->scores, Q);
    for (int64_t i = 0; i < n; i++) {
        const float scale = scale_to_unit(w->rows + i * s->d, s->d);
        for (int64_t q = 0; q < Q; q++) {
            const f2b_search_hit hit = { items->first + row + i, w->scores[i * Q + q] * scale };
            heap *h = &w->heaps[q];
            /* Most end here: worse than k others, of this thread or of earlier items. */
            if (h->n == s->k && hit.score < h->hits[0].score) continue;
            if (s->best[q].n == s->k && !is_better(hit, s->best[q].hits[0])) continue;
            if (!isfinite(hit.score))
                return f2b_fail(F2B_ERR_NUMBERS, "the embedding of row %lld is not finite",
                                (long long)hit.row);
            offer(h, s->k, hit);
        }
    }
    return F2B_OK;
}

static void scan_all(f2b_search *s, const f2b_search_items *items)
{
    const int64_t blocks = (items->n + s->block - 1) / s->block;
    bool failed = false;
#pragma omp parallel num_threads(s->threads)
    {
        worker *w = &s->workers[omp_get_thread_num()];
#pragma omp for schedule(dynamic, 1)
        for (int64_t b = 0; b < blocks; b++) {
            bool skip;
#pragma omp atomic read
            skip = failed;
            if (skip || scan_block(s, w, items, b * s->block) == F2B_OK) continue;
            f2b_error_take(&w->error);
#pragma omp atomic write
            failed = true;
        }
    }
}

static f2b_status make_scratch(f2b_search *s, int64_t bytes)
{
    for (int t = 0; t < s->threads; t++) {
        worker *w = &s->workers[t];
        w->error.code = F2B_OK;
        for (int64_t q = 0; q < s->queries; q++) w->heaps[q].n = 0;
        w->scratch = f2b_alloc_host((size_t)bytes, F2B_TAG_SCRATCH);
        if (w->scratch == NULL) return f2b_last_status();
    }
    return F2B_OK;
}

f2b_status f2b_search_scan(f2b_search *s, const f2b_search_items *items)
{
    f2b_status status = make_scratch(s, items->scratch_bytes);
    if (status == F2B_OK) scan_all(s, items);
    for (int t = 0; t < s->threads; t++) {
        worker *w = &s->workers[t];
        f2b_free(w->scratch);
        w->scratch = NULL;
        if (status == F2B_OK && w->error.code != F2B_OK)
            status = f2b_fail(w->error.code, "%s", w->error.text);
    }
    for (int t = 0; status == F2B_OK && t < s->threads; t++)
        for (int64_t q = 0; q < s->queries; q++)
            for (int64_t i = 0; i < s->workers[t].heaps[q].n; i++)
                offer(&s->best[q], s->k, s->workers[t].heaps[q].hits[i]);
    return status;
}

void f2b_search_finish(f2b_search *s, f2b_search_hit *hits)
{
    for (int64_t q = 0; q < s->queries; q++) {
        F2B_CHECK(s->best[q].n == s->k);
        sort_heap(&s->best[q]);
        memcpy(hits + q * s->k, s->best[q].hits, (size_t)s->k * sizeof *hits);
    }
}
