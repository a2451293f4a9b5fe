/* bf16 for emulated kernels: the conversions of core/dtype.h under CUDA's names. */
#ifndef F2B_TESTS_EMULATION_CUDA_BF16_H
#define F2B_TESTS_EMULATION_CUDA_BF16_H

#include "autograd/core/dtype.h"

typedef struct __nv_bfloat16 { f2b_bf16 bits; } __nv_bfloat16;
typedef struct __attribute__((aligned(4))) __nv_bfloat162 { __nv_bfloat16 x, y; } __nv_bfloat162;

static inline float __bfloat162float(__nv_bfloat16 x) { return f2b_bf16_to_f32(x.bits); }
static inline __nv_bfloat16 __float2bfloat16_rn(float f)
{
    const __nv_bfloat16 x = { f2b_f32_to_bf16(f) };
    return x;
}
static inline __nv_bfloat16 __float2bfloat16(float f) { return __float2bfloat16_rn(f); }

#endif
