/* Sums that leave as bf16, where the processor rounds (AVX512_BF16): an eighth of a product of k 512 else. */
#define F2B_KERNEL_BF16
#include "autograd/core/status.h"
#include "autograd/device/cpu/gemm_internal.h"

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
void f2bi_gemm_write_rounded(const f2bi_block_out *o, const float *sums, float alpha, int64_t rows,
                             int64_t n)
{
    const __mmask32 in = n == NR ? ~0u : (1u << n) - 1;
    const __m512 factor = _mm512_set1_ps(alpha), beta = _mm512_set1_ps(o->beta), none = _mm512_setzero_ps();
    const __m512 bias0 = o->bias ? _mm512_maskz_loadu_ps((__mmask16)in, o->bias) : none;
    const __m512 bias1 = o->bias ? _mm512_maskz_loadu_ps((__mmask16)(in >> VL), o->bias + VL) : none;
    for (int64_t i = 0; i < rows; i++) {
        elem *c = (elem *)o->c + i * o->row;
        const elem *from = (const elem *)o->from + i * o->row;
        __m512 s0 = _mm512_fmadd_ps(_mm512_load_ps(sums + i * NR), factor, bias0);
        __m512 s1 = _mm512_fmadd_ps(_mm512_load_ps(sums + i * NR + VL), factor, bias1);
        if (o->beta != 0) {
            const __m512i old = _mm512_maskz_loadu_epi16(in, from);
            const __m256i old0 = _mm512_castsi512_si256(old), old1 = _mm512_extracti64x4_epi64(old, 1);
            s0 = _mm512_fmadd_ps(beta, _mm512_cvtpbh_ps((__m256bh)old0), s0);
            s1 = _mm512_fmadd_ps(beta, _mm512_cvtpbh_ps((__m256bh)old1), s1);
        }
        _mm512_mask_storeu_epi16(c, in, (__m512i)_mm512_cvtne2ps_pbh(s1, s0));
    }
}

#else

void f2bi_gemm_write_rounded(const f2bi_block_out *o, const float *sums, float alpha, int64_t rows, int64_t n)
{
    (void)o, (void)sums, (void)alpha, (void)rows, (void)n;
    F2B_CHECK(!"AVX512_BF16 on a processor of another kind");
}
#endif
