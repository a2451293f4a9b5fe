#ifndef F2B_AUTOGRAD_OPS_HEAD_CROSS_ENTROPY_H
#define F2B_AUTOGRAD_OPS_HEAD_CROSS_ENTROPY_H

#include "autograd/core/tape.h"

/**
 * Output head and cross-entropy in one: loss = sum_r ( logsumexp_v(z[r,v]) - z[r,label[r]] ),
 * z = x W^T over all V rows of W (padding rows too). Works in chunks of rows, so that the logits of
 * a batch never exist; the gradient of x is made in forward while a chunk's logits are at hand.
 *
 * x        [R, d]  rows that have a label; compute type; borrowed.
 * weight   [V, d]  any float type; trained in the type of arithmetic.
 * labels   [R]     i32, 0 <= label < V; borrowed until backward.
 * return   []      the sum, not the mean, in the type of arithmetic (f32; f64 for f64 rows), so that
 *          a step of several micro-batches divides once by all its labels. R = 0 gives 0.
 *          Borrowed from the tape. NULL on error or if x is NULL.
 * errors   F2B_ERR_SHAPE; F2B_ERR_DATA for a label outside the vocabulary, naming row and label.
 * saves    dz W [R, d] if x wants a gradient; logits are computed again for a trained weight.
 */
f2b_tensor *f2b_head_cross_entropy(f2b_tape *tape, f2b_tensor *x, f2b_tensor *weight,
                                   f2b_tensor *labels);

#endif
