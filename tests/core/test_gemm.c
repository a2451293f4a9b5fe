/* The GEMM: against plain sums, any strides and types, several terms; and its promise that neither
 * rows beside, nor place, nor threads change a bit. */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/core/rng.h"
#include "autograd/device/cpu/gemm.h"

/* n values in [-1, 1) that bf16 and f16 hold exactly, in the given type. */
static void *draw(f2b_dtype type, int64_t n, uint64_t stream)
{
    f2b_rng r = f2b_rng_new(1, F2B_RNG_TEST, stream, 0, 0);
    char *out = calloc((size_t)n + 1, 8);
    for (int64_t i = 0; i < n; i++) {
        const float v = (float)((int)f2b_rng_below(&r, 129) - 64) / 64.0f;
        f2b_convert(out + (size_t)i * f2b_dtype_size(type), type, &v, F2B_F32, 1);
    }
    return out;
}

static double at(const void *x, f2b_dtype type, int64_t i)
{
    double v;
    f2b_convert(&v, F2B_F64, (const char *)x + (size_t)i * f2b_dtype_size(type), type, 1);
    return v;
}

static void check(f2b_dtype compute, f2b_dtype a_type, f2b_dtype b_type, f2b_dtype c_type, int64_t M,
                  int64_t N, int64_t K, bool ta, bool tb, int64_t K2, double beta, bool bias, bool tc)
{
    void *a = draw(a_type, M * K, 1), *b = draw(b_type, K * N, 2), *a2 = draw(compute, M * K2, 3);
    void *b2 = draw(b_type, K2 * N, 4), *c = draw(c_type, M * N, 5), *row = draw(F2B_F32, N, 6);
    double *want = calloc((size_t)(M * N) + 1, sizeof *want);
    const int64_t cr = tc ? 1 : N, cc = tc ? M : 1;
    for (int64_t m = 0; m < M; m++)
        for (int64_t n = 0; n < N; n++) {
            double s = beta * at(c, c_type, m * cr + n * cc) + (bias ? at(row, F2B_F32, n) : 0);
            for (int64_t k = 0; k < K; k++)
                s += at(a, a_type, ta ? k * M + m : m * K + k) * at(b, b_type, tb ? n * K + k : k * N + n);
            for (int64_t k = 0; k < K2; k++)
                s += 0.5 * at(a2, compute, m * K2 + k) * at(b2, b_type, k * N + n);
            want[m * N + n] = s;
        }
    const f2b_gemm_term terms[] = {
        { a, a_type, ta ? 1 : K, ta ? M : 1, b, b_type, tb ? 1 : N, tb ? K : 1, K, 1.0 },
        { a2, compute, K2, 1, b2, b_type, N, 1, K2, 0.5 },
    };
    assert_int_equal(f2bi_gemm(compute, M, N, terms, K2 > 0 ? 2 : 1,
                               (f2b_gemm_out){ c, c_type, cr, cc, beta, bias ? row : NULL, F2B_F32 }),
                     F2B_OK);
    const double tolerance = c_type == F2B_BF16 ? 0.02 : compute == F2B_F64 ? 1e-12 : 2e-5;
    for (int64_t m = 0; m < M; m++)
        for (int64_t n = 0; n < N; n++) {
            const double got = at(c, c_type, m * cr + n * cc), w = want[m * N + n];
            if (!(fabs(got - w) <= tolerance * (1 + fabs(w))))
                fail_msg("%lldx%lldx%lld at %lld,%lld: %g, not %g", (long long)M, (long long)N,
                         (long long)K, (long long)m, (long long)n, got, w);
        }
    free(a), free(b), free(a2), free(b2), free(c), free(row), free(want);
}

static void against_plain_sums(void **state)
{
    (void)state;
    static const int64_t sizes[][3] = { { 1, 1, 1 }, { 3, 5, 7 }, { 15, 33, 300 }, { 29, 64, 513 },
                                        { 16, 96, 260 }, { 120, 70, 64 }, { 130, 530, 20 }, { 5, 40, 0 } };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const int64_t M = sizes[i][0], N = sizes[i][1], K = sizes[i][2];
        for (int t = 0; t < 4; t++) {
            check(F2B_F32, F2B_F32, F2B_F32, F2B_F32, M, N, K, t & 1, t & 2, 3, 0, false, false);
            check(F2B_F64, F2B_F64, F2B_F64, F2B_F64, M, N, K, t & 1, t & 2, 0, 1, true, false);
            check(F2B_F32, F2B_BF16, F2B_BF16, F2B_BF16, M, N, K, t & 1, t & 2, 5, t & 1, false, false);
        }
        check(F2B_F32, F2B_F32, F2B_F16, F2B_F32, M, N, K, false, true, 2, -0.5, true, true);
        check(F2B_F64, F2B_F32, F2B_F16, F2B_F64, M, N, K, false, false, 0, 0, true, true);
    }
}

/* Rows 0..M-1 at once, each alone, and as part of more rows, with 1, 2 and 3 threads. */
static void a_row_is_its_own(void **state)
{
    (void)state;
    enum { M = 131, N = 77, K = 600 };
    float *a = draw(F2B_F32, 3 * M * K, 1), *b = draw(F2B_F32, K * N, 2);
    float *c = calloc((size_t)3 * M * N, sizeof *c), *one = calloc(N, sizeof *one);
    for (int64_t i = 0; i < 3 * M * K; i++) a[i] *= 1.0f + 1e-3f * (float)(i % 97);
    memcpy(a + M * K, a, sizeof *a * M * K);
    memcpy(a + 2 * M * K, a, sizeof *a * M * K);
    for (int threads = 1; threads <= 3; threads++) {
        omp_set_num_threads(threads);
        const f2b_gemm_term all = { a, F2B_F32, K, 1, b, F2B_F32, 1, K, K, 1.0 };
        assert_int_equal(f2bi_gemm_f32(3 * M, N, &all, 1, (f2b_gemm_out){ c, F2B_F32, N, 1, 0, NULL, 0 }),
                         F2B_OK);
        assert_memory_equal(c, c + M * N, sizeof *c * M * N);
        assert_memory_equal(c, c + 2 * M * N, sizeof *c * M * N);
        for (int64_t m = 0; m < M; m += 10) {
            const f2b_gemm_term alone = { a + m * K, F2B_F32, K, 1, b, F2B_F32, 1, K, K, 1.0 };
            assert_int_equal(f2bi_gemm_f32(1, N, &alone, 1,
                                           (f2b_gemm_out){ one, F2B_F32, N, 1, 0, NULL, 0 }), F2B_OK);
            assert_memory_equal(one, c + m * N, sizeof *one * N);
        }
    }
    omp_set_num_threads(2);
    free(a), free(b), free(c), free(one);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(against_plain_sums),
                                        cmocka_unit_test(a_row_is_its_own) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
