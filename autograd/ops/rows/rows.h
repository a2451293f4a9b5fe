#ifndef F2B_AUTOGRAD_OPS_ROWS_ROWS_H
#define F2B_AUTOGRAD_OPS_ROWS_ROWS_H

#include "autograd/core/op.h"
#include "autograd/core/tape.h"

/* As many sources as a node has inputs beside the index. */
enum { F2B_ROWS_MAX_SOURCES = F2B_MAX_IN - 1 };

/**
 * Gather: y[i] = x[index[i]].
 *
 * x       [R, D] (f32, f64, bf16); borrowed.
 * index   [n] i32 in [0, R); borrowed. A row may be taken several times or not at all.
 * return  [n, D], type of x; borrowed from the tape. NULL on error, or if x or index is NULL.
 * errors  F2B_ERR_SHAPE, F2B_ERR_DTYPE; F2B_ERR_DATA names the first entry outside [0, R).
 * saves   nothing; backward reads index and sums each row's uses in their order.
 */
f2b_tensor *f2b_rows_gather(f2b_tape *tape, f2b_tensor *x, f2b_tensor *index);

/**
 * Rows from several sources: y[t] = sources[s][r] with (s, r) = from[t]. How a language model's
 * input is put together from token embeddings, image rows and summary tokens.
 *
 * dtype    type of the result (f32, f64, bf16).
 * sources  [n_sources], each [R_s, D] of any float type; borrowed. A row may be used several times
 *          or not at all. Gradients have the source's type.
 * from     [T, 2] i32: number of the source, row in it; borrowed.
 * return   [T, D] dtype; borrowed from the tape. NULL on error, or if a source or `from` is NULL.
 * errors   F2B_ERR_SHAPE, F2B_ERR_DTYPE, F2B_ERR_INVALID (number of sources); F2B_ERR_DATA names
 *          the first pair that points nowhere.
 * saves    nothing; backward reads `from` and sums each row's uses in their order.
 */
f2b_tensor *f2b_rows_assemble(f2b_tape *tape, f2b_dtype dtype, f2b_tensor *const *sources,
                              int n_sources, f2b_tensor *from);

#endif
