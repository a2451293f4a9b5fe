/* f16 for emulated kernels: the conversions of core/dtype.h under CUDA's names. */
#ifndef F2B_TESTS_EMULATION_CUDA_FP16_H
#define F2B_TESTS_EMULATION_CUDA_FP16_H

#include "autograd/core/dtype.h"

typedef struct __half { f2b_f16 bits; } __half;

static inline float __half2float(__half x) { return f2b_f16_to_f32(x.bits); }
static inline __half __float2half_rn(float f)
{
    const __half x = { f2b_f32_to_f16(f) };
    return x;
}
static inline __half __float2half(float f) { return __float2half_rn(f); }

#endif
