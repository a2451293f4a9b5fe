/* f2bi_cuda_matmul against plain loops: types, transposes, strides, alpha, beta, bias, empty sums. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "autograd/core/rng.h"
#include "autograd/core/tensor.h"
#include "autograd/device/cuda/matmul.h"
#include "autograd/device/device.h"

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

static void check(const product_case *k)
{
    const int64_t M = k->M, N = k->N, K = k->K, one = 1;
    matrix a = matrix_new(k->type, k->ta ? K : M, k->ta ? M : K, (k->ta ? M : K) + k->gap, 1);
    matrix b = matrix_new(k->type, k->tb ? N : K, k->tb ? K : N, (k->tb ? K : N) + k->gap, 2);
    matrix c = matrix_new(k->c_type, M, N, N + k->gap, 3);
    matrix bias = matrix_new(k->c_type, one, N, N, 4);
    const f2bi_matmul m = { .M = M, .N = N, .K = K, .type = k->type, .a = a.device->data,
                            .lda = a.ld, .a_transposed = k->ta, .b = b.device->data, .ldb = b.ld,
                            .b_transposed = k->tb, .c = c.device->data, .ldc = c.ld,
                            .c_type = k->c_type, .alpha = k->alpha, .beta = k->beta,
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
                want = (double)k->alpha * sum + (k->beta != 0 ? (double)k->beta * want : 0)
                       + (k->bias ? bias.values[j] : 0);
            }
            f2b_convert(&x, F2B_F64, got + (size_t)(i * c.ld + j) * f2b_dtype_size(k->c_type),
                        k->c_type, 1);
            const double tolerance = k->c_type == F2B_BF16 ? 1e-2 : 1e-5;
            if (!(fabs(x - want) <= tolerance * fmax(1, fabs(want))))
                fail_msg("[%d, %d] is %g, not %g", (int)i, (int)j, x, want);
        }
    f2b_free(got);
    matrix_free(&a), matrix_free(&b), matrix_free(&c), matrix_free(&bias);
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
        check(&cases[i]);
        check(&cases[i]);       /* the algorithm is remembered now */
    }
}

/* A sum over nothing is 0, or C itself; a product without rows is nothing. */
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
    m.M = 0, m.K = 5;
    assert_int_equal(f2bi_cuda_matmul(0, &m), F2B_OK);
    matrix_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(products), cmocka_unit_test(empty) };
    return cmocka_run_group_tests_name("cuda_matmul", tests, NULL, NULL);
}
