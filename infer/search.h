/*
 * Search: which images of a compressed store, or which texts, are most like a query. Exact: every
 * item is compared, by the cosine of embeddings, in a fixed amount of memory whatever their number.
 *
 * The embedding of a stored image is the mean of its K tokens scaled to length 1 and kept as f16,
 * in a file of means beside the shard (infer/search_means.h). Reading 2d bytes an image is all that
 * a search costs. A cosine is divided by the length that is left after that rounding (1 to 5e-4), so
 * an image finds itself before others that look alike.
 *
 * Of equal cosines the lower row comes first; threads, shards, and what else is asked at the same
 * time do not change a bit of the result.
 */
#ifndef F2B_INFER_SEARCH_H
#define F2B_INFER_SEARCH_H

#include "checkpoints/store.h"
#include "infer/compress.h"

/** A found item: its row (of the store, or of the items) and its cosine with the query. */
typedef struct f2b_search_hit {
    int64_t row;
    float score;
} f2b_search_hit;

/** Any function may be NULL. */
typedef struct f2b_search_hooks {
    void (*progress)(void *user, const char *what, int64_t done, int64_t total);
    void (*note)(void *user, const char *text);         /* what a person should know */
    bool (*stop)(void *user);                           /* true: end with F2B_ERR_STOPPED */
    void *user;
} f2b_search_hooks;

/**
 * The k images of the store nearest to each query, best first.
 * queries  [n, d] f32 leaf, of any length.
 * k        1 <= k <= images of the store.
 * hits     [n, k], the caller's.
 * errors   F2B_ERR_DATA: an empty store; F2B_ERR_INVALID: k; F2B_ERR_SHAPE: queries of another
 *          width; F2B_ERR_CONFIG: a store of method.forward single, whose embeddings are not means
 *          of tokens; F2B_ERR_FORMAT: a damaged shard; F2B_ERR_NUMBERS: a query or stored tokens
 *          that are not finite; F2B_ERR_STOPPED; F2B_ERR_IO; F2B_ERR_MEMORY.
 */
f2b_status f2b_search_store(const f2b_store *store, const f2b_tensor *queries, int64_t k,
                            const f2b_search_hooks *hooks, f2b_search_hit *hits) F2B_MUST_USE;

/** The same among the rows of items, an [m, d] f32 leaf. */
f2b_status f2b_search_rows(const f2b_tensor *items, const f2b_tensor *queries, int64_t k,
                           f2b_search_hit *hits) F2B_MUST_USE;

/** The embedding of a stored image as a query: [1, d] f32, a leaf. NULL on error. */
f2b_tensor *f2b_search_embed_stored(const f2b_store *store, int64_t row);

/** The embedding of a picture: [1, d], a leaf. NULL on error (compress.h). */
f2b_tensor *f2b_search_embed_image(const f2b_infer *in, const f2b_image *image);

/**
 * The embeddings of n texts, `batch` a forward pass: [n, d], a leaf. max_ids: as
 * f2b_compress_captions. NULL on error; F2B_ERR_DATA for an empty text.
 */
f2b_tensor *f2b_search_embed_texts(const f2b_infer *in, const char *const *texts, int64_t n,
                                   int64_t max_ids, int64_t batch, const f2b_search_hooks *hooks);

#endif
