/* f2bi_cuda_matmul against plain loops: types, transposes, strides, alpha, beta, bias, empty sums; fp8
 * with scales by cuBLASLt and by our own kernel; what is asked of cuBLASLt and how often. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "autograd/core/e4m3.h"
#include "autograd/core/rng.h"
#include "autograd/core/tensor.h"
#include "autograd/device/cuda/matmul.h"
#include "autograd/device/device.h"
#include "tests/emulation/emulation.h"

/* A real device (tests/gpu/gpu_tests.c) has none of it: the tests that turn its knobs are left out there. */
void f2b_emulation_set_capability(int capability) F2B_WEAK;
void f2b_emulation_refuse_late(int on) F2B_WEAK;
f2b_emulation_counts f2b_emulation_read_counts(void) F2B_WEAK;

static const f2b_device cuda = { F2B_CUDA, 0 };

typedef struct matrix {
    f2b_tensor *device;
    double *values;             /* what the device holds, exactly */
    int64_t ld;
} matrix;

static matrix matrix_new(f2b_dtype type, int64_t rows, int64_t columns, int64_t ld, uint64_t seed)
{
    (void)columns;
    const int64_t n = rows * ld;
    matrix m = { f2b_tensor_new(cuda, type, 1, &n, F2B_TAG_OTHER),
                 f2b_calloc((size_t)n, sizeof(double), F2B_TAG_OTHER), ld };
    void *host = f2b_alloc_host((size_t)n * 8, F2B_TAG_OTHER);
    assert_non_null(m.device);
    f2b_rng r = f2b_rng_new(seed, F2B_RNG_TEST, 0, 0, 0);
    for (int64_t i = 0; i < n; i++) m.values[i] = 2 * f2b_rng_uniform(&r) - 1;
    f2b_convert(host, type, m.values, F2B_F64, (size_t)n);
    assert_int_equal(f2b_tensor_write(m.device, host), F2B_OK);
    f2b_convert(m.values, F2B_F64, host, type, (size_t)n);
    f2b_free(host);
    return m;
}

static void matrix_free(matrix *m)
{
    f2b_tensor_free(m->device);
    f2b_free(m->values);
}

typedef struct product_case {
    int64_t M, N, K;
    f2b_dtype type, c_type;
    bool ta, tb, bias;
    float alpha, beta;
    int64_t gap;                /* columns between rows that are not part of the matrix */
} product_case;

/* `apart`: what beta multiplies is another matrix than C, which holds what nobody may read. */
static void check(const product_case *k, bool apart)
{
    const int64_t M = k->M, N = k->N, K = k->K, one = 1;
    matrix a = matrix_new(k->type, k->ta ? K : M, k->ta ? M : K, (k->ta ? M : K) + k->gap, 1);
    matrix b = matrix_new(k->type, k->tb ? N : K, k->tb ? K : N, (k->tb ? K : N) + k->gap, 2);
    matrix c = matrix_new(k->c_type, M, N, N + k->gap, 3);
    matrix bias = matrix_new(k->c_type, one, N, N, 4), other = matrix_new(k->c_type, M, N, N + k->gap, 5);
    const double *from = apart ? other.values : c.values;
    const f2bi_matmul m = { .M = M, .N = N, .K = K, .type = k->type, .a = a.device->data,
                            .lda = a.ld, .a_transposed = k->ta, .b = b.device->data, .ldb = b.ld,
                            .b_transposed = k->tb, .c = c.device->data, .ldc = c.ld,
                            .c_type = k->c_type, .alpha = k->alpha, .beta = k->beta,
                            .from = apart ? other.device->data : NULL,
                            .bias = k->bias ? bias.device->data : NULL };
    if (f2bi_cuda_matmul(0, &m) != F2B_OK) fail_msg("%s", f2b_last_error());
    char *got = f2b_alloc_host(f2b_tensor_bytes(c.device), F2B_TAG_OTHER);
    assert_int_equal(f2b_tensor_read(c.device, got), F2B_OK);
    for (int64_t i = 0; i < M; i++)
        for (int64_t j = 0; j < c.ld; j++) {
            double want = c.values[i * c.ld + j], x;
            if (j < N) {
                double sum = 0;
                for (int64_t l = 0; l < K; l++)
                    sum += a.values[k->ta ? l * a.ld + i : i * a.ld + l]
                           * b.values[k->tb ? j * b.ld + l : l * b.ld + j];
                want = (double)k->alpha * sum + (k->beta != 0 ? (double)k->beta * from[i * c.ld + j] : 0)
                       + (k->bias ? bias.values[j] : 0);
            }
            f2b_convert(&x, F2B_F64, got + (size_t)(i * c.ld + j) * f2b_dtype_size(k->c_type),
                        k->c_type, 1);
            const double tolerance = k->c_type == F2B_BF16 ? 1e-2 : 1e-5;
            if (!(fabs(x - want) <= tolerance * fmax(1, fabs(want))))
                fail_msg("[%d, %d] is %g, not %g", (int)i, (int)j, x, want);
        }
    f2b_free(got);
    matrix_free(&a), matrix_free(&b), matrix_free(&c), matrix_free(&bias), matrix_free(&other);
}

