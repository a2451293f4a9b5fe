/*
 * Element types and exact conversions between them.
 */
#ifndef F2B_AUTOGRAD_CORE_DTYPE_H
#define F2B_AUTOGRAD_CORE_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The three types that ops compute in come first: kernel tables are indexed by them. */
typedef enum f2b_dtype {
    F2B_F32, F2B_F64, F2B_BF16, F2B_COMPUTE_DTYPES,
    F2B_F16 = F2B_COMPUTE_DTYPES, F2B_I32, F2B_U8,
    F2B_INT8, F2B_NF4, F2B_FP8, /* whole matrices, never single elements: autograd/core/quant.h */
    F2B_DTYPES
} f2b_dtype;

static inline bool f2b_dtype_is_quantised(f2b_dtype t)
{
    return t == F2B_INT8 || t == F2B_NF4 || t == F2B_FP8;
}

/** Bytes of an element; 0 for quantised types, whose elements have no place of their own. */
static inline size_t f2b_dtype_size(f2b_dtype t)
{
    static const uint8_t sizes[F2B_DTYPES] = { 4, 8, 2, 2, 4, 1, 0, 0, 0 };
    return sizes[t];
}
static inline const char *f2b_dtype_name(f2b_dtype t)
{
    static const char *const names[F2B_DTYPES] = { "f32", "f64", "bf16", "f16", "i32", "u8",
                                                   "int8", "nf4", "fp8" };
    return names[t];
}
static inline bool f2b_dtype_is_float(f2b_dtype t) { return t <= F2B_F16; }

typedef uint16_t f2b_bf16;      /* upper half of an f32 */
typedef uint16_t f2b_f16;       /* IEEE binary16 */

static inline float f2b_bf16_to_f32(f2b_bf16 x)
{
    const uint32_t bits = (uint32_t)x << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/** Round to nearest, ties to even; NaN stays NaN (made quiet). */
static inline f2b_bf16 f2b_f32_to_bf16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    const uint32_t rounded = bits + 0x7FFFu + ((bits >> 16) & 1u);
    const uint32_t quiet = (bits >> 16) | 0x40u;
    return (f2b_bf16)((bits & 0x7FFFFFFFu) > 0x7F800000u ? quiet : rounded >> 16);
}

float f2b_f16_to_f32(f2b_f16 x);
f2b_f16 f2b_f32_to_f16(float f);

/** Convert n elements between float types (f64 through f32 is exact only as far as f32 goes;
 *  f64 <-> f64 copies). dst and src do not overlap. */
void f2b_convert(void *dst, f2b_dtype dst_type, const void *src, f2b_dtype src_type, size_t n);

#ifdef __cplusplus
}
#endif
#endif
