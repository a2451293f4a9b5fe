#ifndef F2B_AUTOGRAD_OPS_GRAD_NORM_GRAD_NORM_H
#define F2B_AUTOGRAD_OPS_GRAD_NORM_GRAD_NORM_H

#include "autograd/core/tensor.h"
#include "autograd/device/anywhere.h"

/**
 * Euclidean norm over all gradients of the tensors, summed in f64 in a fixed order: the same bits
 * for any number of threads. Tensors without a gradient are passed over. Infinite or NaN exactly
 * where the gradients make it so, or a number that is watched (then NaN), which is how a step with bad
 * numbers is found. On a device other than the host also NaN where earlier work found a bad index.
 * The host does not wait: who reads the norm does.
 *
 * tensors  [n] f32 or f64, on `device`; borrowed.
 * watched  [n_watched] on the device; or NULL and 0.
 * norm     on the device.
 * errors   F2B_ERR_DTYPE; F2B_ERR_MEMORY; F2B_ERR_UNSUPPORTED on a device without a kernel.
 */
f2b_status f2b_grad_norm(f2b_device device, f2b_tensor *const *tensors, int64_t n,
                         const double *watched, int64_t n_watched, double *norm) F2B_MUST_USE;

/** The factor that clips to max_norm: min(1, max_norm / (norm + 1e-6)); 1 if max_norm is 0 (off).
 *  source  torch.nn.utils.clip_grad_norm_. */
static inline F2B_ANYWHERE double f2b_clip_factor(double norm, double max_norm)
{
    const double factor = max_norm / (norm + 1e-6);
    return max_norm == 0 || factor > 1 ? 1 : factor;
}

#endif
