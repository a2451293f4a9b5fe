/* See attention_rows.h. */
#include "autograd/ops/attention/attention_rows.h"

#include <math.h>
#include <stdbool.h>

#include "autograd/device/cpu/row_math.h"
#include "autograd/device/cpu/vector_math.h"
#include "autograd/device/cpu/wide_math.h"

/* ---- Plain loops ---- */

/* What was computed in s, as T; where that is real, it stays. */
static inline void put(T *restrict p, const real *restrict s, int64_t n)
{
#if defined(F2B_KERNEL_BF16)
    for (int64_t j = 0; j < n; j++) STORE(p[j], s[j]);
#else
    F2B_CHECK(p == s);
    (void)n;
#endif
}

static real plain_row(real *s, T *p, int64_t n, int64_t wide, real scale, real *inverse)
{
    const int32_t count = (int32_t)n, end = (int32_t)((n + F2BI_ATT_PAD - 1) / F2BI_ATT_PAD * F2BI_ATT_PAD);
    real top = scale * s[0];
#pragma omp simd reduction(max : top)
    for (int32_t j = 0; j < end; j++) {
        const real x = scale * (j < count ? s[j] : s[0]);
        top = x > top ? x : top;
    }
    real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int32_t j = 0; j < end; j++) {
        const real x = j < count ? f2bi_exp(scale * s[j] - top) : 0;
        s[j] = x;
        sum += x;
    }
    put(p, s, end);
    for (int64_t j = end; j < wide; j++) p[j] = 0;
    *inverse = 1 / sum;
    return top + R(log)(sum);
}

static void plain_backward(const f2bi_softmax_block *b)
{
    const real *lse = b->lse, *delta = b->delta, scale = b->scale;
    const int32_t *limit = b->limit, wide = (int32_t)b->wide;
    for (int64_t j = 0; j < b->keys; j++) {
        real *restrict s = b->s + j * wide, *restrict dp = b->dp + j * wide;
        const int32_t key = (int32_t)(b->first + j);
        for (int32_t i = 0; i < wide; i++) {
            const real x = key < limit[i] ? f2bi_exp(scale * s[i] - lse[i]) : 0;
            const real d = key < limit[i] ? x * (dp[i] - delta[i]) : 0;
            s[i] = x, dp[i] = d;
        }
        put(b->p + j * wide, s, wide);
        put(b->ds + j * wide, dp, wide);
    }
}

static void plain_scaled(T *restrict y, const real *restrict x, int64_t n, real factor, bool add)
{
    if (add)
        for (int64_t c = 0; c < n; c++) STORE(y[c], LOAD(y[c]) + factor * x[c]);
    else
        for (int64_t c = 0; c < n; c++) STORE(y[c], factor * x[c]);
}

/* ---- AVX-512 ---- */

#if defined(F2BI_WIDE)
WIDE_TARGET static real wide_row(real *s, T *p, int64_t n, int64_t wide, real scale, real *inverse)
{
    const __m512 factor = _mm512_set1_ps(scale * LOG2E), least = _mm512_set1_ps(-INFINITY);
    __m512 top0 = least, top1 = least;
    int64_t j = 0;
    for (; j + 2 * VL <= n; j += 2 * VL) {
        top0 = _mm512_max_ps(top0, _mm512_mul_ps(_mm512_loadu_ps(s + j), factor));
        top1 = _mm512_max_ps(top1, _mm512_mul_ps(_mm512_loadu_ps(s + j + VL), factor));
    }
    for (; j < n; j += VL) {
        const __mmask16 in = within(j, n);
        top0 = _mm512_mask_max_ps(top0, in, top0, _mm512_mul_ps(_mm512_loadu_ps(s + j), factor));
    }
    const float top = _mm512_reduce_max_ps(_mm512_max_ps(top0, top1));
    const __m512 least_t = _mm512_set1_ps(-top);
    __m512 sum0 = _mm512_setzero_ps(), sum1 = sum0;
    for (j = 0; j + 2 * VL <= n; j += 2 * VL) {
        const __m512 x = power_of_two(_mm512_fmadd_ps(_mm512_loadu_ps(s + j), factor, least_t));
        const __m512 y = power_of_two(_mm512_fmadd_ps(_mm512_loadu_ps(s + j + VL), factor, least_t));
        sum0 = _mm512_add_ps(sum0, x), sum1 = _mm512_add_ps(sum1, y);
        store_two(p + j, x, y);
    }
    for (; j < n; j += VL) {
        const __mmask16 in = within(j, n);
        const __m512 t = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(in, s + j), factor, least_t);
        const __m512 x = _mm512_maskz_mov_ps(in, power_of_two(t));
        sum0 = _mm512_add_ps(sum0, x);
        store_one(p + j, x);
    }
    for (; j < wide; j += VL) store_one(p + j, _mm512_setzero_ps());
    const float sum = _mm512_reduce_add_ps(_mm512_add_ps(sum0, sum1));
    *inverse = 1 / sum;
    return top / LOG2E + logf(sum);
}

