/* The GEMM: against plain sums, any strides and types, several terms; and its promise that neither
 * rows beside, nor place, nor threads change a bit, nor where what beta multiplies lies. bf16 in every way
 * that the processor has. */
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
#include "autograd/device/cpu/products.h"
#include "tests/support/amx_trap.h"

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

/* The same product with what was C before given as another matrix: the same bits, whatever C holds, and the
 * other matrix as it was. */
static void check_from(f2b_dtype compute, int64_t M, int64_t N, const f2b_gemm_term *terms, int n_terms,
                       f2b_gemm_out out, const void *want)
{
    const size_t bytes = (size_t)(M * N) * f2b_dtype_size(out.c_type);
    void *from = draw(out.c_type, M * N, 5), *before = draw(out.c_type, M * N, 5), *c = malloc(bytes + 1);
    memset(c, 0xFF, bytes);                 /* NaN */
    out.c = c, out.from = from;
    assert_int_equal(f2bi_gemm(compute, M, N, terms, n_terms, out), F2B_OK);
    assert_memory_equal(c, want, bytes);
    assert_memory_equal(from, before, bytes);
    free(from), free(before), free(c);
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
    const f2b_gemm_out out = { .c = c, .c_type = c_type, .c_row = cr, .c_col = cc, .beta = beta,
                               .bias = bias ? row : NULL, .bias_type = F2B_F32 };
    assert_int_equal(f2bi_gemm(compute, M, N, terms, K2 > 0 ? 2 : 1, out), F2B_OK);
    check_from(compute, M, N, terms, K2 > 0 ? 2 : 1, out, c);
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
                                        { 16, 96, 260 }, { 120, 70, 64 }, { 130, 530, 20 }, { 5, 40, 0 },
                                        { 49, 80, 1100 }, { 20, 64, 1500 }, { 113, 48, 800 } };   /* several passes */
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const int64_t M = sizes[i][0], N = sizes[i][1], K = sizes[i][2];
        for (int t = 0; t < 4; t++) {
            check(F2B_F32, F2B_F32, F2B_F32, F2B_F32, M, N, K, t & 1, t & 2, 3, 0, false, false);
            check(F2B_F64, F2B_F64, F2B_F64, F2B_F64, M, N, K, t & 1, t & 2, 0, 1, true, false);
            check(F2B_F32, F2B_F32, F2B_F32, F2B_F32, M, N, K, t & 1, t & 2, 0, 1, false, false);
            check(F2B_F32, F2B_BF16, F2B_BF16, F2B_BF16, M, N, K, t & 1, t & 2, 5, t & 1, false, false);
        }
        check(F2B_F32, F2B_F32, F2B_F16, F2B_F32, M, N, K, false, true, 2, -0.5, true, true);
        check(F2B_F64, F2B_F32, F2B_F16, F2B_F64, M, N, K, false, false, 0, 0, true, true);
    }
}

/* Runs `test` once for each way to compute products of bf16 that the processor has. */
static void each_family(void (*test)(void))
{
    f2b_amx_trap();
    for (int f = 0; f < F2B_PRODUCTS_COUNT; f++) {
        if (!f2b_products_available(f)) continue;
        assert_int_equal(f2b_products_choose(f2b_products_name(f)), F2B_OK);
        const uint64_t before = f2b_amx_trapped();
        test();
        if (before != f2b_amx_trapped()) assert_int_equal(f, F2B_PRODUCTS_AMX_BF16);
        if (f2b_amx_is_trapped() && f == F2B_PRODUCTS_AMX_BF16) assert_true(before < f2b_amx_trapped());
    }
    assert_int_equal(f2b_products_choose(NULL), F2B_OK);
}

static void plain_sums_of_bf16(void)
{
    static const int64_t sizes[][3] = { { 1, 1, 1 }, { 3, 5, 7 }, { 15, 33, 301 }, { 9, 33, 1025 },
                                        { 16, 97, 60 }, { 120, 70, 14 }, { 30, 530, 8 },
                                        { 17, 31, 513 }, { 33, 48, 1500 }, { 5, 40, 0 },
                                        { 2, 64, 301 }, { 45, 96, 1501 },     /* B where it lies, an odd end */
                                        { 113, 33, 1500 } };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const int64_t M = sizes[i][0], N = sizes[i][1], K = sizes[i][2];
        for (int t = 0; t < 4; t++) {
            check(F2B_BF16, F2B_BF16, F2B_BF16, F2B_F32, M, N, K, t & 1, t & 2, 3, 0, false, false);
            check(F2B_BF16, F2B_F32, F2B_BF16, F2B_BF16, M, N, K, t & 1, t & 2, 6, t & 1, true, false);
            check(F2B_BF16, F2B_BF16, F2B_F32, F2B_F32, M, N, K, t & 1, t & 2, 0, -0.5, true, true);
        }
        check(F2B_BF16, F2B_F16, F2B_F16, F2B_BF16, M, N, K, false, true, 1, 2, false, true);
        check(F2B_BF16, F2B_BF16, F2B_BF16, F2B_F32, M, N, K, false, true, 0, 1, false, false);
    }
}

