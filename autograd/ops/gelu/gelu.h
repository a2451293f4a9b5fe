#ifndef F2B_AUTOGRAD_OPS_GELU_GELU_H
#define F2B_AUTOGRAD_OPS_GELU_GELU_H

#include "autograd/core/tape.h"

/**
 * Exact GELU: y = x * (1 + erf(x / sqrt 2)) / 2.
 *
 * x       any shape (f32, f64, bf16; computes in f32 or f64); borrowed.
 * return  shape and type of x; borrowed from the tape. NULL on error, or if x is NULL.
 * saves   nothing; backward reads x.
 * source  torch.nn.functional.gelu, approximate='none': LLaVA's projector.
 */
f2b_tensor *f2b_gelu(f2b_tape *tape, f2b_tensor *x);

#endif
