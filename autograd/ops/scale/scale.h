#ifndef F2B_AUTOGRAD_OPS_SCALE_SCALE_H
#define F2B_AUTOGRAD_OPS_SCALE_SCALE_H

#include "autograd/core/tape.h"

/**
 * Product with a constant: y = c * x.
 *
 * x       any shape (f32, f64, bf16); borrowed.
 * return  shape and type of x; borrowed from the tape. NULL on error, or if x is NULL.
 * saves   nothing.
 */
f2b_tensor *f2b_scale(f2b_tape *tape, f2b_tensor *x, double c);

#endif
