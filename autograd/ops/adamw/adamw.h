#ifndef F2B_AUTOGRAD_OPS_ADAMW_ADAMW_H
#define F2B_AUTOGRAD_OPS_ADAMW_ADAMW_H

#include "autograd/core/tensor.h"

typedef struct f2b_adamw {
    double learning_rate, beta1, beta2, eps, weight_decay;
    const double *norm;         /* of all gradients, on the parameter's device (f2b_grad_norm): they are
                                 * clipped to max_norm (0: not), and where it is not finite nothing is
                                 * changed. NULL: gradients as they are */
    double max_norm;
    int64_t count;              /* updates of this tensor, this one included: 1, 2, ... */
    bool bounded;               /* the parameter is kept at `least` or above */
    double least;
} f2b_adamw;

/**
 * One AdamW update in place, with decoupled decay. With g = clip factor * grad, t = count:
 *     p -= lr * decay * p
 *     m  = beta1 m + (1 - beta1) g          v = beta2 v + (1 - beta2) g^2
 *     p -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
 *
 * parameter  f32 leaf with a gradient; only its data is changed.
 * m, v       f32 leaves of the same shape; the moments.
 * errors     F2B_ERR_DTYPE, F2B_ERR_SHAPE; F2B_ERR_INVALID no gradient or count < 1;
 *            F2B_ERR_UNSUPPORTED on a device without a kernel.
 * source     torch.optim.AdamW; Loshchilov & Hutter, arXiv:1711.05101.
 */
f2b_status f2b_adamw_update(f2b_tensor *parameter, f2b_tensor *m, f2b_tensor *v,
                            const f2b_adamw *settings) F2B_MUST_USE;

#endif