/* Sixteen query rows of one key: P, and P * (dP - delta) in `ds`. */
WIDE_INLINE __m512 one_vector(const f2bi_softmax_block *b, int64_t at, int64_t i, __m512i key, __m512 *ds)
{
    const __mmask16 seen = _mm512_cmplt_epi32_mask(key, _mm512_loadu_si512(b->limit + i));
    const __m512 factor = _mm512_set1_ps(b->scale * LOG2E);
    const __m512 lse = _mm512_mul_ps(_mm512_loadu_ps(b->lse + i), _mm512_set1_ps(LOG2E));
    const __m512 p = _mm512_maskz_mov_ps(
        seen, power_of_two(_mm512_fmsub_ps(_mm512_loadu_ps(b->s + at + i), factor, lse)));
    const __m512 d = _mm512_sub_ps(_mm512_loadu_ps(b->dp + at + i), _mm512_loadu_ps(b->delta + i));
    *ds = _mm512_maskz_mul_ps(seen, p, d);
    return p;
}

WIDE_TARGET static void wide_backward(const f2bi_softmax_block *b)
{
    for (int64_t j = 0; j < b->keys; j++) {
        const __m512i key = _mm512_set1_epi32((int)(b->first + j));
        const int64_t at = j * b->wide;
        int64_t i = 0;
        __m512 d0, d1;
        for (; i + 2 * VL <= b->wide; i += 2 * VL) {
            const __m512 p0 = one_vector(b, at, i, key, &d0), p1 = one_vector(b, at, i + VL, key, &d1);
            store_two(b->p + at + i, p0, p1);
            store_two(b->ds + at + i, d0, d1);
        }
        if (i < b->wide) {
            store_one(b->p + at + i, one_vector(b, at, i, key, &d0));
            store_one(b->ds + at + i, d0);
        }
    }
}

WIDE_TARGET static void wide_scaled(T *y, const real *x, int64_t n, real factor, bool add)
{
    const __m512 f = _mm512_set1_ps(factor);
    for (int64_t c = 0; c < n; c += VL) {
        const __mmask16 in = within(c, n);
        const __m512 v = _mm512_maskz_loadu_ps(in, x + c);
        const __m512 old = add ? load_some(in, y + c) : _mm512_setzero_ps();
        store_some(in, y + c, _mm512_fmadd_ps(f, v, old));
    }
}

#else

#define wide_row plain_row
#define wide_backward plain_backward
#define wide_scaled plain_scaled
#endif

real KERNEL(f2bi_softmax_row)(real *s, T *p, int64_t n, int64_t wide, real scale, real *inverse)
{
    return (IS_WIDE ? wide_row : plain_row)(s, p, n, wide, scale, inverse);
}

void KERNEL(f2bi_softmax_backward)(const f2bi_softmax_block *b)
{
    (IS_WIDE ? wide_backward : plain_backward)(b);
}

void KERNEL(f2bi_scaled_rows)(T *y, int64_t ld, const real *x, int64_t rows, int64_t n, const real *factor,
                              int step, bool add)
{
    const bool wide = IS_WIDE;
    for (int64_t i = 0; i < rows; i++, y += ld, x += n, factor += step)
        (wide ? wide_scaled : plain_scaled)(y, x, n, *factor, add);
}
