#ifndef F2B_AUTOGRAD_OPS_ROWS_STORE_H
#define F2B_AUTOGRAD_OPS_ROWS_STORE_H

#include "autograd/core/tape.h"

/**
 * Write rows in place: dst[index[i]] = x[i]. For caches of generation; has no gradient.
 *
 * dst     [R, D] a leaf, type of x.
 * index   [n] i32 in [0, R); the last of equal entries wins.
 * x       [n, D].
 * errors  F2B_ERR_SHAPE, F2B_ERR_DTYPE; F2B_ERR_DATA names an entry outside dst;
 *         F2B_ERR_UNSUPPORTED while the tape records a gradient through x, or on a device without
 *         a kernel.
 */
f2b_status f2b_rows_store(f2b_tape *tape, f2b_tensor *dst, f2b_tensor *index, f2b_tensor *x)
    F2B_MUST_USE;

#endif
