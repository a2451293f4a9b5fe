#ifndef F2B_AUTOGRAD_OPS_CONTRASTIVE_CONTRASTIVE_H
#define F2B_AUTOGRAD_OPS_CONTRASTIVE_CONTRASTIVE_H

#include "autograd/core/tape.h"

/**
 * The symmetric contrastive loss L_disc. With s[k,j] = cos(ev[k], et[j]) and temperature tau,
 *     L = (1/B) sum_k ( -log softmax_j(s[k,j] / tau)[k] - log softmax_j(s[j,k] / tau)[k] ):
 * both directions added, not halved. One pair (B = 1) gives exactly 0. A row of zeros has cosine 0
 * with everything and receives no gradient.
 *
 * ev, et           [B, D], same type (f32, f64, bf16), B > 0; borrowed.
 * log_temperature  [1], f32 (f64 in f64), tau = exp(log_temperature); or NULL. Borrowed.
 * temperature      tau where log_temperature is NULL: > 0; 1 is Eq. 3 as printed.
 * return           [1], f32 (f64 for f64 inputs); borrowed from the tape. NULL on error, or if ev
 *                  or et is NULL.
 * errors           F2B_ERR_SHAPE, F2B_ERR_DTYPE; F2B_ERR_INVALID temperature; F2B_ERR_MEMORY.
 * saves            the unit rows [2, B, D] and the similarities [B, B] in f32 or f64.
 * source           arXiv 2503.21757, Eq. 3.
 */
f2b_tensor *f2b_contrastive(f2b_tape *tape, f2b_tensor *ev, f2b_tensor *et,
                            f2b_tensor *log_temperature, double temperature);

#endif
