/*
 * A batch: what the data room hands to training for one optimiser step. Host memory only; it knows
 * nothing of models. Every sample is complete by itself; packing into rows is the model's business.
 */
#ifndef F2B_DATA_BATCH_H
#define F2B_DATA_BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "data/content_hash.h"

/** Marks in token ids and labels (LLaVA's own numbers). */
enum { F2B_IMAGE_ID = -200, F2B_NO_LABEL = -100 };

/** Kinds of batch; a batch has one kind (DESIGN section 3). */
typedef enum f2b_batch_kind {
    F2B_BATCH_CONVERSATION,     /* L_AR alone */
    F2B_BATCH_CAPTION,          /* L_disc alone */
    F2B_BATCH_BOTH,             /* conversations that have a caption: both losses */
    F2B_BATCH_KINDS
} f2b_batch_kind;

/** Token ids, owned by the sample. F2B_IMAGE_ID stands where the image's rows go. */
typedef struct f2b_sequence {
    int64_t n;
    int32_t *ids;               /* [n] */
    int32_t *labels;            /* [n], labels[i] is ids[i] or F2B_NO_LABEL (unshifted, as LLaVA's); NULL if none */
} f2b_sequence;

typedef struct f2b_sample {
    char *id;                   /* "conversations[0]:123", "captions[1]:456", joined with '+' for both */
    bool has_image;             /* false: text-only */
    uint8_t image_hash[F2B_CONTENT_HASH_BYTES];     /* of the image's file, where it has one */
    uint8_t *pixels;            /* [S,S,3] RGB after pad/crop and resize; NULL without image, and where
                                   the pixels are not needed (f2b_dataset_set_known) */
    f2b_sequence conversation;  /* pass 2 (and the only pass of `base`); n = 0 in caption batches */
    f2b_sequence image_prompt;  /* pass 1, image side, up to where the summary rows follow; n = 0 if no image */
    f2b_sequence caption_prompt;/* pass 1, caption side, likewise; n = 0 in conversation batches */
} f2b_sample;

typedef struct f2b_batch {
    f2b_batch_kind kind;
    int64_t step;               /* 0-based number of the optimiser step it belongs to */
    int64_t n;
    f2b_sample *samples;        /* [n], in row order */
    int image_size;             /* S; pixels of every sample are [S,S,3] */
} f2b_batch;

/** Free a batch and all it owns; NULL is allowed. */
void f2b_batch_free(f2b_batch *batch);

#endif
