/* Checks and descriptor of rms_norm. */
#include "autograd/ops/rms_norm/rms_norm.h"

#include "autograd/core/op.h"
#include "autograd/ops/checks.h"

F2B_DECLARE_KERNELS(f2bi_rms_norm_forward);
F2B_DECLARE_KERNELS(f2bi_rms_norm_backward);

static const f2b_op op_rms_norm = {
    .name = "rms_norm", .cheap = true, .backward_reads_in = 3u,
    .forward = { F2B_KERNELS(f2bi_rms_norm_forward) },
    .backward = { F2B_KERNELS(f2bi_rms_norm_backward) },
};

f2b_tensor *f2b_rms_norm(f2b_tape *tape, f2b_tensor *x, f2b_tensor *w, double eps)
{
    if (x == NULL || w == NULL) return NULL;
    F2B_RETURN_NULL_IF(!(eps > 0), F2B_ERR_INVALID, "rms_norm: eps must be above 0, got %g", eps);
    if (!f2bi_check_activation("rms_norm", "x", x) || !f2bi_check_parameter("rms_norm", "w", w)
        || !f2bi_check_shape("rms_norm", "w", w, 1, (int64_t[]){ f2b_dim(x, -1) }))
        return NULL;
    f2b_node *n = f2b_node_new(tape, &op_rms_norm, x->dtype, (f2b_tensor *[]){ x, w }, 2, &eps,
                               sizeof eps);
    f2b_tensor *y = f2b_node_out(n, x->dtype, x->ndim, x->shape);
    if (y != NULL && !w->requires_grad) y->grad_rows = x->grad_rows;
    return f2b_node_run(n) == F2B_OK ? y : NULL;
}