static void against_plain_sums_bf16(void **state)
{
    (void)state;
    each_family(plain_sums_of_bf16);
}

/* n values that fill the mantissa of f32 (bf16 keeps what it can). */
static void *draw_rough(f2b_dtype type, int64_t n, uint64_t stream)
{
    f2b_rng r = f2b_rng_new(2, F2B_RNG_TEST, stream, 0, 0);
    char *out = calloc((size_t)n + 1, f2b_dtype_size(type));
    for (int64_t i = 0; i < n; i++) {
        const float v = f2b_rng_uniform(&r) - 0.5f;
        f2b_convert(out + (size_t)i * f2b_dtype_size(type), type, &v, F2B_F32, 1);
    }
    return out;
}

/* Rows 0..M-1 at once, alone, a few of them together (as many as any kernel takes), and as part of more rows, with 1, 2
 * and 3 threads; B's lines are its columns or, `lying`, its rows, which few rows of A read where they are. */
enum { MOST_ROWS = 16 };
static void own_rows(f2b_dtype type, f2b_dtype c_type, int64_t M, int64_t N, int64_t K, bool lying)
{
    const int64_t b_row = lying ? N : 1, b_col = lying ? 1 : K;
    const size_t size = f2b_dtype_size(type), c_size = f2b_dtype_size(c_type), part = c_size * (size_t)(M * N);
    char *a = draw_rough(type, 3 * M * K, 1), *b = draw_rough(type, K * N, 2);
    char *c = calloc(3, part), *few = calloc((size_t)(MOST_ROWS * N), c_size);
    memcpy(a + size * (size_t)(M * K), a, size * (size_t)(M * K));
    memcpy(a + size * (size_t)(2 * M * K), a, size * (size_t)(M * K));
    for (int threads = 1; threads <= 3; threads++) {
        omp_set_num_threads(threads);
        const f2b_gemm_term all = { a, type, K, 1, b, type, b_row, b_col, K, 1.0 };
        assert_int_equal(f2bi_gemm(type, 3 * M, N, &all, 1, f2b_gemm_rows(c, c_type, N, 0)), F2B_OK);
        assert_memory_equal(c, c + part, part);
        assert_memory_equal(c, c + 2 * part, part);
        for (int64_t m = 0; m < M; m += 26) {
            const f2b_gemm_term alone = { a + size * (size_t)(m * K), type, K, 1, b, type, b_row, b_col, K, 1.0 };
            assert_int_equal(f2bi_gemm(type, 1, N, &alone, 1, f2b_gemm_rows(few, c_type, N, 0)), F2B_OK);
            assert_memory_equal(few, c + c_size * (size_t)(m * N), c_size * (size_t)N);
        }
        for (int64_t m = 2; m <= MOST_ROWS && m <= M; m++) {
            assert_int_equal(f2bi_gemm(type, m, N, &all, 1, f2b_gemm_rows(few, c_type, N, 0)), F2B_OK);
            assert_memory_equal(few, c, c_size * (size_t)(m * N));
        }
    }
    omp_set_num_threads(2);
    free(a), free(b), free(c), free(few);
}

/* The second: a B larger than a cache, in two passes, which few rows share panel by panel. The others: rows
 * that collide in the cache (cache.h), which are copied where they are many. */
static void own_rows_bf16(void)
{
    own_rows(F2B_BF16, F2B_F32, 131, 77, 601, false);
    own_rows(F2B_BF16, F2B_BF16, 53, 700, 1601, false);
    own_rows(F2B_BF16, F2B_BF16, 53, 77, 2048, false);
    own_rows(F2B_BF16, F2B_F32, 27, 700, 2048, false);
    own_rows(F2B_BF16, F2B_F32, 53, 96, 1601, true);
    own_rows(F2B_BF16, F2B_F32, 31, 70, 35, false);     /* a last panel of which a vector is enough */
    own_rows(F2B_BF16, F2B_BF16, 17, 4, 35, true);
}

