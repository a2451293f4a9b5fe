/* What quant.c and quant_fp8.c share. */
#ifndef F2B_AUTOGRAD_CORE_QUANT_INTERNAL_H
#define F2B_AUTOGRAD_CORE_QUANT_INTERNAL_H

#include "autograd/core/quant.h"

/** n elements of src from `first` on as f32; returns their largest magnitude, infinity if one of them
 *  is infinite or no number. */
float f2bi_stretch(const void *src, f2b_dtype type, int64_t first, int64_t n, float *values);

/** Fills codes and scales of both directions; the first row with a number that is not finite, or
 *  INT64_MAX. */
int64_t f2bi_quantise_fp8(const f2b_quant *q, const void *src, f2b_dtype type, char *base);

#endif
