#ifndef F2B_AUTOGRAD_OPS_QUICK_GELU_QUICK_GELU_H
#define F2B_AUTOGRAD_OPS_QUICK_GELU_QUICK_GELU_H

#include "autograd/core/tape.h"

/**
 * y = x * sigmoid(1.702 x).
 *
 * x       any shape (f32, f64, bf16; computes in f32 or f64); borrowed.
 * return  shape and type of x; borrowed from the tape. NULL on error, or if x is NULL.
 * saves   nothing; backward reads x.
 * source  transformers' QuickGELUActivation: CLIP's MLP.
 */
f2b_tensor *f2b_quick_gelu(f2b_tape *tape, f2b_tensor *x);

#endif