static void a_row_is_its_own(void **state)
{
    (void)state;
    own_rows(F2B_F32, F2B_F32, 131, 77, 601, false);
    own_rows(F2B_F32, F2B_BF16, 53, 500, 1100, false);
    own_rows(F2B_F32, F2B_F32, 31, 70, 35, false);
    own_rows(F2B_F64, F2B_F64, 31, 67, 35, false);
    own_rows(F2B_F32, F2B_F32, 17, 4, 35, true);
    own_rows(F2B_F32, F2B_F32, 53, 77, 1024, false);
    own_rows(F2B_F32, F2B_F32, 27, 700, 1024, false);
    own_rows(F2B_F32, F2B_BF16, 53, 80, 1601, true);
    own_rows(F2B_F64, F2B_F64, 53, 80, 1601, true);
    each_family(own_rows_bf16);
}

/* An A that is made: its rows come from here, and those of a second term's A are filled in with them. */
typedef struct source {
    f2b_dtype type;
    const char *a, *second;
    char *filled;
    int64_t K, r;
} source;

static void make_from(const void *user, int64_t first, int64_t rows, void *to, int64_t ld)
{
    const source *s = user;
    const size_t size = f2b_dtype_size(s->type), wide = size * (size_t)s->K, second = size * (size_t)s->r;
    for (int64_t i = 0; i < rows; i++) {
        char *row = (char *)to + size * (size_t)(i * ld);
        memcpy(row, s->a + (size_t)(first + i) * wide, wide);
        if (s->K % 2 != 0) memset(row + wide, 0, size);
        memcpy(s->filled + (size_t)(first + i) * second, s->second + (size_t)(first + i) * second, second);
    }
}

/* Made task by task, or all before, as rows and threads have it: the bits of a product of what is there. */
static void made_rows(f2b_dtype type, f2b_dtype c_type, int64_t M, int64_t N, int64_t K, int64_t r)
{
    const size_t size = f2b_dtype_size(type), c_bytes = f2b_dtype_size(c_type) * (size_t)(M * N);
    char *a = draw_rough(type, M * K, 1), *b = draw_rough(type, N * K, 2), *a2 = draw_rough(type, M * r, 3);
    char *b2 = draw_rough(type, N * r, 4), *want = calloc(1, c_bytes), *got = calloc(1, c_bytes);
    const source from = { type, a, a2, calloc((size_t)(M * r), size), K, r };
    const f2b_gemm_term there[] = { { a, type, K, 1, b, type, 1, K, K, 1.0 }, { a2, type, r, 1, b2, type, 1, r, r, 0.5 } };
    f2b_gemm_term made[] = { { .b = b, .b_type = type, .b_row = 1, .b_col = K, .k = K, .alpha = 1,
                               .make = make_from, .user = &from }, there[1] };
    made[1].a = from.filled;
    assert_int_equal(f2bi_gemm(type, M, N, there, 2, f2b_gemm_rows(want, c_type, N, 0)), F2B_OK);
    for (int threads = 1; threads <= 3; threads++) {
        omp_set_num_threads(threads);
        memset(from.filled, 0xFF, size * (size_t)(M * r));
        memset(got, 0xFF, c_bytes);
        assert_int_equal(f2bi_gemm(type, M, N, made, 2, f2b_gemm_rows(got, c_type, N, 0)), F2B_OK);
        assert_memory_equal(want, got, c_bytes);
        assert_memory_equal(from.filled, a2, size * (size_t)(M * r));
    }
    omp_set_num_threads(2);
    free(a), free(b), free(a2), free(b2), free(want), free(got), free(from.filled);
}

static void made_rows_bf16(void)
{
    made_rows(F2B_BF16, F2B_BF16, 1, 70, 35, 3);
    made_rows(F2B_BF16, F2B_BF16, 600, 33, 1411, 3);    /* two passes */
    made_rows(F2B_BF16, F2B_BF16, 600, 530, 35, 4);     /* more columns than a tile */
    made_rows(F2B_BF16, F2B_F32, 600, 20, 3001, 2);
}

static void rows_that_are_made(void **state)
{
    (void)state;
    made_rows(F2B_F32, F2B_F32, 600, 530, 35, 3);
    made_rows(F2B_F32, F2B_BF16, 470, 33, 1411, 3);
    made_rows(F2B_F64, F2B_F64, 470, 33, 411, 1);
    made_rows(F2B_F32, F2B_F32, 1500, 40, 1100, 2);     /* task by task with three threads, too */
    made_rows(F2B_F32, F2B_F32, 1030, 540, 4000, 2);    /* two slabs of B */
    each_family(made_rows_bf16);
}

