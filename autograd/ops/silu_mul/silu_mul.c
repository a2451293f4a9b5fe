/* Checks and descriptor of silu_mul. */
#include "autograd/ops/silu_mul/silu_mul.h"

#include "autograd/core/op.h"
#include "autograd/ops/checks.h"

F2B_DECLARE_KERNELS(f2bi_silu_mul_forward);
F2B_DECLARE_KERNELS(f2bi_silu_mul_backward);

static const f2b_op op_silu_mul = {
    .name = "silu_mul", .cheap = true, .backward_reads_in = 3u,
    .forward = { F2B_KERNELS(f2bi_silu_mul_forward) },
    .backward = { F2B_KERNELS(f2bi_silu_mul_backward) },
};

f2b_tensor *f2b_silu_mul(f2b_tape *tape, f2b_tensor *gate, f2b_tensor *up)
{
    if (gate == NULL || up == NULL) return NULL;
    if (!f2bi_check_activation("silu_mul", "gate", gate) || !f2bi_check_same("silu_mul", gate, up))
        return NULL;
    f2b_node *n = f2b_node_new(tape, &op_silu_mul, gate->dtype, (f2b_tensor *[]){ gate, up }, 2,
                               NULL, 0);
    f2b_tensor *y = f2b_node_out(n, gate->dtype, gate->ndim, gate->shape);
    return f2b_node_run(n) == F2B_OK ? y : NULL;
}
