/*
 * Images to compressed tokens, images and captions to embeddings: pass 1 without recording.
 */
#ifndef F2B_INFER_COMPRESS_H
#define F2B_INFER_COMPRESS_H

#include "data/image/image.h"
#include "data/image/image_settings.h"
#include "data/source/source.h"
#include "data/tokenizer/tokenizer.h"
#include "nn/model.h"

/** What use of a model takes, borrowed: of an opened model, or of a training run in progress. */
typedef struct f2b_infer {
    const f2b_model *model;
    const f2b_tokenizer *tokenizer;
    const f2b_image_settings *image;
} f2b_infer;

/** Result of a batch: leaves, owned by the caller. */
typedef struct f2b_compressed {
    f2b_tensor *tokens;         /* [n * K, d] compute type: what stands at <image> in pass 2 */
    f2b_tensor *embeddings;     /* [n, d] f32 (f64): what the contrastive loss compares */
} f2b_compressed;
void f2b_compressed_clear(f2b_compressed *result);

/** Prepare a decoded picture: [S, S, 3] RGB8, padded or cropped as the method says. */
f2b_status f2b_infer_prepare(const f2b_infer *in, const f2b_image *image,
                             uint8_t *pixels) F2B_MUST_USE;

/**
 * Compress n images in one pass. pixels: [n] pointers to [S, S, 3] of f2b_infer_prepare.
 * embeddings  false leaves result->embeddings NULL.
 * errors      F2B_ERR_CONFIG: a base model, which has no compression; F2B_ERR_MEMORY.
 */
f2b_status f2b_compress_images(const f2b_infer *in, const uint8_t *const *pixels, int64_t n,
                               bool embeddings, f2b_compressed *result) F2B_MUST_USE;

/**
 * Embeddings of n captions in one pass; under forward double the tokens too (else NULL).
 * max_ids  data.max_caption_length.
 * errors   as above; F2B_ERR_DATA: an empty caption, by its number.
 */
f2b_status f2b_compress_captions(const f2b_infer *in, const char *const *captions, int64_t n,
                                 int64_t max_ids, f2b_compressed *result) F2B_MUST_USE;

/** All visual tokens of n images, [n * f2b_image_tokens, d], by the model as it is seen (a base
 *  view, trained_model.h). A leaf, the caller's; NULL on error. */
f2b_tensor *f2b_infer_image_rows(const f2b_model *view, const f2b_image_settings *image,
                                 const uint8_t *const *pixels, int64_t n);

#endif