static void products(void **state)
{
    (void)state;
    const product_case cases[] = {
        { 1, 1, 1, F2B_F32, F2B_F32, false, false, false, 1, 0, 0 },
        { 5, 7, 3, F2B_F32, F2B_F32, false, false, true, 1, 0, 0 },
        { 33, 17, 40, F2B_F32, F2B_F32, false, true, false, 2, 1, 3 },
        { 33, 17, 40, F2B_F32, F2B_F32, true, false, true, 1, 0.5f, 1 },
        { 20, 50, 64, F2B_BF16, F2B_BF16, false, true, true, 1, 0, 0 },
        { 20, 50, 64, F2B_BF16, F2B_F32, true, false, false, 0.5f, 1, 0 },
        { 20, 50, 64, F2B_BF16, F2B_BF16, true, true, false, 1, 1, 5 },
        { 9, 12, 31, F2B_F16, F2B_F32, false, true, false, 1, 0, 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check(&cases[i], false);
        check(&cases[i], true);
        check(&cases[i], true);       /* the algorithm is remembered now */
    }
}

/* A sum over nothing is 0, or C itself, or what is given instead; a product without rows is nothing. */
static void empty(void **state)
{
    (void)state;
    matrix c = matrix_new(F2B_F32, 3, 4, 6, 1);
    f2bi_matmul m = { .M = 3, .N = 4, .K = 0, .type = F2B_F32, .c = c.device->data, .ldc = 6,
                      .c_type = F2B_F32, .alpha = 1, .beta = 1 };
    float got[18];
    assert_int_equal(f2bi_cuda_matmul(0, &m), F2B_OK);
    assert_int_equal(f2b_tensor_read(c.device, got), F2B_OK);
    for (int i = 0; i < 18; i++) assert_true((double)got[i] == c.values[i]);
    m.beta = 0;
    assert_int_equal(f2bi_cuda_matmul(0, &m), F2B_OK);
    assert_int_equal(f2b_tensor_read(c.device, got), F2B_OK);
    for (int i = 0; i < 18; i++) assert_true((double)got[i] == (i % 6 < 4 ? 0 : c.values[i]));
    matrix other = matrix_new(F2B_F32, 3, 4, 6, 2);
    m.beta = 1, m.from = other.device->data;
    assert_int_equal(f2bi_cuda_matmul(0, &m), F2B_OK);
    assert_int_equal(f2b_tensor_read(c.device, got), F2B_OK);
    for (int i = 0; i < 18; i++) assert_true((double)got[i] == (i % 6 < 4 ? other : c).values[i]);
    m.M = 0, m.K = 5;
    assert_int_equal(f2bi_cuda_matmul(0, &m), F2B_OK);
    matrix_free(&c), matrix_free(&other);
}

/* ---- fp8 ---- */

typedef struct fp8_case { int64_t M, N, K; bool bias, fast; float alpha, beta; } fp8_case;

/* Random codes of e4m3, none of them NaN, as bytes; their values in m.values. */
static matrix codes_new(int64_t rows, int64_t columns, uint64_t seed)
{
    const int64_t n = rows * columns;
    matrix m = { f2b_tensor_new(cuda, F2B_U8, 1, &n, F2B_TAG_OTHER),
                 f2b_calloc((size_t)n, sizeof(double), F2B_TAG_OTHER), columns };
    f2b_e4m3 *host = f2b_alloc_host((size_t)n, F2B_TAG_OTHER);
    f2b_rng r = f2b_rng_new(seed, F2B_RNG_TEST, 0, 0, 0);
    for (int64_t i = 0; i < n; i++) {
        host[i] = f2b_f32_to_e4m3(448 * (2 * f2b_rng_uniform(&r) - 1));
        m.values[i] = (double)f2b_e4m3_to_f32(host[i]);
    }
    assert_int_equal(f2b_tensor_write(m.device, host), F2B_OK);
    f2b_free(host);
    return m;
}

/* The error's part of a bf16 result is 2^-8 a rounding. */
static void check_fp8_from(const fp8_case *k, double roundings, bool apart)
{
    matrix a = codes_new(k->M, k->K, 1), b = codes_new(k->N, k->K, 2);
    matrix sa = matrix_new(F2B_F32, 1, k->M, k->M, 3), sb = matrix_new(F2B_F32, 1, k->N, k->N, 4);
    matrix c = matrix_new(F2B_BF16, k->M, k->N, k->N, 5), bias = matrix_new(F2B_BF16, 1, k->N, k->N, 6);
    matrix other = matrix_new(F2B_BF16, k->M, k->N, k->N, 7);
    const double *from = apart ? other.values : c.values;
    const f2bi_matmul m = { .M = k->M, .N = k->N, .K = k->K, .type = F2B_FP8, .a = a.device->data,
                            .lda = k->K, .b = b.device->data, .ldb = k->K, .b_transposed = true,
                            .c = c.device->data, .ldc = k->N, .c_type = F2B_BF16, .alpha = k->alpha,
                            .beta = k->beta, .bias = k->bias ? bias.device->data : NULL,
                            .a_scales = sa.device->data, .b_scales = sb.device->data,
                            .from = apart ? other.device->data : NULL, .fast = k->fast };
    if (f2bi_cuda_matmul(0, &m) != F2B_OK) fail_msg("%s", f2b_last_error());
    f2b_bf16 *got = f2b_alloc_host(f2b_tensor_bytes(c.device), F2B_TAG_OTHER);
    assert_int_equal(f2b_tensor_read(c.device, got), F2B_OK);
    for (int64_t i = 0; i < k->M; i++)
        for (int64_t j = 0; j < k->N; j++) {
            double sum = 0;
            for (int64_t l = 0; l < k->K; l++) sum += a.values[i * k->K + l] * b.values[j * k->K + l];
            const double product = (double)k->alpha * sa.values[i] * sb.values[j] * sum;
            const double added = (double)k->beta * from[i * k->N + j] + (k->bias ? bias.values[j] : 0);
            const double x = (double)f2b_bf16_to_f32(got[i * k->N + j]), want = product + added;
            const double within = 0x1.01p-8 * (fabs(want) + (roundings - 1) * fabs(product)) + 1e-6;
            if (!(fabs(x - want) <= within)) fail_msg("[%d, %d] is %g, not %g", (int)i, (int)j, x, want);
        }
    f2b_free(got);
    matrix_free(&a), matrix_free(&b), matrix_free(&c), matrix_free(&bias);
    matrix_free(&sa), matrix_free(&sb), matrix_free(&other);
}

static void check_fp8(const fp8_case *k, double roundings)
{
    for (int apart = 0; apart < 2; apart++) check_fp8_from(k, roundings, apart);
}

static void fp8_products(void **state)
{
    (void)state;
    if (f2b_emulation_set_capability == NULL) skip();
    const fp8_case cases[] = {
        { 1, 16, 16, false, false, 1, 0 },   { 33, 48, 80, false, true, 1, 1 },
        { 7, 64, 32, true, true, 0.5f, 0 },  { 20, 32, 400, true, false, 2, 1 },
        { 3, 2064, 16, true, false, 1, 1 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_fp8(&cases[i], 1);
    f2b_emulation_refuse_late(1);           /* remembered shapes first, then some that are not */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_fp8(&cases[i], 2);
    check_fp8(&(fp8_case){ 5, 16, 48, true, false, 1, 1 }, 2);
    f2b_emulation_refuse_late(0);
    f2b_emulation_set_capability(89);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fp8_case other = cases[i];
        other.M += 100;
        check_fp8(&other, 2);
    }
    f2b_emulation_set_capability(90);
}

/* What no device takes, and a device that takes none, are errors that name the product. */
static void fp8_refusals(void **state)
{
    (void)state;
    if (f2b_emulation_set_capability == NULL) skip();
    matrix a = codes_new(4, 40, 1), b = codes_new(32, 40, 2), c = matrix_new(F2B_BF16, 4, 32, 32, 3);
    matrix scales = matrix_new(F2B_F32, 1, 32, 32, 4);
    f2bi_matmul m = { .M = 4, .N = 32, .K = 40, .type = F2B_FP8, .a = a.device->data, .lda = 40,
                      .b = b.device->data, .ldb = 40, .b_transposed = true, .c = c.device->data,
                      .ldc = 32, .c_type = F2B_BF16, .alpha = 1, .a_scales = scales.device->data,
                      .b_scales = scales.device->data };
    assert_int_equal(f2bi_cuda_matmul(0, &m), F2B_ERR_DEVICE);
    assert_non_null(strstr(f2b_last_error(), "[4, 40] times [40, 32] fp8"));
    f2b_emulation_set_capability(80);
    m.K = m.lda = m.ldb = 32;
    assert_int_equal(f2bi_cuda_matmul(0, &m), F2B_ERR_DEVICE);
    f2b_emulation_set_capability(90);
    assert_int_equal(f2bi_cuda_matmul(0, &m), F2B_OK);      /* the refusal was not remembered */
    matrix_free(&a), matrix_free(&b), matrix_free(&c), matrix_free(&scales);
}

/* A shape is asked for once, whatever its operands' places; more shapes than are remembered work. */
static void remembered(void **state)
{
    (void)state;
    if (f2b_emulation_set_capability == NULL) skip();
    matrix a = matrix_new(F2B_F32, 8, 8, 8, 1), b = matrix_new(F2B_F32, 8, 8, 8, 2);
    matrix c = matrix_new(F2B_F32, 700, 8, 8, 3);
    f2bi_matmul m = { .M = 2, .N = 8, .K = 8, .type = F2B_F32, .a = a.device->data, .lda = 8,
                      .b = b.device->data, .ldb = 8, .c = c.device->data, .ldc = 8, .c_type = F2B_F32,
                      .alpha = 1, .bias = b.device->data };
    const int64_t before = f2b_emulation_read_counts().heuristics;
    for (int i = 0; i < 20; i++) {
        m.alpha = (float)i;
        m.bias = (i % 2 ? a : b).device->data;
        assert_int_equal(f2bi_cuda_matmul(0, &m), F2B_OK);
    }
    assert_int_equal(f2b_emulation_read_counts().heuristics, before + 1);
    float got[16];
    assert_int_equal(f2b_copy(got, F2B_HOST, c.device->data, cuda, sizeof got), F2B_OK);
    for (int j = 0; j < 8; j++) {
        double want = a.values[j];
        for (int l = 0; l < 8; l++) want += 19 * a.values[l] * b.values[l * 8 + j];
        assert_true(fabs((double)got[j] - want) < 1e-4);
    }
    m.a = c.device->data, m.bias = NULL;
    for (m.M = 1; m.M <= 700; m.M++) assert_int_equal(f2bi_cuda_matmul(0, &m), F2B_OK);
    assert_int_equal(f2b_device_wait(cuda), F2B_OK);
    matrix_free(&a), matrix_free(&b), matrix_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(products), cmocka_unit_test(empty),
                                        cmocka_unit_test(fp8_products), cmocka_unit_test(fp8_refusals),
                                        cmocka_unit_test(remembered) };
    return cmocka_run_group_tests_name("cuda_matmul", tests, NULL, NULL);
}
