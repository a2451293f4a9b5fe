/*
 * The sampler: which samples make the batch of a step. A pure function of (options, step): step
 * 5,000 is named without visiting 1 to 4,999, so that a run resumes exactly and ranks agree without
 * a word. It knows numbers only, no files: a pool is a set of members 0..n-1.
 *
 * Streams. Each pool is one endless stream of permutations of its members; no member comes again
 * before all have come; batch b of a kind is the b-th run of `batch` members of its stream, so that
 * all batches are full. Permutations are keyed bijections: nothing is stored, an element costs
 * O(1).
 *
 * Distinct images. In caption and both batches no image comes twice where the data allow it.
 * Members that share an image are spread over rounds, each a set of distinct images; a member that
 * would meet its image across the seam of two rounds is exchanged with a later one of its round.
 * Rounds shorter than two batches cannot be shuffled anew each time without such meetings: there
 * all epochs keep one order, in which the same image is as far apart as can be.
 *
 * Groups (opt-in). The stream of conversation batches is then one of permutations of images, each of
 * which comes with all its members one after another: the records of an image meet in a batch, but for
 * those that the end of a batch divides. A draw walks over the images before it in the epoch. Caption and both batches stay as they are.
 *
 * Kinds. Batches of conversations (with a caption: `both`, without: `conversation`) come in the
 * proportion of their pools, so that both pools end an epoch together; caption batches are added so
 * that (samples under L_disc) / (samples under L_AR) = ratio, where `both` counts on each side. All
 * are spread evenly: the counts after any number of steps are within one batch of each kind of the
 * exact share. Where `both` alone is the ratio or more, no caption batches come: f2b_sampler_share
 * tells.
 *
 * source  DESIGN sections 3 and 8.
 */
#ifndef F2B_DATA_SAMPLER_SAMPLER_H
#define F2B_DATA_SAMPLER_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

#include "autograd/core/status.h"
#include "data/batch.h"

/** The members of one kind of batch. */
typedef struct f2b_pool {
    int64_t n;                  /* 0: this kind does not occur */
    const uint64_t *images;     /* [n] equal where two members show one image; NULL: all differ.
                                   Borrowed during f2b_sampler_new; read for conversations only where
                                   images are grouped */
} f2b_pool;

typedef struct f2b_sampler_options {
    f2b_pool pools[F2B_BATCH_KINDS];
    int64_t conversation_batch; /* samples of a conversation or both batch */
    int64_t contrastive_batch;  /* samples of a caption batch */
    double ratio; /* 0 or more; read where there are both captions and conversations */
    bool group_images;          /* conversation batches: an image's members one after another */
    uint64_t seed;
} f2b_sampler_options;

typedef struct f2b_sampler f2b_sampler;

/** errors  F2B_ERR_CONFIG: a batch size below 1, a ratio that is no number, no members at all;
 *          F2B_ERR_MEMORY. */
f2b_sampler *f2b_sampler_new(const f2b_sampler_options *options);
void f2b_sampler_free(f2b_sampler *sampler);

/** A member of a pool, and in which pass over the pool it came (what picks an image's caption). */
typedef struct f2b_draw {
    int64_t member, epoch;
} f2b_draw;

/** The kind and size of step `step` (0-based), and how many batches of that kind came before. */
typedef struct f2b_plan {
    f2b_batch_kind kind;
    int64_t n, index;
} f2b_plan;
f2b_plan f2b_sampler_plan(const f2b_sampler *sampler, int64_t step);

/** The share of steps that are of a kind, 0 to 1. A pool of which it is 0 is worth a warning. */
double f2b_sampler_share(const f2b_sampler *sampler, f2b_batch_kind kind);

/** The draws of a step in row order: draws [plan.n], the caller's. errors: F2B_ERR_MEMORY. */
f2b_status f2b_sampler_draw(const f2b_sampler *sampler, int64_t step, f2b_draw *draws) F2B_MUST_USE;

/**
 * Who stands in for a member that turned out bad: candidate `attempt` (0, 1, ...), a pure function
 * of (seed, kind, draw, attempt). Take the first that is good, not the member itself and, in
 * caption and both batches, shows none of the step's planned images where the data allow it.
 */
int64_t f2b_sampler_substitute(const f2b_sampler *sampler, f2b_batch_kind kind, f2b_draw draw,
                               int64_t attempt);

/**
 * Steps of `epochs` passes: the fewest after which the conversations (both pools together) have
 * come `epochs` times; without conversations, the captions. At least 1, at most 2^38.
 */
int64_t f2b_sampler_steps(const f2b_sampler *sampler, double epochs);

/** Rank r of n has rows [begin, end) of a batch of `rows`: put together they are the batch. */
void f2b_sampler_slice(int64_t rows, int rank, int ranks, int64_t *begin, int64_t *end);

#endif
