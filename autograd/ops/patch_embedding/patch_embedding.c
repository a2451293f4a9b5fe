/* Checks and descriptor of patch_embedding. */
#include "autograd/ops/patch_embedding/patch_embedding.h"

#include "autograd/core/op.h"
#include "autograd/ops/checks.h"

F2B_DECLARE_KERNELS(f2bi_patch_embedding_forward);
F2B_DECLARE_KERNELS(f2bi_patch_embedding_backward);

static const f2b_op op_patch_embedding = {
    .name = "patch_embedding", .backward_reads_in = 1u,
    .forward = { F2B_KERNELS(f2bi_patch_embedding_forward) },
    .backward = { F2B_KERNELS(f2bi_patch_embedding_backward) },
};

f2b_tensor *f2b_patch_embedding(f2b_tape *tape, f2b_tensor *images, f2b_tensor *weight,
                                f2b_dtype dtype)
{
    const char *op = op_patch_embedding.name;
    if (images == NULL || weight == NULL) return NULL;
    const int64_t any[] = { -1, -1, -1, -1 };
    if (!f2bi_check_parameter(op, "weight", weight) || !f2bi_check_parameter(op, "images", images)
        || !f2bi_check_shape(op, "weight", weight, 4, any)
        || !f2bi_check_shape(op, "images", images, 4, any))
        return NULL;
    const f2b_dtype compute = dtype == F2B_F64 ? F2B_F64 : F2B_F32;
    F2B_RETURN_NULL_IF(weight->requires_grad && weight->dtype != compute, F2B_ERR_DTYPE,
                       "%s: a trained weight must be %s for %s, got %s", op,
                       f2b_dtype_name(compute), f2b_dtype_name(dtype), f2b_tensor_describe(weight));
    F2B_RETURN_NULL_IF(images->requires_grad, F2B_ERR_UNSUPPORTED,
                       "%s: there is no gradient with respect to images", op);
    const int64_t p = f2b_dim(weight, 3), S = f2b_dim(images, 3);
    F2B_RETURN_NULL_IF(p < 1 || S % p != 0 || f2b_dim(weight, 2) != p || f2b_dim(images, 2) != S
                       || f2b_dim(images, 1) != f2b_dim(weight, 1), F2B_ERR_SHAPE,
                       "%s: images %s do not divide into patches of weight %s", op,
                       f2b_tensor_describe(images), f2b_tensor_describe(weight));
    const int64_t rows = f2b_dim(images, 0) * (S / p) * (S / p);
    f2b_node *n = f2b_node_new(tape, &op_patch_embedding, dtype, (f2b_tensor *[]){ images, weight },
                               2, NULL, 0);
    f2b_tensor *y = f2b_node_out(n, dtype, 2, (int64_t[]){ rows, f2b_dim(weight, 0) });
    return f2b_node_run(n) == F2B_OK ? y : NULL;
}
