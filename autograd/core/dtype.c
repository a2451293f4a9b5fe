/* Conversions that are not one-liners. See dtype.h. */
#include "autograd/core/dtype.h"

#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "autograd/core/status.h"

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

/* ---- Rows to and from f32: what every conversion is made of ---- */

static void f16_to_f32(float *dst, const f2b_f16 *src, size_t n)
{
    size_t i = 0;
#if defined(__F16C__)
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(src + i))));
#endif
    for (; i < n; i++) dst[i] = f2b_f16_to_f32(src[i]);
}

static void to_f32(float *dst, const void *src, f2b_dtype type, size_t n)
{
    switch (type) {
    case F2B_F32: memcpy(dst, src, n * sizeof *dst); break;
    case F2B_F64: for (size_t i = 0; i < n; i++) dst[i] = (float)((const double *)src)[i]; break;
    case F2B_BF16:
        for (size_t i = 0; i < n; i++) dst[i] = f2b_bf16_to_f32(((const f2b_bf16 *)src)[i]);
        break;
    case F2B_F16: f16_to_f32(dst, src, n); break;
    default: F2B_CHECK(false);
    }
}

static void from_f32(void *dst, f2b_dtype type, const float *src, size_t n)
{
    switch (type) {
    case F2B_F32: memcpy(dst, src, n * sizeof *src); break;
    case F2B_F64: for (size_t i = 0; i < n; i++) ((double *)dst)[i] = src[i]; break;
    case F2B_BF16:
        for (size_t i = 0; i < n; i++) ((f2b_bf16 *)dst)[i] = f2b_f32_to_bf16(src[i]);
        break;
    case F2B_F16:
        for (size_t i = 0; i < n; i++) ((f2b_f16 *)dst)[i] = f2b_f32_to_f16(src[i]);
        break;
    default: F2B_CHECK(false);
    }
}

void f2b_convert(void *dst, f2b_dtype dst_type, const void *src, f2b_dtype src_type, size_t n)
{
    enum { AT_ONCE = 512 };
    float middle[AT_ONCE];
    if (n == 0) return;
    if (dst_type == src_type) {
        memcpy(dst, src, n * f2b_dtype_size(src_type));
    } else if (dst_type == F2B_F32) {
        to_f32(dst, src, src_type, n);
    } else if (src_type == F2B_F32) {
        from_f32(dst, dst_type, src, n);
    } else {
        for (size_t i = 0; i < n; i += AT_ONCE) {
            const size_t m = n - i < AT_ONCE ? n - i : AT_ONCE;
            to_f32(middle, (const char *)src + i * f2b_dtype_size(src_type), src_type, m);
            from_f32((char *)dst + i * f2b_dtype_size(dst_type), dst_type, middle, m);
        }
    }
}
