#ifndef F2B_AUTOGRAD_OPS_GRAD_NORM_GRAD_NORM_INTERNAL_H
#define F2B_AUTOGRAD_OPS_GRAD_NORM_GRAD_NORM_INTERNAL_H

#include <stdint.h>

#include "autograd/core/status.h"

/* Elements a partial sum: fixed, as it decides the order of addition. */
enum { F2BI_GRAD_NORM_CHUNK = 8192 };

/** sums[i] = sum of squares of x[i * CHUNK ...], f64; ceil(n / CHUNK) of them. x and sums are on the
 *  device, index is its number. */
typedef f2b_status f2bi_grad_norm_kernel(int index, const void *x, int64_t n, double *sums);
/** The norm from all the sums (f2b_grad_norm). */
typedef f2b_status f2bi_grad_norm_finish(int index, const double *sums, int64_t chunks,
                                         const double *watched, int64_t n_watched, double *norm);
#ifdef __cplusplus
extern "C" f2bi_grad_norm_kernel f2bi_grad_norm_cuda_f32;
extern "C" f2bi_grad_norm_finish f2bi_grad_norm_finish_cuda;
#else
f2bi_grad_norm_kernel f2bi_grad_norm_cpu_f32, f2bi_grad_norm_cpu_f64, f2bi_grad_norm_cuda_f32 F2B_WEAK;
f2bi_grad_norm_finish f2bi_grad_norm_finish_cuda F2B_WEAK;
#endif

#endif
