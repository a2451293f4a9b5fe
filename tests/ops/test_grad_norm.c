/* grad_norm: values, threads, bad numbers, errors. */
#include "tests/support/check_op.h"

#include "autograd/ops/grad_norm/grad_norm.h"

#include <math.h>
#include <omp.h>

static f2b_tensor *with_grad(f2b_dtype dtype, int64_t n, double value)
{
    f2b_tensor *x = f2b_tensor_new(F2B_HOST, dtype, 1, &n, F2B_TAG_OTHER);
    x->requires_grad = true;
    assert_int_equal(f2b_tensor_zero_grad(x), F2B_OK);
    for (int64_t i = 0; i < n; i++)
        f2b_convert((char *)x->grad + (size_t)i * f2b_dtype_size(dtype), dtype, &value, F2B_F64, 1);
    return x;
}

static void values(void **state)
{
    (void)state;
    f2b_tensor *a = with_grad(F2B_F32, 9, 2), *b = with_grad(F2B_F64, 20000, 0.5);
    f2b_tensor *none = f2b_check_leaf(F2B_F32, 1, (int64_t[]){ 1 }, (double[]){ 7 }, true);
    double norm;
    assert_int_equal(f2b_grad_norm(F2B_HOST, (f2b_tensor *[]){ a, none, b }, 3, NULL, 0, &norm), F2B_OK);
    assert_true(fabs(norm - sqrt(9 * 4 + 20000 * 0.25)) < 1e-11);
    assert_int_equal(f2b_grad_norm(F2B_HOST, NULL, 0, NULL, 0, &norm), F2B_OK);
    assert_true(norm == 0);
    assert_true(fabs(f2b_clip_factor(4, 1) - 0.25) < 1e-6);
    assert_true(f2b_clip_factor(4, 1) == 1 / (4 + 1e-6));
    assert_true(f2b_clip_factor(0.5, 1) == 1 && f2b_clip_factor(4, 0) == 1);
    f2b_tensor_free(a);
    f2b_tensor_free(b);
    f2b_tensor_free(none);
}

static void threads_do_not_matter(void **state)
{
    (void)state;
    f2b_tensor *x = with_grad(F2B_F32, 100003, 0);
    for (int i = 0; i < 100003; i++) ((float *)x->grad)[i] = (float)(i % 1009) / 997;
    double norm[3];
    for (int threads = 1; threads <= 3; threads++) {
        omp_set_num_threads(threads);
        assert_int_equal(f2b_grad_norm(F2B_HOST, &x, 1, NULL, 0, &norm[threads - 1]), F2B_OK);
    }
    assert_true(norm[0] == norm[1] && norm[0] == norm[2]);
    f2b_tensor_free(x);
}

static void bad_numbers_show(void **state)
{
    (void)state;
    f2b_tensor *x = with_grad(F2B_F32, 50, 1e30);
    const double losses[] = { 0.5, NAN, 2 };
    double norm;
    assert_int_equal(f2b_grad_norm(F2B_HOST, &x, 1, losses, 1, &norm), F2B_OK);
    assert_true(isfinite(norm));
    assert_int_equal(f2b_grad_norm(F2B_HOST, &x, 1, losses, 3, &norm), F2B_OK);
    assert_true(isnan(norm));           /* a number that is watched */
    assert_int_equal(f2b_grad_norm(F2B_HOST, &x, 1, NULL, 0, &norm), F2B_OK);
    assert_true(isfinite(norm));        /* the squares overflow f32, not f64 */
    ((float *)x->grad)[33] = INFINITY;
    assert_int_equal(f2b_grad_norm(F2B_HOST, &x, 1, NULL, 0, &norm), F2B_OK);
    assert_true(isinf(norm));
    ((float *)x->grad)[34] = NAN;
    assert_int_equal(f2b_grad_norm(F2B_HOST, &x, 1, NULL, 0, &norm), F2B_OK);
    assert_true(isnan(norm));
    f2b_tensor_free(x);
}

static void errors(void **state)
{
    (void)state;
    f2b_tensor *x = with_grad(F2B_BF16, 2, 1);
    double norm;
    assert_int_equal(f2b_grad_norm(F2B_HOST, &x, 1, NULL, 0, &norm), F2B_ERR_DTYPE);
    f2b_check_error(NULL, F2B_ERR_DTYPE, "[2] bf16");
    f2b_tensor_free(x);
}

F2B_CHECK_MAIN("grad_norm", cmocka_unit_test(values), cmocka_unit_test(threads_do_not_matter),
               cmocka_unit_test(bad_numbers_show), cmocka_unit_test(errors))
