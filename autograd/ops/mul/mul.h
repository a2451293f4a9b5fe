#ifndef F2B_AUTOGRAD_OPS_MUL_MUL_H
#define F2B_AUTOGRAD_OPS_MUL_MUL_H

#include "autograd/core/tape.h"

/**
 * Product of elements: y = a * b.
 *
 * a, b    same shape and type (f32, f64, bf16); borrowed. They may be the same tensor.
 * return  same shape and type; borrowed from the tape. NULL on error, or if a or b is NULL.
 * errors  F2B_ERR_SHAPE, F2B_ERR_DTYPE if a and b differ.
 * saves   nothing; backward reads a and b.
 */
f2b_tensor *f2b_mul(f2b_tape *tape, f2b_tensor *a, f2b_tensor *b);

#endif