/* The products that attention makes itself: the same bits as the whole product's. */
static void blocks_of_bf16(void)
{
    enum { M = 23, N = 70, K = 777, LDA = 780 };
    f2b_bf16 *a = draw_rough(F2B_BF16, M * LDA, 1), *b = draw_rough(F2B_BF16, K * N, 2);
    f2b_bf16 *packed = calloc((size_t)f2bi_gemm_packed_elements_bf16(K, N), sizeof *packed);
    float *want = calloc(M * N, sizeof *want), *got = calloc(M * N, sizeof *got);
    for (int m = 0; m < M; m++) a[m * LDA + K] = 0;
    const f2b_gemm_term t = { a, F2B_BF16, LDA, 1, b, F2B_BF16, N, 1, K, 1.0 };
    assert_int_equal(f2bi_gemm_bf16(M, N, &t, 1, f2b_gemm_rows(want, F2B_F32, N, 0)), F2B_OK);
    f2bi_gemm_pack_bf16(packed, &t, 0, N);
    f2bi_gemm_block_bf16(M, N, K, 1, a, LDA, packed, K, 0, got, N);
    f2bi_gemm_done_bf16();
    assert_memory_equal(want, got, sizeof *want * M * N);
    free(a), free(b), free(packed), free(want), free(got);
}

/* As long as the keys of a long sequence. */
static void long_block_of_bf16(void)
{
    enum { M = 15, N = 20, K = 11003, LDA = 11004 };
    f2b_bf16 *a = draw_rough(F2B_BF16, M * LDA, 1), *b = draw_rough(F2B_BF16, K * N, 2);
    f2b_bf16 *packed = calloc((size_t)f2bi_gemm_packed_elements_bf16(K, N), sizeof *packed);
    float c[M * N];
    for (int m = 0; m < M; m++) a[m * LDA + K] = 0;
    for (int i = 0; i < M * N; i++) c[i] = 8;
    const f2b_gemm_term t = { .b = b, .b_type = F2B_BF16, .b_row = N, .b_col = 1, .k = K };
    f2bi_gemm_pack_bf16(packed, &t, 0, N);
    f2bi_gemm_block_bf16(M, N, K, 0.5f, a, LDA, packed, K, 0.25f, c, N);
    f2bi_gemm_done_bf16();
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++) {
            double want = 2;
            for (int k = 0; k < K; k++)
                want += 0.5 * f2b_bf16_to_f32(a[m * LDA + k]) * f2b_bf16_to_f32(b[k * N + n]);
            assert_true(fabs(c[m * N + n] - want) < 1e-3);
        }
    free(a), free(b), free(packed);
}

static void blocks_alone(void **state)
{
    (void)state;
    each_family(blocks_of_bf16);
    each_family(long_block_of_bf16);
}

/* Infinities and NaN come through; what is too small for a normal f32 may count as nothing. */
static void specials_of_bf16(void)
{
    const float values[3][2] = { { INFINITY, 2 }, { NAN, 1 }, { 1e-39f, 1 } };
    for (int v = 0; v < 3; v++) {
        f2b_bf16 a[4], b[4] = { 0 };
        float c;
        for (int i = 0; i < 4; i++) a[i] = f2b_f32_to_bf16(1);
        a[2] = f2b_f32_to_bf16(values[v][0]);
        b[2] = f2b_f32_to_bf16(values[v][1]);
        const f2b_gemm_term t = { a, F2B_BF16, 4, 1, b, F2B_BF16, 1, 4, 3, 1.0 };
        assert_int_equal(f2bi_gemm_bf16(1, 1, &t, 1, f2b_gemm_rows(&c, F2B_F32, 1, 0)), F2B_OK);
        if (v == 0) assert_true(isinf(c) && c > 0);
        if (v == 1) assert_true(isnan(c));
        if (v == 2) assert_true(c >= 0 && c <= 1.02e-39f);
    }
}

static void specials(void **state)
{
    (void)state;
    each_family(specials_of_bf16);
}

static void names(void **state)
{
    (void)state;
    assert_int_equal(f2b_products_choose("sse"), F2B_ERR_USAGE);
    assert_int_equal(f2b_products_choose("f32"), F2B_OK);
    assert_int_equal(f2b_cpu_products(), F2B_PRODUCTS_F32);
    assert_int_equal(f2b_products_choose(""), F2B_OK);
    assert_true(f2b_products_available(f2b_cpu_products()));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_plain_sums), cmocka_unit_test(against_plain_sums_bf16),
        cmocka_unit_test(a_row_is_its_own), cmocka_unit_test(rows_that_are_made),
        cmocka_unit_test(blocks_alone),
        cmocka_unit_test(specials), cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
