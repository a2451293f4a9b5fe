/*
 * exp, the sigmoid and erf for f32, written so that loops over them vectorise: no branch, no call, no table.
 * Largest errors, measured over every f32: exp 1.0 ulp, sigmoid 2.1, erf 1.2 (tests/ops/test_vector_math.c).
 * Kernels use f2bi_exp, f2bi_sigmoid and f2bi_erf, which are these for f32 and bf16 (whose exponential is the
 * rough one) and libm's for f64.
 */
#ifndef F2B_AUTOGRAD_DEVICE_CPU_VECTOR_MATH_H
#define F2B_AUTOGRAD_DEVICE_CPU_VECTOR_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline float f2bi_float_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t f2bi_bits_of_float(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* e^(x - n ln 2) for |x - n ln 2| <= ln(2)/2, by Cephes' polynomial. */
static inline float f2bi_exp_rest(float x, float n)
{
    const float r = x - n * 0.693359375f - n * -2.12194440e-4f;     /* the first product is exact */
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return p * (r * r) + r + 1.0f;
}

/* The same with a relative error of 3e-6 for |x| <= 20. */
static inline float f2bi_exp_rest_rough(float x, float n)
{
    const float r = x * 1.44269504088896341f - n;
    float p = 1.3390867353e-3f;
    p = p * r + 9.6663736932e-3f;
    p = p * r + 5.5503571042e-2f;
    p = p * r + 2.4022348941e-1f;
    p = p * r + 6.9314718803e-1f;
    return p * r + 1.0f;
}

/**
 * e^x. x = n ln 2 + r with |r| <= ln(2)/2; e^r by a polynomial; 2^n in two factors, so that
 * subnormal results and the overflow to infinity come out right. The clamps keep n in [-150, 128];
 * e^-104 rounds to 0 and e^89 to infinity. NaN passes through every step.
 */
static inline float f2b_expf_fast(float x)
{
    const float round_bias = 12582912.0f;           /* 1.5 * 2^23: adding it rounds to an integer */
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    const float biased = x * 1.44269504088896341f + round_bias;
    const float n = biased - round_bias;
    const float p = f2bi_exp_rest(x, n);
    const uint32_t exponent = f2bi_bits_of_float(biased) - f2bi_bits_of_float(round_bias);
    const uint32_t half = (uint32_t)((int32_t)exponent >> 1);
    return p * f2bi_float_of_bits((half + 127u) << 23)
             * f2bi_float_of_bits((exponent - half + 127u) << 23);
}

/**
 * e^x for results that are rounded to bf16, in half the instructions: 2^(x log2 e) with one polynomial
 * and the integer part as an exponent. Relative error below 3e-6 for |x| <= 20, 1e-5 at the ends; x
 * is held within [-87, 88], so that the result is never 0 nor infinite. NaN passes through.
 */
static inline float f2b_expf_rough(float x)
{
    const float round_bias = 12582912.0f, log2e = 1.44269504088896341f;
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    const float biased = x * log2e + round_bias;
    return f2bi_exp_rest_rough(x, biased - round_bias)
             * f2bi_float_of_bits((f2bi_bits_of_float(biased) + 127u) << 23);
}

/**
 * 1 / (1 + e^-x), from e^-|x|, which neither overflows nor needs more than one clamp: it stays e^-87 where the
 * function goes to 0. Good to 3 ulp (the rough one to 4e-6) down to there. NaN passes through.
 */
#define F2BI_SIGMOID(name, exponential)                                                           \
    static inline float name(float x)                                                             \
    {                                                                                             \
        const float round_bias = 12582912.0f, t = fabsf(x), u = t > 87.0f ? -87.0f : -t;          \
        const float biased = u * 1.44269504088896341f + round_bias;                               \
        const float e = exponential(u, biased - round_bias)                                       \
                        * f2bi_float_of_bits((f2bi_bits_of_float(biased) + 127u) << 23);          \
        return (x < 0 ? e : 1.0f) / (1.0f + e);                                                   \
    }
F2BI_SIGMOID(f2b_sigmoidf_fast, f2bi_exp_rest)
F2BI_SIGMOID(f2b_sigmoidf_rough, f2bi_exp_rest_rough)

/**
 * erf(x): an odd polynomial up to 475/512, 1 - e^q(|x|) beyond; both are computed and one is taken.
 * source  N. Juffa's minimax polynomials for erff.
 */
static inline float f2b_erff_fast(float x)
{
    const float t = fabsf(x), s = x * x;
    float q = -1.72853470e-5f * t + 3.83197126e-4f;
    q = q * s + (-3.88396438e-3f * t + 2.42546219e-2f);
    q = q * t - 1.06777877e-1f;
    q = q * t - 6.34846687e-1f;
    q = q * t - 1.28717512e-1f;
    q = q * t - t;
    q = t > 4.0f ? -20.0f : q;                      /* erf is 1 there; q would turn around */
    const float far = copysignf(1.0f - f2b_expf_fast(q), x);
    float p = -5.96761703e-4f;
    p = p * s + 4.99119423e-3f;
    p = p * s - 2.67681349e-2f;
    p = p * s + 1.12819925e-1f;
    p = p * s - 3.76125336e-1f;
    p = p * s + 1.28379166e-1f;
    const float near = p * x + x;
    return t > 0.927734375f ? far : near;           /* NaN takes `near`, which is NaN */
}

#if defined(F2B_KERNEL_F64)
static inline double f2bi_exp(double x) { return exp(x); }
static inline double f2bi_erf(double x) { return erf(x); }
static inline double f2bi_sigmoid(double x) { return 1 / (1 + exp(-x)); }
#else
#if defined(F2B_KERNEL_BF16)
static inline float f2bi_exp(float x) { return f2b_expf_rough(x); }
static inline float f2bi_sigmoid(float x) { return f2b_sigmoidf_rough(x); }
#else
static inline float f2bi_exp(float x) { return f2b_expf_fast(x); }
static inline float f2bi_sigmoid(float x) { return f2b_sigmoidf_fast(x); }
#endif
static inline float f2bi_erf(float x) { return f2b_erff_fast(x); }
#endif

#endif
