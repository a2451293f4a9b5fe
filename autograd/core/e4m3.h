/*
 * The 8-bit float e4m3 (OCP 8-bit Floating Point Specification, "E4M3"): sign, four bits of exponent,
 * three of mantissa; normal from 2^-6 to 448, subnormal in steps of 2^-9; no infinities, one NaN.
 */
#ifndef F2B_AUTOGRAD_CORE_E4M3_H
#define F2B_AUTOGRAD_CORE_E4M3_H

#include <stdint.h>
#include <string.h>

#include "autograd/device/anywhere.h"

typedef uint8_t f2b_e4m3;

#define F2B_E4M3_MAX 448.0f

/** Round to nearest, ties to even; beyond 448 to 448, infinity too; NaN stays NaN. */
static inline F2B_ANYWHERE f2b_e4m3 f2b_f32_to_e4m3(float f)
{
    uint32_t bits, rounded;
    memcpy(&bits, &f, sizeof bits);
    const uint32_t sign = bits >> 24 & 0x80u, magnitude = bits & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u) return 0x7F;
    if (magnitude >= 0x43E00000u) return (f2b_e4m3)(sign | 0x7E);       /* 448 and above */
    if (magnitude < 0x3C800000u) {              /* below 2^-6: the sum with 2^14 has steps of 2^-9 */
        float a;
        memcpy(&a, &magnitude, sizeof a);
        a += 0x1p14f;
        memcpy(&rounded, &a, sizeof rounded);
        return (f2b_e4m3)(sign | (rounded - 0x46800000u));
    }
    rounded = magnitude + 0x7FFFFu + (magnitude >> 20 & 1u) - 0x3C000000u;
    return (f2b_e4m3)(sign | rounded >> 20);
}

static inline F2B_ANYWHERE float f2b_e4m3_to_f32(f2b_e4m3 x)
{
    const uint32_t exponent = x >> 3 & 15u, mantissa = x & 7u;
    float f = (float)mantissa * 0x1p-9f;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if (exponent != 0) bits = (exponent + 120u) << 23 | mantissa << 20;
    if ((x & 0x7Fu) == 0x7Fu) bits = 0x7FC00000u;
    bits |= (uint32_t)(x & 0x80u) << 24;
    memcpy(&f, &bits, sizeof f);
    return f;
}

#endif
