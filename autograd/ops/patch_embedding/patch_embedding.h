#ifndef F2B_AUTOGRAD_OPS_PATCH_EMBEDDING_PATCH_EMBEDDING_H
#define F2B_AUTOGRAD_OPS_PATCH_EMBEDDING_PATCH_EMBEDDING_H

#include "autograd/core/tape.h"

/**
 * A convolution whose stride is its kernel, without bias: each patch of p x p pixels, laid out
 * channel by channel, row by row, times the weight. With G = S / p patches a side,
 *     y[i G^2 + gy G + gx, o] = sum_{c,y,x} images[i, c, gy p + y, gx p + x] * weight[o, c, y, x].
 *
 * images  [n, C, S, S] any float type; borrowed, must not require a gradient.
 * weight  [D, C, p, p] any float type, p divides S; borrowed. Its gradient has its own type.
 * dtype   type of the result (f32, f64, bf16); sums are in f32 or f64.
 * return  [n G^2, D] dtype; borrowed from the tape. NULL on error, or if an input is NULL.
 * errors  F2B_ERR_SHAPE, F2B_ERR_DTYPE; F2B_ERR_UNSUPPORTED if images require a gradient;
 *         F2B_ERR_MEMORY.
 * saves   nothing; backward reads images.
 * source  transformers' CLIPVisionEmbeddings.
 */
f2b_tensor *f2b_patch_embedding(f2b_tape *tape, f2b_tensor *images, f2b_tensor *weight,
                                f2b_dtype dtype);

#endif
