#ifndef F2B_AUTOGRAD_OPS_LAYER_NORM_LAYER_NORM_H
#define F2B_AUTOGRAD_OPS_LAYER_NORM_LAYER_NORM_H

#include "autograd/core/tape.h"

/**
 * Layer normalisation over the last dimension: y = (x - mean) * rstd * w + b, where
 * rstd[r] = 1 / sqrt(mean_c((x[r,c] - mean[r])^2) + eps).
 *
 * x       [..., D] (f32, f64, bf16); borrowed.
 * w, b    [D] any float type; borrowed. Their gradients have their own type.
 * eps     > 0, inside the root.
 * return  shape and type of x; borrowed from the tape. NULL on error, or if an input is NULL.
 * errors  F2B_ERR_INVALID eps; F2B_ERR_SHAPE w or b is not [D]; F2B_ERR_DTYPE.
 * saves   mean and rstd, two values a row; backward reads x and w.
 * source  Ba et al. 2016, arXiv:1607.06450; torch.nn.LayerNorm.
 */
f2b_tensor *f2b_layer_norm(f2b_tape *tape, f2b_tensor *x, f2b_tensor *w, f2b_tensor *b, double eps);

#endif
