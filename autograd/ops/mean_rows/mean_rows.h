#ifndef F2B_AUTOGRAD_OPS_MEAN_ROWS_MEAN_ROWS_H
#define F2B_AUTOGRAD_OPS_MEAN_ROWS_MEAN_ROWS_H

#include "autograd/core/tape.h"

/**
 * Mean over groups of K consecutive rows: y[i] = (1/K) sum_{k<K} x[i K + k], summed in f32 or f64.
 *
 * x       [n K, D] (f32, f64, bf16); borrowed.
 * K       > 0, divides the rows of x.
 * return  [n, D], type of x; borrowed from the tape. NULL on error, or if x is NULL.
 * errors  F2B_ERR_SHAPE, F2B_ERR_INVALID.
 * saves   nothing.
 * source  arXiv 2503.21757, section 3.2: e_v and e_t of Eq. 3.
 */
f2b_tensor *f2b_mean_rows(f2b_tape *tape, f2b_tensor *x, int64_t K);

#endif
