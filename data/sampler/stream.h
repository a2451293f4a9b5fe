/* One pool as an endless stream of permutations. Private: sampler.h says what holds. */
#ifndef F2B_DATA_SAMPLER_STREAM_H
#define F2B_DATA_SAMPLER_STREAM_H

#include <stdbool.h>

#include "data/sampler/sampler.h"

enum { F2BI_FEISTEL_ROUNDS = 8 };

/* A keyed bijection of 0..n-1. */
typedef struct f2bi_permutation {
    uint64_t n, key[F2BI_FEISTEL_ROUNDS];
    int half_bits;
} f2bi_permutation;

/* The permutation of round `round` of pass `epoch` of stream `stream`. n > 0. */
f2bi_permutation f2bi_permutation_new(int64_t n, uint64_t seed, int stream, int64_t epoch,
                                      int64_t round);
int64_t f2bi_permutation_at(const f2bi_permutation *p, int64_t i);

/* How members that show one image come: never in one batch, as it happens, one after another. */
typedef enum f2bi_meeting { F2BI_APART, F2BI_BY_CHANCE, F2BI_TOGETHER } f2bi_meeting;

/*
 * A pass (epoch) over the pool is `rounds` rounds, one after the other; round r is a permutation of
 * the members order[start[r] .. start[r+1]-1], which show distinct images.
 *
 * Of a grouped stream the `rounds` are its images: a pass is a permutation of them, each with its
 * members order[start[r] .. start[r+1]-1] in turn.
 */
typedef struct f2bi_stream {
    int64_t n, batch, rounds;
    int64_t *start;             /* [rounds+1] */
    int64_t *order;             /* [n] members by round; NULL: member i is at i */
    uint64_t *images;           /* [n] by member; NULL: all differ */
    uint64_t seed;
    int number;                 /* which stream: part of the random key */
    bool distinct;              /* keep an image from coming twice in a batch */
    bool grouped;               /* an image's members come one after another */
    bool fixed;                 /* rounds too short to be shuffled anew: one order for all epochs */
} f2bi_stream;

f2b_status f2bi_stream_init(f2bi_stream *s, const f2b_pool *pool, int64_t batch, uint64_t seed,
                            int number, f2bi_meeting meeting) F2B_MUST_USE;
void f2bi_stream_clear(f2bi_stream *s);

/* The same for a grouped stream; the pool may be without images, then each member is a group. */
f2b_status f2bi_grouped_init(f2bi_stream *s, const f2b_pool *pool) F2B_MUST_USE;
f2b_status f2bi_grouped_draw(const f2bi_stream *s, int64_t index, f2b_draw *draws) F2B_MUST_USE;

/* Batch `index` of the stream: draws [batch]. */
f2b_status f2bi_stream_draw(const f2bi_stream *s, int64_t index, f2b_draw *draws) F2B_MUST_USE;

#endif
