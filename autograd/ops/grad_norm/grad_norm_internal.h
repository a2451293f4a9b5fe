#ifndef F2B_AUTOGRAD_OPS_GRAD_NORM_GRAD_NORM_INTERNAL_H
#define F2B_AUTOGRAD_OPS_GRAD_NORM_GRAD_NORM_INTERNAL_H

#include <stdint.h>

/* Elements a partial sum: fixed, as it decides the order of addition. */
enum { F2BI_GRAD_NORM_CHUNK = 8192 };

/** sums[i] = sum of squares of x[i * CHUNK ...], f64; ceil(n / CHUNK) of them. */
void f2bi_grad_norm_cpu_f32(const void *x, int64_t n, double *sums);
void f2bi_grad_norm_cpu_f64(const void *x, int64_t n, double *sums);

#endif
