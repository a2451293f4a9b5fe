/*
 * Checks that constructors of ops share. Each returns true, or false with the error set; `op` and
 * `what` name the op and the argument in the message.
 */
#ifndef F2B_AUTOGRAD_OPS_CHECKS_H
#define F2B_AUTOGRAD_OPS_CHECKS_H

#include "autograd/core/tape.h"

/** x computes: f32, f64 or bf16, and has at least one dimension. */
bool f2bi_check_activation(const char *op, const char *what, const f2b_tensor *x);

/** w is of a float type, and of one that gradients can have (not f16) if it requires a gradient. */
bool f2bi_check_parameter(const char *op, const char *what, const f2b_tensor *w);

/** index is i32 and requires no gradient. */
bool f2bi_check_index(const char *op, const char *what, const f2b_tensor *index);

/** x has exactly this shape; -1 stands for any size. */
bool f2bi_check_shape(const char *op, const char *what, const f2b_tensor *x, int ndim,
                      const int64_t *shape);

/** a and b have the same shape and type. */
bool f2bi_check_same(const char *op, const f2b_tensor *a, const f2b_tensor *b);

#endif
