/*
 * The passes of the method over packed sequences (DESIGN section 3): images to rows, pass 1 to
 * compressed tokens, pass 2 to the summed loss. Each runs on the tape it is given; without recording
 * they serve inference.
 */
#ifndef F2B_NN_PASSES_H
#define F2B_NN_PASSES_H

#include "nn/model.h"
#include "nn/pack.h"

/** How passes run in one step. */
typedef struct f2b_pass_settings {
    int64_t checkpoint;                 /* the first so many layers of the language model, and of a
                                         * trained tower, are computed again in backward */
    f2b_layer_watch watch;
    f2b_pass_dropout dropout;           /* p 0 outside training */
} f2b_pass_settings;

/** What a pass leaves behind that backward still reads: the caller keeps it until then. */
typedef struct f2b_pass_frame {
    f2b_pack pack;
    f2b_pass pass;
    f2b_clip_pass tower;
} f2b_pass_frame;

/**
 * Images to rows of the language model's input: tower, projector. Off the tape unless something in
 * it is trained.
 * pixels  [n, 3, S, S] host f32, normalised; read before the call returns.
 * keys    [n] names of the images in the step (dropout of `single`), or NULL.
 * return  [n * rows, d]; rows is f2b_image_tokens, or K under `single`.
 */
f2b_tensor *f2b_pass_images(f2b_tape *tape, const f2b_model *model, const float *pixels, int64_t n,
                            const uint64_t *keys, const f2b_pass_settings *settings,
                            f2b_pass_frame *frame);

/**
 * The two halves of f2b_pass_images: the tower's rows [n * rows, vision width] in the compute type,
 * and what the projector makes of them (they are released). Between the two they may be kept: where
 * the tower is not trained, an image's rows depend on nothing but the image.
 */
f2b_tensor *f2b_pass_features(f2b_tape *tape, const f2b_model *model, const float *pixels, int64_t n,
                              const uint64_t *keys, const f2b_pass_settings *settings,
                              f2b_pass_frame *frame);
f2b_tensor *f2b_pass_project(f2b_tape *tape, const f2b_model *model, f2b_tensor *features);

/**
 * Pass 1 with the compression adapter: each item's K summary outputs (final_norm or pre_norm).
 * images  rows of f2b_pass_images that F2B_ROW_IMAGE points to, or NULL where no item has any.
 * return  [n * K, d], the compressed tokens of each sequence in order.
 */
f2b_tensor *f2b_pass_compress(f2b_tape *tape, const f2b_model *model, const f2b_pack_item *items,
                              int64_t n, f2b_tensor *images, const f2b_pass_settings *settings,
                              f2b_pass_frame *frame);

/**
 * What the contrastive loss compares, [n, d] in f32 (f64): the mean over K of compressed tokens; under
 * `single` the last position's output of each sequence.
 * compressed  of f2b_pass_compress; items and images are read under `single` alone.
 */
f2b_tensor *f2b_pass_embeddings(f2b_tape *tape, const f2b_model *model, f2b_tensor *compressed,
                                const f2b_pack_item *items, int64_t n, f2b_tensor *images,
                                const f2b_pass_settings *settings, f2b_pass_frame *frame);

/**
 * Pass 2 with the generation adapter: the summed cross-entropy over labelled tokens, a scalar.
 * images  what stands at F2B_ROW_IMAGE: compressed tokens (all image rows in base), or NULL.
 */
f2b_tensor *f2b_pass_generate(f2b_tape *tape, const f2b_model *model, const f2b_pack_item *items,
                              int64_t n, f2b_tensor *images, const f2b_pass_settings *settings,
                              f2b_pass_frame *frame);

/** The hidden rows behind that loss for every row of every sequence, after the final norm. */
f2b_tensor *f2b_pass_hidden(f2b_tape *tape, const f2b_model *model, const f2b_pack_item *items,
                            int64_t n, f2b_tensor *images, const f2b_pass_settings *settings,
                            f2b_pass_frame *frame);

/** Layout of sequences in each pass, for planning by rows. */
f2b_pack_options f2b_pass_compress_options(const f2b_model *model);
f2b_pack_options f2b_pass_generate_options(const f2b_model *model);

/** The input rows of a pack: token embeddings, image rows, summary tokens. */
f2b_tensor *f2b_pass_input(f2b_tape *tape, const f2b_model *model, const f2b_pack *pack,
                           f2b_tensor *images);

#endif
