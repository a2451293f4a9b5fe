/* Checks and descriptor of add. */
#include "autograd/ops/add/add.h"

#include "autograd/core/op.h"

F2B_DECLARE_KERNELS(f2bi_add_forward);

/* No backward kernels: both gradients are that of the sum, which the tape hands on. */
static const f2b_op op_add = { .name = "add", .forward = { F2B_KERNELS(f2bi_add_forward) } };

f2b_tensor *f2b_add(f2b_tape *tape, f2b_tensor *a, f2b_tensor *b)
{
    if (a == NULL || b == NULL) return NULL;
    F2B_RETURN_NULL_IF(!f2b_same_shape(a, b), F2B_ERR_SHAPE, "add: %s and %s differ in shape",
                       f2b_tensor_describe(a), f2b_tensor_describe(b));
    F2B_RETURN_NULL_IF(a->dtype != b->dtype, F2B_ERR_DTYPE, "add: %s and %s differ in type",
                       f2b_tensor_describe(a), f2b_tensor_describe(b));
    f2b_node *n = f2b_node_new(tape, &op_add, a->dtype, (f2b_tensor *[]){ a, b }, 2, NULL, 0);
    f2b_tensor *y = f2b_node_out(n, a->dtype, a->ndim, a->shape);
    for (int i = 0; i < 2; i++) f2b_node_hands_on(n, 0, i);
    return f2b_node_run(n) == F2B_OK ? y : NULL;
}
