/* e4m3 for emulated kernels: the conversions of core/e4m3.h under CUDA's names. */
#ifndef F2B_TESTS_EMULATION_CUDA_FP8_H
#define F2B_TESTS_EMULATION_CUDA_FP8_H

#include <cuda_runtime.h>

#include "autograd/core/e4m3.h"

typedef unsigned char __nv_fp8_storage_t;
typedef unsigned short __nv_fp8x2_storage_t;
typedef enum __nv_saturation_t { __NV_NOSAT, __NV_SATFINITE } __nv_saturation_t;
typedef enum __nv_fp8_interpretation_t { __NV_E4M3, __NV_E5M2 } __nv_fp8_interpretation_t;

/* What else CUDA can do is not here. */
static inline __nv_fp8x2_storage_t __nv_cvt_float2_to_fp8x2(float2 x, __nv_saturation_t saturation,
                                                            __nv_fp8_interpretation_t kind)
{
    if (saturation != __NV_SATFINITE || kind != __NV_E4M3) __builtin_trap();
    return (__nv_fp8x2_storage_t)(f2b_f32_to_e4m3(x.x) | f2b_f32_to_e4m3(x.y) << 8);
}

#endif
