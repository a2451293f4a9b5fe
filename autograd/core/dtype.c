/* Conversions that are not one-liners. See dtype.h. */
#include "autograd/core/dtype.h"

float f2b_f16_to_f32(f2b_f16 x)
{
    const uint32_t sign = (uint32_t)(x & 0x8000u) << 16, exponent = (x >> 10) & 31u;
    uint32_t mantissa = x & 0x3FFu, bits;
    if (exponent == 31) {
        bits = sign | 0x7F800000u | mantissa << 13;
    } else if (exponent != 0) {
        bits = sign | (exponent + 112) << 23 | mantissa << 13;
    } else {                                    /* zero or subnormal: mantissa * 2^-24, exact in f32 */
        const float value = (float)mantissa * 0x1p-24f;
        memcpy(&bits, &value, sizeof bits);
        bits |= sign;
    }
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Round to nearest, ties to even. Adding a power of two makes the FPU do the rounding: for normal
 * results the magic number has the exponent of |f| plus 13, for subnormal ones it is 2^-1. */
f2b_f16 f2b_f32_to_f16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    const uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u) return (f2b_f16)(sign | 0x7E00u);
    if (magnitude >= 0x477FF000u) return (f2b_f16)(sign | 0x7C00u);     /* rounds to infinity */
    if (magnitude < 0x38800000u) {                                      /* below 2^-14 */
        float a;
        memcpy(&a, &magnitude, sizeof a);
        a += 0.5f;
        uint32_t r;
        memcpy(&r, &a, sizeof r);
        return (f2b_f16)(sign | (r - 0x3F000000u));
    }
    const uint32_t rounded = magnitude + 0xFFFu + ((magnitude >> 13) & 1u) - 0x38000000u;
    return (f2b_f16)(sign | rounded >> 13);
}

void f2b_convert(void *dst, f2b_dtype dst_type, const void *src, f2b_dtype src_type, size_t n)
{
    if (dst_type == src_type) {
        memcpy(dst, src, n * f2b_dtype_size(src_type));
        return;
    }
    for (size_t i = 0; i < n; i++) {
        double v;
        switch (src_type) {
        case F2B_F32: v = ((const float *)src)[i]; break;
        case F2B_F64: v = ((const double *)src)[i]; break;
        case F2B_BF16: v = f2b_bf16_to_f32(((const f2b_bf16 *)src)[i]); break;
        case F2B_F16: v = f2b_f16_to_f32(((const f2b_f16 *)src)[i]); break;
        default: v = 0; break;
        }
        switch (dst_type) {
        case F2B_F32: ((float *)dst)[i] = (float)v; break;
        case F2B_F64: ((double *)dst)[i] = v; break;
        case F2B_BF16: ((f2b_bf16 *)dst)[i] = f2b_f32_to_bf16((float)v); break;
        case F2B_F16: ((f2b_f16 *)dst)[i] = f2b_f32_to_f16((float)v); break;
        default: break;
        }
    }
}
