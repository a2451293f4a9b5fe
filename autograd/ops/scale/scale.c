/* Checks and descriptor of scale. */
#include "autograd/ops/scale/scale.h"

#include "autograd/core/op.h"
#include "autograd/ops/checks.h"

F2B_DECLARE_KERNELS(f2bi_scale_forward);
F2B_DECLARE_KERNELS(f2bi_scale_backward);

static const f2b_op op_scale = {
    .name = "scale",
    .forward = { F2B_KERNELS(f2bi_scale_forward) },
    .backward = { F2B_KERNELS(f2bi_scale_backward) },
};

f2b_tensor *f2b_scale(f2b_tape *tape, f2b_tensor *x, double c)
{
    if (x == NULL || !f2bi_check_activation("scale", "x", x)) return NULL;
    f2b_node *n = f2b_node_new(tape, &op_scale, x->dtype, &x, 1, &c, sizeof c);
    f2b_tensor *y = f2b_node_out(n, x->dtype, x->ndim, x->shape);
    return f2b_node_run(n) == F2B_OK ? y : NULL;
}
