/* What the files of the step share. A chunk is a micro-batch: consecutive samples that go through one tape. */
#ifndef F2B_NN_STEP_INTERNAL_H
#define F2B_NN_STEP_INTERNAL_H

#include "nn/step.h"

typedef struct f2bi_stepper {
    f2b_model *model;
    const f2b_step_input *in;
    f2b_step_result *result;
    f2b_tape *tape;
    bool train, rehearse;
    f2b_step_progress at;
    int64_t *first;             /* [chunks + 1] sample numbers */
    int64_t *owner;             /* [n] the first sample of the batch with which pass 1 is shared */
    int64_t chunks;
    f2b_tensor *ev, *et;        /* GradCache: embeddings of the whole batch [n, d], with gradients */
} f2bi_stepper;

/* One chunk on the tape; the frames stay until its backward has run. */
typedef struct f2bi_chunk {
    int64_t first, n, images;   /* samples; images that go through the tower */
    int64_t *shown;             /* [images] the sample that each is taken from */
    int64_t *image;             /* [n] number of the image of a sample that has one */
    f2b_pass_frame tower, compress, embed, generate;
    f2b_pack_item *prompts;     /* pass 1: image prompts, then captions */
    f2b_pack_item *answers;     /* pass 2 */
    int64_t n_prompts, n_answers;
    uint64_t *image_keys;
    f2b_tensor *embeddings;     /* [n_prompts, d], or NULL */
    f2b_tensor *loss_ar;        /* sum over labels, or NULL */
    int64_t computed;           /* rows of the passes so far */
} f2bi_chunk;

static inline f2b_pack_item f2bi_step_item(f2b_tokens t, int64_t image, bool summary, uint64_t key)
{
    return (f2b_pack_item){ t.ids, t.labels, t.n, image, summary, key };
}

/* ---- step_plan.c ---- */

/** Checks the batch and counts its labels; then which samples share a pass 1 (owner), and where chunks begin (first,
 *  chunks). The tables are the stepper's, to be freed. */
f2b_status f2bi_step_plan(f2bi_stepper *s);

/* ---- step_chunk.c ---- */

/** Forward of samples [c->first, c->first + c->n): embeddings where the contrastive loss applies, the summed loss of
 *  pass 2 where `answers` asks for it. */
f2b_status f2bi_step_chunk(f2bi_stepper *s, f2bi_chunk *c, bool answers);

/** Frees what a chunk holds, after its tape is reset. */
void f2bi_step_chunk_free(f2bi_chunk *c);

/* ---- step_features.c ---- */

/**
 * Rows of n images as f2b_pass_images gives them, with the tower's rows loaded where they are at hand,
 * made and stored where not (f2b_step_input). samples [n]: where each image is taken from. rehearse: as
 * in f2b_step_rehearse.
 */
f2b_tensor *f2bi_step_features(f2b_tape *tape, const f2b_model *model, const f2b_step_input *in,
                               const int64_t *samples, int64_t n, bool rehearse,
                               f2b_pass_frame *frame);

#endif
