/* Checks and descriptor of mul. */
#include "autograd/ops/mul/mul.h"

#include "autograd/core/op.h"
#include "autograd/ops/checks.h"

F2B_DECLARE_KERNELS(f2bi_mul_forward);
F2B_DECLARE_KERNELS(f2bi_mul_backward);

static const f2b_op op_mul = {
    .name = "mul", .backward_reads_in = 3u,
    .forward = { F2B_KERNELS(f2bi_mul_forward) },
    .backward = { F2B_KERNELS(f2bi_mul_backward) },
};

f2b_tensor *f2b_mul(f2b_tape *tape, f2b_tensor *a, f2b_tensor *b)
{
    if (a == NULL || b == NULL) return NULL;
    if (!f2bi_check_activation("mul", "a", a) || !f2bi_check_same("mul", a, b)) return NULL;
    f2b_node *n = f2b_node_new(tape, &op_mul, a->dtype, (f2b_tensor *[]){ a, b }, 2, NULL, 0);
    f2b_tensor *y = f2b_node_out(n, a->dtype, a->ndim, a->shape);
    return f2b_node_run(n) == F2B_OK ? y : NULL;
}
