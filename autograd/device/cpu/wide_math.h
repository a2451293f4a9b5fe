/*
 * AVX-512 in kernels (kernel.h): vectors of 16 f32. Where F2BI_WIDE is defined it can be compiled: in f32 if all is
 * compiled for it, in bf16 always; IS_WIDE tells whether it may run, which in bf16 goes by the products (products.h).
 */
#ifndef F2B_AUTOGRAD_DEVICE_CPU_WIDE_MATH_H
#define F2B_AUTOGRAD_DEVICE_CPU_WIDE_MATH_H

#include <stdbool.h>
#include <stdint.h>

#include "autograd/device/cpu/kernel.h"
#include "autograd/device/cpu/products.h"

#if defined(F2B_KERNEL_F32) && defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__FMA__)
#define F32_IS_WIDE
#endif
#if defined(__x86_64__) && (defined(F2B_KERNEL_BF16) || defined(F32_IS_WIDE))
#define F2BI_WIDE
#include <immintrin.h>
#if defined(F2B_KERNEL_BF16)
#define WIDE_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")))
#define IS_WIDE (f2b_cpu_products() != F2B_PRODUCTS_F32)
#else
#define WIDE_TARGET
#define IS_WIDE true
#endif
#define WIDE_INLINE WIDE_TARGET static inline __attribute__((always_inline))
enum { VL = 16 };
#define LOG2E 1.44269504088896341f

/* 2^t: what is beside a whole number by a polynomial, that number as an exponent. Infinities and NaN come out
 * right. Relative error of the polynomial: bf16 2.6e-6 (a thousandth of bf16's), over [0, 1); f32 2.6e-9, over
 * [-1/2, 1/2]. */
WIDE_INLINE __m512 power_of_two(__m512 t)
{
#if defined(F2B_KERNEL_BF16)
    const __m512 r = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC), whole = t;
    __m512 p = _mm512_set1_ps(1.353416995e-02f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.201146259e-02f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.414427510e-01f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.930038372e-01f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.000002593f));
#else
    const __m512 r = _mm512_reduce_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 whole = _mm512_sub_ps(t, r);
    __m512 p = _mm512_set1_ps(1.559467754e-04f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.340664390e-03f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.617692975e-03f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.550310551e-02f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.402265278e-01f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.931472150e-01f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
#endif
    return _mm512_scalef_ps(p, whole);
}

#if defined(F2B_KERNEL_BF16)
WIDE_INLINE __m512 load_one(const T *from)
{
    return _mm512_cvtpbh_ps((__m256bh)_mm256_loadu_si256((const void *)from));
}
WIDE_INLINE __m512 load_some(__mmask16 in, const T *from)
{
    return _mm512_cvtpbh_ps((__m256bh)_mm256_maskz_loadu_epi16(in, from));
}
WIDE_INLINE void store_some(__mmask16 in, T *to, __m512 x)
{
    _mm256_mask_storeu_epi16(to, in, (__m256i)_mm512_cvtneps_pbh(x));
}
WIDE_INLINE void store_one(T *to, __m512 x) { _mm256_storeu_si256((void *)to, (__m256i)_mm512_cvtneps_pbh(x)); }
WIDE_INLINE void store_two(T *to, __m512 low, __m512 high)
{
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}
#else
WIDE_INLINE __m512 load_some(__mmask16 in, const T *from) { return _mm512_maskz_loadu_ps(in, from); }
WIDE_INLINE void store_some(__mmask16 in, T *to, __m512 x) { _mm512_mask_storeu_ps(to, in, x); }
WIDE_INLINE void store_one(T *to, __m512 x) { _mm512_storeu_ps(to, x); }
WIDE_INLINE void store_two(T *to, __m512 low, __m512 high) { store_one(to, low), store_one(to + VL, high); }
#endif

/* The first n - j of a vector that starts at j. */
WIDE_INLINE __mmask16 within(int64_t j, int64_t n)
{
    return n - j >= VL ? 0xFFFF : n > j ? (__mmask16)((1u << (n - j)) - 1) : 0;
}

#else
#define IS_WIDE false
#endif

#endif
