/* Checks and descriptor of quick_gelu. */
#include "autograd/ops/quick_gelu/quick_gelu.h"

#include "autograd/core/op.h"
#include "autograd/ops/checks.h"

F2B_DECLARE_KERNELS(f2bi_quick_gelu_forward);
F2B_DECLARE_KERNELS(f2bi_quick_gelu_backward);

static const f2b_op op_quick_gelu = {
    .name = "quick_gelu", .cheap = true, .backward_reads_in = 1u,
    .forward = { F2B_KERNELS(f2bi_quick_gelu_forward) },
    .backward = { F2B_KERNELS(f2bi_quick_gelu_backward) },
};

f2b_tensor *f2b_quick_gelu(f2b_tape *tape, f2b_tensor *x)
{
    if (x == NULL || !f2bi_check_activation("quick_gelu", "x", x)) return NULL;
    f2b_node *n = f2b_node_new(tape, &op_quick_gelu, x->dtype, &x, 1, NULL, 0);
    f2b_tensor *y = f2b_node_out(n, x->dtype, x->ndim, x->shape);
    return f2b_node_run(n) == F2B_OK ? y : NULL;
}
