#ifndef F2B_AUTOGRAD_OPS_RMS_NORM_RMS_NORM_H
#define F2B_AUTOGRAD_OPS_RMS_NORM_RMS_NORM_H

#include "autograd/core/tape.h"

/**
 * RMS normalisation over the last dimension: y = w * round(x * rstd), where
 * rstd[r] = 1 / sqrt(mean_c(x[r,c]^2) + eps) and round() is to the type of x, as in Hugging Face's
 * LlamaRMSNorm.
 *
 * x       [..., D] (f32, f64, bf16); borrowed.
 * w       [D] any float type; borrowed. Its gradient has its own type.
 * eps     > 0, inside the root.
 * return  shape and type of x; borrowed from the tape. NULL on error, or if x or w is NULL.
 * errors  F2B_ERR_INVALID eps; F2B_ERR_SHAPE w is not [D]; F2B_ERR_DTYPE.
 * saves   rstd, one value a row; backward reads x and w, and works on the rows of x's gradient that are
 *         wanted alone (tape.h); with w frozen, of y's gradient no others are read.
 * source  Zhang & Sennrich 2019, arXiv:1910.07467; transformers models/llama.
 */
f2b_tensor *f2b_rms_norm(f2b_tape *tape, f2b_tensor *x, f2b_tensor *w, double eps);

#endif
