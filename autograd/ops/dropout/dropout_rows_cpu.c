/* See dropout_internal.h. */
#include "autograd/device/cpu/kernel.h"
#include "autograd/device/cpu/wide_math.h"
#include "autograd/ops/dropout/dropout_internal.h"

enum { WORDS = F2BI_DROPOUT_GROUP / 16 };       /* of a group's mask; word q is half q of the lanes' blocks */

static uint32_t threshold_of(const f2b_dropout *d) { return (uint32_t)(d->p * 65536.0f + 0.5f); }
static real scale_of(const f2b_dropout *d) { return (real)(1.0f / (1.0f - d->p)); }

/* ---- Plain loops ---- */

static void plain_mask(uint32_t words[4][F2BI_DROPOUT_LANES], uint32_t threshold, uint16_t *stays)
{
    for (int q = 0; q < WORDS; q++) {
        uint32_t bits = 0;
        for (int i = 0; i < F2BI_DROPOUT_LANES; i++)
            bits |= (uint32_t)((words[q / 2][i] >> (16 * (q % 2)) & 0xFFFFu) >= threshold) << i;
        stays[q] = (uint16_t)bits;
    }
}

/* Factors (0 or scale) of 16 columns. */
static inline void factors_of(uint32_t stays, real scale, real factors[16])
{
    for (uint32_t i = 0; i < 16; i++) factors[i] = stays >> i & 1 ? scale : 0;
}

static void plain_row(const uint16_t *stays, real scale, int64_t n, const T *in, T *out)
{
    real factors[16];
    for (int64_t c = 0; c < n; c += 16) {
        factors_of(stays[c / 16], scale, factors);
        for (int64_t i = 0; i < 16 && c + i < n; i++) STORE(out[c + i], LOAD(in[c + i]) * factors[i]);
    }
}

static void plain_back(const uint16_t *stays, real scale, int64_t n, const T *dy, T *dx, bool fresh)
{
    real factors[16];
    for (int64_t c = 0; c < n; c += 16) {
        factors_of(stays[c / 16], scale, factors);
        for (int64_t i = 0; i < 16 && c + i < n; i++) {
            const real old = fresh ? 0 : LOAD(dx[c + i]);
            STORE(dx[c + i], old + LOAD(dy[c + i]) * factors[i]);
        }
    }
}

/* ---- AVX-512 ---- */

#if defined(F2BI_WIDE)
WIDE_TARGET static void wide_mask(uint32_t words[4][F2BI_DROPOUT_LANES], uint32_t threshold, uint16_t *stays)
{
    const __m512i least = _mm512_set1_epi32((int)threshold), low = _mm512_set1_epi32(0xFFFF);
    for (int q = 0; q < WORDS; q += 2) {
        const __m512i both = _mm512_loadu_si512(words[q / 2]);
        stays[q] = _mm512_cmpge_epu32_mask(_mm512_and_si512(both, low), least);
        stays[q + 1] = _mm512_cmpge_epu32_mask(_mm512_srli_epi32(both, 16), least);
    }
}

WIDE_TARGET static void wide_row(const uint16_t *stays, real scale, int64_t n, const T *in, T *out)
{
    const __m512 factor = _mm512_set1_ps(scale), none = _mm512_setzero_ps();
    for (int64_t c = 0; c < n; c += VL) {
        const __mmask16 there = within(c, n);
        const __m512 by = _mm512_mask_mov_ps(none, stays[c / VL], factor);
        store_some(there, out + c, _mm512_mul_ps(load_some(there, in + c), by));
    }
}

WIDE_TARGET static void wide_back(const uint16_t *stays, real scale, int64_t n, const T *dy, T *dx, bool fresh)
{
    const __m512 factor = _mm512_set1_ps(scale), none = _mm512_setzero_ps();
    for (int64_t c = 0; c < n; c += VL) {
        const __mmask16 there = within(c, n);
        const __m512 old = fresh ? none : load_some(there, dx + c);
        const __m512 by = _mm512_mask_mov_ps(none, stays[c / VL], factor);
        store_some(there, dx + c, _mm512_fmadd_ps(load_some(there, dy + c), by, old));
    }
}
#else
#define wide_mask plain_mask
#define wide_row plain_row
#define wide_back plain_back
#endif

void KERNEL(f2bi_dropout_mask)(const f2b_dropout *d, int64_t row, int64_t n, uint16_t *stays)
{
    const f2b_rng stream = f2bi_dropout_stream(d, row);
    const uint32_t threshold = threshold_of(d);
    const bool wide = IS_WIDE;
    uint32_t words[4][F2BI_DROPOUT_LANES];
    for (int64_t group = 0; group * F2BI_DROPOUT_GROUP < n; group++, stays += WORDS) {
        for (uint64_t half = 0; half < F2BI_DROPOUT_LANES; half += 8)
            f2bi_dropout_blocks(&stream, (uint64_t)group * F2BI_DROPOUT_LANES + half, half, words);
        if (wide) wide_mask(words, threshold, stays);
        else plain_mask(words, threshold, stays);
    }
}

void KERNEL(f2bi_dropout_row)(const f2b_dropout *d, const uint16_t *stays, int64_t n, const T *in, T *out)
{
    if (IS_WIDE) wide_row(stays, scale_of(d), n, in, out);
    else plain_row(stays, scale_of(d), n, in, out);
}

void KERNEL(f2bi_dropout_row_backward)(const f2b_dropout *d, const uint16_t *stays, int64_t n, const T *dy, T *dx,
                                       bool fresh)
{
    if (IS_WIDE) wide_back(stays, scale_of(d), n, dy, dx, fresh);
    else plain_back(stays, scale_of(d), n, dy, dx, fresh);
}
