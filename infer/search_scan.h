/*
 * The scan behind search.h: items go by in blocks, each thread keeps the best it has seen.
 */
#ifndef F2B_INFER_SEARCH_SCAN_H
#define F2B_INFER_SEARCH_SCAN_H

#include "infer/search.h"

/** Rows of a block, at most: chosen so that a block in f32 stays in the second-level cache. */
int64_t f2b_search_block(int64_t d);

/** Items of width d, given block by block: block b is rows [b * block, (b + 1) * block). */
typedef struct f2b_search_items {
    int64_t n;
    int64_t first;              /* what row 0 is called in the hits */
    int64_t scratch_bytes;      /* of a thread, for fetch */
    /* Rows [row, row + n), about of length 1, as f32 into `out`; called from many threads. */
    f2b_status (*fetch)(const void *context, int64_t row, int64_t n, void *scratch, float *out);
    const void *context;
} f2b_search_items;

typedef struct f2b_search f2b_search;

/** A search for the k best of any number of items. queries: [n, d] f32, copied and scaled to
 *  length 1. NULL on error: F2B_ERR_NUMBERS names the query that is not finite. */
f2b_search *f2b_search_new(const float *queries, int64_t n, int64_t d, int64_t k);
void f2b_search_free(f2b_search *search);

/** Let the items go by. On an error none of them counts: they can be given again. */
f2b_status f2b_search_scan(f2b_search *search, const f2b_search_items *items) F2B_MUST_USE;

/** The best of all that went by, best first: hits [n, k]. At least k items went by. */
void f2b_search_finish(f2b_search *search, f2b_search_hit *hits);

/** How many queries one search may have so that its memory stays small; at least 1. */
int64_t f2b_search_most_queries(int64_t k);

#endif
