/*
 * Packing: sequences lie end to end in one [rows, d] tensor, each attending to itself alone, its
 * positions from 0. Nothing is padded. A pack says what stands in each row and who sees whom.
 *
 * Sequences of LLaVA all begin with the system's words. Under causal attention such rows are the same in
 * every sequence, whatever follows, and so are their keys and values in every layer: the first sequence
 * computes them for all (`share_prefix`), and the sum of what the sequences make of them is their
 * gradient.
 */
#ifndef F2B_NN_PACK_H
#define F2B_NN_PACK_H

#include "autograd/core/tape.h"
#include "autograd/ops/attention/attention.h"

/** In ids: where an image's rows go (the data room's F2B_IMAGE_ID). */
enum { F2B_ROW_IMAGE = -200, F2B_ROW_NO_LABEL = -100 };

/** One sequence of a pass, borrowed. */
typedef struct f2b_pack_item {
    const int32_t *ids;         /* [n] token ids; F2B_ROW_IMAGE at most once */
    const int32_t *labels;      /* [n] as ids or F2B_ROW_NO_LABEL; NULL: none */
    int64_t n;
    int64_t image;              /* which image of the pass stands at F2B_ROW_IMAGE */
    bool summary;               /* the K summary rows follow the ids */
    uint64_t key;               /* names the sequence within the step, for dropout: below 2^39 */
} f2b_pack_item;

/** Where a sequence goes on in a cache of keys and values (nn/llama.h). */
typedef struct f2b_pack_slot {
    int64_t first;              /* row of the cache at which the sequence starts */
    int64_t held;               /* its earlier rows, which are there already */
} f2b_pack_slot;

/** Rows that are computed together: all rows of a pack, or some of them (in ascending order). */
typedef struct f2b_row_set {
    int64_t rows;
    f2b_tensor *index;          /* [rows] i32, rows of the pack; NULL: all */
    f2b_tensor *positions;      /* [rows] i32 */
    f2b_attention_layout layout;
    const uint64_t *row_keys;   /* [rows] of dropout, on the tape's device */
} f2b_row_set;

/** Sources of input rows: the embedding table, image rows, summary tokens. */
typedef enum f2b_pack_source {
    F2B_FROM_TOKENS, F2B_FROM_IMAGES, F2B_FROM_SUMMARY, F2B_PACK_SOURCES
} f2b_pack_source;

typedef struct f2b_pack {
    int64_t n, rows;            /* sequences; rows that are computed */
    int64_t sequence_rows;      /* rows of all sequences: more, where they share some */
    int64_t image_rows;         /* rows an image takes in this pass */
    f2b_row_set all;
    f2b_row_set wanted;         /* the rows whose output is used: summary rows, or labelled ones */
    f2b_tensor *labels;         /* [wanted.rows] i32 next tokens, where sequences have labels */
    f2b_tensor *from;           /* [rows, 2] i32: f2b_pack_source, and which row of that source */
    f2b_tensor *stored;         /* [rows] i32, with slots: the row of the cache for each row */
    f2b_tensor *grad_rows;      /* [n] i32: the rows whose gradient is wanted, where they are few; or NULL */
    bool uses[F2B_PACK_SOURCES];/* a source that no row comes from gets no gradient either */
} f2b_pack;

typedef struct f2b_pack_options {
    int64_t image_rows;         /* rows of one image in the image source of this pass */
    int64_t summary_rows;       /* K */
    bool bidirectional;         /* all rows of a sequence see each other */
    bool all_rows;              /* every row's output is wanted (hidden states, logits) */
    bool last_row;              /* only the last row of each sequence (retrieval of `single`) */
    bool share_prefix;          /* rows that all sequences begin with are computed once, where that is
                                 * much of the pack. Not with slots, all_rows or bidirectional */
    unsigned grad_sources;      /* bit s: source s wants its gradient. 0: none does, or nobody
                                   has said */
    const f2b_pack_slot *slots; /* [n]: positions go on behind what a slot holds, and its rows are
                                   keys too. NULL: each sequence starts anew, alone */
} f2b_pack_options;

/**
 * Lay out n sequences. All tensors are the tape's, on its device, and kept until it is reset.
 * Wanted rows: all_rows; else the last row; else the summary rows where sequences have them; else the
 * rows before each labelled id.
 * errors  F2B_ERR_DATA: a sequence is empty, has two images, or a label at its first row.
 */
f2b_status f2b_pack_build(f2b_tape *tape, const f2b_pack_item *items, int64_t n,
                          const f2b_pack_options *options, f2b_pack *pack) F2B_MUST_USE;

/** Rows of a sequence, shared or not, and how many labels it has: for planning micro-batches. */
int64_t f2b_pack_item_rows(const f2b_pack_item *item, const f2b_pack_options *options);
int64_t f2b_pack_item_labels(const f2b_pack_item *item);

/** The dropout keys of a sequence's rows (nn/dropout_places.h): keys [f2b_pack_item_rows]. */
void f2b_pack_item_keys(const f2b_pack_item *item, const f2b_pack_options *options, uint64_t *keys);

#endif
