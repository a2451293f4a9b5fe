#ifndef F2B_AUTOGRAD_OPS_VISION_EMBED_VISION_EMBED_H
#define F2B_AUTOGRAD_OPS_VISION_EMBED_VISION_EMBED_H

#include "autograd/core/tape.h"

/**
 * A vision transformer's input: for each image the class embedding, then its G patches, plus
 * positions:  y[i (1 + G)] = class + positions[0],  y[i (1 + G) + 1 + g] = patches[i G + g] +
 * positions[1 + g].
 *
 * patches    [n G, D] (f32, f64, bf16), from f2b_patch_embedding; borrowed.
 * class_embedding  [D] any float type; borrowed.
 * positions  [1 + G, D] any float type; borrowed. G comes from here.
 * return     [n (1 + G), D], type of patches; borrowed from the tape. NULL on error, or if an input
 *            is NULL.
 * errors     F2B_ERR_SHAPE, also if G does not divide the number of patches; F2B_ERR_DTYPE.
 * saves      nothing. Gradients of class and positions have their own types.
 * source     transformers' CLIPVisionEmbeddings.
 */
f2b_tensor *f2b_vision_embed(f2b_tape *tape, f2b_tensor *patches, f2b_tensor *class_embedding,
                             f2b_tensor *positions);

#endif
