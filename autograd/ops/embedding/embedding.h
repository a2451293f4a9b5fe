#ifndef F2B_AUTOGRAD_OPS_EMBEDDING_EMBEDDING_H
#define F2B_AUTOGRAD_OPS_EMBEDDING_EMBEDDING_H

#include "autograd/core/tape.h"

/**
 * Rows of a table: y[i] = table[ids[i]].
 *
 * ids     [n] i32; borrowed, without gradient.
 * table   [V, D] any float type; borrowed. Trained, its gradient has the table's type; each row's
 *         gradient is summed over its uses in their order.
 * dtype   type of the result (f32, f64, bf16).
 * return  [n, D] dtype; borrowed from the tape. NULL on error, or if ids or table is NULL.
 * errors  F2B_ERR_SHAPE, F2B_ERR_DTYPE; F2B_ERR_DATA names the first id outside [0, V).
 * saves   nothing; backward reads ids.
 */
f2b_tensor *f2b_embedding(f2b_tape *tape, f2b_tensor *ids, f2b_tensor *table, f2b_dtype dtype);

#endif
