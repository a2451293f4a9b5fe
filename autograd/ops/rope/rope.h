#ifndef F2B_AUTOGRAD_OPS_ROPE_ROPE_H
#define F2B_AUTOGRAD_OPS_ROPE_ROPE_H

#include "autograd/core/tape.h"

/**
 * Rotary positions, half rotation (Hugging Face's layout): in each head of hd columns, with
 * h = hd/2 and angle a[i] = position * theta^(-2i/hd), i < h,
 *     y[i]     = x[i] cos a[i] - x[i + h] sin a[i]
 *     y[i + h] = x[i + h] cos a[i] + x[i] sin a[i].
 *
 * x          [T, heads * hd] (f32, f64, bf16); borrowed.
 * table      from f2b_rope_table: f64 for f64 x, f32 otherwise; borrowed. hd is its last dimension.
 * positions  [T] i32; borrowed. They restart in each sequence.
 * return     shape and type of x; borrowed from the tape. NULL on error, or if an input is NULL.
 * errors     F2B_ERR_SHAPE, F2B_ERR_DTYPE; F2B_ERR_DATA names the first position outside the table.
 * saves      nothing; backward turns the gradient back and reads table and positions.
 */
f2b_tensor *f2b_rope(f2b_tape *tape, f2b_tensor *x, f2b_tensor *table, f2b_tensor *positions);

/**
 * The table [P, hd]: row p has cos a[0..h), then sin a[0..h) at position p. The f32 table takes
 * frequencies and angles in f32, as transformers does (which matters at large positions); the f64
 * table is f64 throughout.
 *
 * return  a leaf of the caller, free with f2b_tensor_free; NULL on error.
 * errors  F2B_ERR_INVALID hd odd or not positive, P < 0 or theta not positive; F2B_ERR_DTYPE unless
 *         f32 or f64; F2B_ERR_MEMORY.
 */
f2b_tensor *f2b_rope_table(f2b_device device, f2b_dtype dtype, double theta, int64_t hd, int64_t P);

#endif
