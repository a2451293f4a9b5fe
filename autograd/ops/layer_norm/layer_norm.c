/* Checks and descriptor of layer_norm. */
#include "autograd/ops/layer_norm/layer_norm.h"

#include "autograd/core/op.h"
#include "autograd/ops/checks.h"

F2B_DECLARE_KERNELS(f2bi_layer_norm_forward);
F2B_DECLARE_KERNELS(f2bi_layer_norm_backward);

static const f2b_op op_layer_norm = {
    .name = "layer_norm", .cheap = true, .backward_reads_in = 3u,
    .forward = { F2B_KERNELS(f2bi_layer_norm_forward) },
    .backward = { F2B_KERNELS(f2bi_layer_norm_backward) },
};

f2b_tensor *f2b_layer_norm(f2b_tape *tape, f2b_tensor *x, f2b_tensor *w, f2b_tensor *b, double eps)
{
    if (x == NULL || w == NULL || b == NULL) return NULL;
    F2B_RETURN_NULL_IF(!(eps > 0), F2B_ERR_INVALID, "layer_norm: eps must be above 0, got %g", eps);
    if (!f2bi_check_activation("layer_norm", "x", x)) return NULL;
    const int64_t shape[] = { f2b_dim(x, -1) };
    if (!f2bi_check_parameter("layer_norm", "w", w)
        || !f2bi_check_shape("layer_norm", "w", w, 1, shape)
        || !f2bi_check_parameter("layer_norm", "b", b)
        || !f2bi_check_shape("layer_norm", "b", b, 1, shape))
        return NULL;
    f2b_node *n = f2b_node_new(tape, &op_layer_norm, x->dtype, (f2b_tensor *[]){ x, w, b }, 3, &eps,
                               sizeof eps);
    f2b_tensor *y = f2b_node_out(n, x->dtype, x->ndim, x->shape);
    return f2b_node_run(n) == F2B_OK ? y : NULL;
}
