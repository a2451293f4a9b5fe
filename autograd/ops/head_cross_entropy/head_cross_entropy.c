/* Checks and descriptor of head_cross_entropy. */
#include "autograd/ops/head_cross_entropy/head_cross_entropy.h"

#include "autograd/core/op.h"

F2B_DECLARE_KERNELS(f2bi_head_cross_entropy_forward);
F2B_DECLARE_KERNELS(f2bi_head_cross_entropy_backward);

/* x is read again only by the gradient of a trained weight. */
static const f2b_op op_trained = {
    .name = "head_cross_entropy", .backward_reads_in = 1u << 0 | 1u << 2,
    .forward = { F2B_KERNELS(f2bi_head_cross_entropy_forward) },
    .backward = { F2B_KERNELS(f2bi_head_cross_entropy_backward) },
};
static const f2b_op op_frozen = {
    .name = "head_cross_entropy",
    .forward = { F2B_KERNELS(f2bi_head_cross_entropy_forward) },
    .backward = { F2B_KERNELS(f2bi_head_cross_entropy_backward) },
};

f2b_tensor *f2b_head_cross_entropy(f2b_tape *tape, f2b_tensor *x, f2b_tensor *weight,
                                   f2b_tensor *labels)
{
    if (x == NULL || weight == NULL || labels == NULL) return NULL;
    F2B_RETURN_NULL_IF(x->ndim != 2 || weight->ndim != 2 || x->shape[1] != weight->shape[1] ||
                       labels->dtype != F2B_I32 || f2b_numel(labels) != x->shape[0], F2B_ERR_SHAPE,
                       "head_cross_entropy: rows %s, weight %s and labels %s do not fit",
                       f2b_tensor_describe(x), f2b_tensor_describe(weight),
                       f2b_tensor_describe(labels));
    const f2b_dtype trained = x->dtype == F2B_F64 ? F2B_F64 : F2B_F32;
    F2B_RETURN_NULL_IF(weight->requires_grad && weight->dtype != trained, F2B_ERR_DTYPE,
                       "head_cross_entropy: a trained weight cannot be %s", f2b_tensor_describe(weight));
    if (labels->device.kind == F2B_CPU) {
        const int32_t *label = labels->data;
        for (int64_t r = 0; r < x->shape[0]; r++)
            F2B_RETURN_NULL_IF(label[r] < 0 || label[r] >= weight->shape[0], F2B_ERR_DATA,
                               "head_cross_entropy: label %d of row %lld is outside the %lld tokens",
                               label[r], (long long)r, (long long)weight->shape[0]);
    }
    f2b_node *n = f2b_node_new(tape, weight->requires_grad ? &op_trained : &op_frozen, x->dtype,
                               (f2b_tensor *[]){ x, weight, labels }, 3, NULL, 0);
    f2b_tensor *loss = f2b_node_out(n, trained, 0, NULL);
    return f2b_node_run(n) == F2B_OK ? loss : NULL;
}
