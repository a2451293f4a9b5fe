/* Checks and descriptor of dropout. */
#include "autograd/ops/dropout/dropout.h"

#include "autograd/core/op.h"

F2B_DECLARE_KERNELS(f2bi_dropout_forward);
F2B_DECLARE_KERNELS(f2bi_dropout_backward);

static const f2b_op op_dropout = {
    .name = "dropout",
    .forward = { F2B_KERNELS(f2bi_dropout_forward) },
    .backward = { F2B_KERNELS(f2bi_dropout_backward) },
};

f2b_tensor *f2b_dropout_apply(f2b_tape *tape, f2b_tensor *x, const f2b_dropout *d)
{
    if (x == NULL) return NULL;
    F2B_RETURN_NULL_IF(!(d->p >= 0 && d->p < 1), F2B_ERR_INVALID,
                       "dropout: p must be at least 0 and below 1, got %g", (double)d->p);
    if (d->p == 0) return x;
    F2B_RETURN_NULL_IF(d->row_keys == NULL, F2B_ERR_INVALID, "dropout: no row keys were given");
    F2B_RETURN_NULL_IF(x->ndim < 1, F2B_ERR_SHAPE, "dropout: x must have a dimension, got %s",
                       f2b_tensor_describe(x));
    f2b_node *n = f2b_node_new(tape, &op_dropout, x->dtype, &x, 1, d, sizeof *d);
    f2b_tensor *y = f2b_node_out(n, x->dtype, x->ndim, x->shape);
    return f2b_node_run(n) == F2B_OK ? y : NULL;
}
