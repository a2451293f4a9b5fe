/* Checks and descriptor of mean_rows. */
#include "autograd/ops/mean_rows/mean_rows.h"

#include "autograd/core/op.h"
#include "autograd/ops/checks.h"

F2B_DECLARE_KERNELS(f2bi_mean_rows_forward);
F2B_DECLARE_KERNELS(f2bi_mean_rows_backward);

static const f2b_op op_mean_rows = {
    .name = "mean_rows",
    .forward = { F2B_KERNELS(f2bi_mean_rows_forward) },
    .backward = { F2B_KERNELS(f2bi_mean_rows_backward) },
};

f2b_tensor *f2b_mean_rows(f2b_tape *tape, f2b_tensor *x, int64_t K)
{
    if (x == NULL) return NULL;
    if (!f2bi_check_activation("mean_rows", "x", x)
        || !f2bi_check_shape("mean_rows", "x", x, 2, (int64_t[]){ -1, -1 }))
        return NULL;
    F2B_RETURN_NULL_IF(K < 1, F2B_ERR_INVALID, "mean_rows: groups of %lld rows", (long long)K);
    F2B_RETURN_NULL_IF(f2b_dim(x, 0) % K != 0, F2B_ERR_SHAPE,
                       "mean_rows: x %s is not made of groups of %lld rows", f2b_tensor_describe(x),
                       (long long)K);
    f2b_node *n = f2b_node_new(tape, &op_mean_rows, x->dtype, &x, 1, &K, sizeof K);
    f2b_tensor *y = f2b_node_out(n, x->dtype, 2, (int64_t[]){ f2b_dim(x, 0) / K, f2b_dim(x, 1) });
    return f2b_node_run(n) == F2B_OK ? y : NULL;
}
