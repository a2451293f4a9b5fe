/*
 * How dropouts are named within a step, so that a mask is a pure function of (seed, step, sample or text,
 * place) and never of packing, micro-batches or threads. A row's key is its position and its sequence;
 * rows with nothing but text up to them have that text in place of the sequence, so that they are the same
 * in all sequences that begin so, and can be computed once (pack.h). A place is a pass, a layer and a
 * group of projections that share their input.
 */
#ifndef F2B_NN_DROPOUT_PLACES_H
#define F2B_NN_DROPOUT_PLACES_H

#include <stdint.h>

#include "autograd/core/rng.h"

/** The groups of a layer; the tower has fc1 and fc2 in the last two. */
typedef enum f2b_dropout_group {
    F2B_DROPOUT_QKV, F2B_DROPOUT_O, F2B_DROPOUT_GATE_UP, F2B_DROPOUT_DOWN,
    F2B_DROPOUT_GROUPS
} f2b_dropout_group;

typedef enum f2b_dropout_pass {
    F2B_DROPOUT_COMPRESS, F2B_DROPOUT_GENERATE, F2B_DROPOUT_EMBED, F2B_DROPOUT_TOWER
} f2b_dropout_pass;

static inline uint32_t f2b_dropout_place(f2b_dropout_pass pass, int64_t layer, f2b_dropout_group group)
{
    return (uint32_t)pass << 28 | (uint32_t)(layer * F2B_DROPOUT_GROUPS + group);
}

/** Sequences of sample i of a step: its image's (and its conversation's), its caption's. */
static inline uint64_t f2b_dropout_image_key(int64_t sample) { return (uint64_t)sample * 2; }
static inline uint64_t f2b_dropout_caption_key(int64_t sample) { return (uint64_t)sample * 2 + 1; }

/** Row `position` of a sequence; positions are below 2^24, sequences below 2^39. */
static inline uint64_t f2b_dropout_row_key(uint64_t sequence, int64_t position)
{
    return sequence << 24 | (uint64_t)position;
}

/** The text up to one more token, from the text before it (0: none). */
static inline uint64_t f2b_dropout_text(uint64_t text, int32_t id) { return f2b_hash_mix(text + (uint32_t)id); }

/** Row `position` with that text up to it and nothing else; no sequence has this key. */
static inline uint64_t f2b_dropout_text_key(uint64_t text, int64_t position)
{
    return (1ull << 39 | text >> 25) << 24 | (uint64_t)position;
}

#endif
