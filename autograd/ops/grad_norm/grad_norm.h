#ifndef F2B_AUTOGRAD_OPS_GRAD_NORM_GRAD_NORM_H
#define F2B_AUTOGRAD_OPS_GRAD_NORM_GRAD_NORM_H

#include "autograd/core/tensor.h"

/**
 * Euclidean norm over all gradients of the tensors, summed in f64 in a fixed order: the same bits
 * for any number of threads. Tensors without a gradient are passed over. Infinite or NaN exactly
 * where the gradients make it so, which is how a step with bad numbers is found.
 *
 * tensors  [n] f32 or f64; borrowed.
 * errors   F2B_ERR_DTYPE; F2B_ERR_MEMORY; F2B_ERR_UNSUPPORTED on a device without a kernel.
 */
f2b_status f2b_grad_norm(f2b_tensor *const *tensors, int64_t n, double *norm) F2B_MUST_USE;

/** The factor that clips to max_norm: min(1, max_norm / (norm + 1e-6)); 1 if max_norm is 0 (off).
 *  source  torch.nn.utils.clip_grad_norm_. */
double f2b_clip_factor(double norm, double max_norm);

#endif
