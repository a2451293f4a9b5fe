#ifndef F2B_AUTOGRAD_OPS_FP8_WEIGHT_H
#define F2B_AUTOGRAD_OPS_FP8_WEIGHT_H

#include "autograd/core/tensor.h"

/**
 * Make a weight fp8 (core/quant.h) where it lies, once, when it is loaded. The same bits as f2b_quantise
 * gives on the host, on any device.
 *
 * dst      [out, in]  fp8: a leaf, filled here.
 * src      [out, in]  f32, bf16 or f16, on dst's device; borrowed, free to go when this returns.
 * errors   F2B_ERR_NUMBERS if an element is infinite or no number, naming its row; F2B_ERR_DTYPE,
 *          F2B_ERR_SHAPE; F2B_ERR_UNSUPPORTED on a device without a kernel.
 */
f2b_status f2b_fp8_weight(f2b_tensor *dst, const f2b_tensor *src) F2B_MUST_USE;

#endif
