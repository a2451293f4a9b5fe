#ifndef F2B_AUTOGRAD_OPS_FP8_WEIGHT_INTERNAL_H
#define F2B_AUTOGRAD_OPS_FP8_WEIGHT_INTERNAL_H

#include "autograd/core/quant.h"
#include "autograd/ops/fp8_weight/fp8_weight.h"

/** Codes and scales of both directions into dst, a quantised matrix whose head is q; a row that is not
 *  finite has a scale that is no number. */
#ifdef __cplusplus
extern "C" f2b_status f2bi_fp8_weight_cuda(int index, const f2b_quant *q, const void *src, f2b_dtype type,
                                           void *dst);
#else
f2b_status f2bi_fp8_weight_cuda(int index, const f2b_quant *q, const void *src, f2b_dtype type,
                                void *dst) F2B_WEAK;
#endif

#endif
