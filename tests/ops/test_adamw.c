/* adamw: three updates of torch.optim.AdamW, threads, errors. */
#include "tests/support/check_op.h"

#include "autograd/ops/adamw/adamw.h"

#include <math.h>
#include <omp.h>
#include <string.h>

static f2b_adamw settings(int64_t count)
{
    return (f2b_adamw){ .learning_rate = 0.1, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8,
                        .weight_decay = 0.01, .count = count };
}

static void set_grad(f2b_tensor *p, const double *values)
{
    assert_int_equal(f2b_tensor_zero_grad(p), F2B_OK);
    f2b_convert(p->grad, F2B_F32, values, F2B_F64, (size_t)f2b_numel(p));
}

static const int64_t four[] = { 4 };
static const double start[] = { 1, -2, 0.5, 3 }, zeros[4];

static void equals_pytorch(void **state)
{
    (void)state;
    const double grads[3][4] = { { 0.1, -0.2, 3, 0 }, { 0.5, 0.5, -1, 1e-3 }, { 1, 2, 3, 4 } };
    const double want[3][4] = { { 0.899000049, -1.898, 0.399500012, 2.99699998 },
                                { 0.8119964, -1.94032359, 0.359078646, 2.91959047 },
                                { 0.724045813, -2.00895309, 0.292297423, 2.85277534 } };
    f2b_tensor *p = f2b_check_leaf(F2B_F32, 1, four, start, true);
    f2b_tensor *m = f2b_check_leaf(F2B_F32, 1, four, zeros, false);
    f2b_tensor *v = f2b_check_leaf(F2B_F32, 1, four, zeros, false);
    for (int i = 0; i < 3; i++) {
        set_grad(p, grads[i]);
        const f2b_adamw s = settings(i + 1);
        assert_int_equal(f2b_adamw_update(p, m, v, &s), F2B_OK);
        f2b_check_near(p, want[i], 4, 2e-7);
    }
    f2b_check_near(m, (double[]){ 0.153099999, 0.228799999, 0.453000009, 0.400090009 }, 4, 1e-7);
    f2b_check_near(v, (double[]){ 0.00125973008, 0.00428967038, 0.0189810079, 0.0160000026 }, 4,
                   2e-9);
    f2b_tensor_free(p);
    f2b_tensor_free(m);
    f2b_tensor_free(v);
}

/* Clipping doubled gradients to half their norm changes nothing; the gradients themselves stay. */
static void gradients_are_clipped(void **state)
{
    (void)state;
    const double once[] = { 0.1, -0.2, 3, 0 }, twice[] = { 0.2, -0.4, 6, 0 };
    f2b_tensor *x[2][3];
    for (int i = 0; i < 2; i++) {
        for (int k = 0; k < 3; k++)
            x[i][k] = f2b_check_leaf(F2B_F32, 1, four, k ? zeros : start, true);
        set_grad(x[i][0], i == 0 ? once : twice);
        f2b_adamw s = settings(1);
        const double norm = 2;
        s.norm = &norm, s.max_norm = i == 0 ? 3 : 1 + 5e-7;
        assert_int_equal(f2b_adamw_update(x[i][0], x[i][1], x[i][2], &s), F2B_OK);
    }
    f2b_check_grad_near(x[1][0], twice, 4, 1e-7);
    for (int k = 0; k < 3; k++) assert_memory_equal(x[0][k]->data, x[1][k]->data, 16);
    for (int i = 0; i < 6; i++) f2b_tensor_free(x[i / 3][i % 3]);
}

static void bad_norms_change_nothing(void **state)
{
    (void)state;
    const double grads[] = { 0.1, -0.2, 3, 0 }, bad[] = { NAN, INFINITY };
    f2b_tensor *x[3];
    for (int k = 0; k < 3; k++) x[k] = f2b_check_leaf(F2B_F32, 1, four, start, true);
    set_grad(x[0], grads);
    for (int i = 0; i < 2; i++) {
        f2b_adamw s = settings(1);
        s.norm = &bad[i], s.max_norm = 1;
        assert_int_equal(f2b_adamw_update(x[0], x[1], x[2], &s), F2B_OK);
        for (int k = 0; k < 3; k++) f2b_check_near(x[k], start, 4, 0);
    }
    for (int k = 0; k < 3; k++) f2b_tensor_free(x[k]);
}

static void a_bound_holds(void **state)
{
    (void)state;
    const double grads[] = { 5, 5, -5, -5 };
    f2b_tensor *x[3];
    for (int k = 0; k < 3; k++) x[k] = f2b_check_leaf(F2B_F32, 1, four, k ? zeros : start, true);
    set_grad(x[0], grads);
    f2b_adamw s = settings(1);
    s.bounded = true, s.least = 0.75;
    assert_int_equal(f2b_adamw_update(x[0], x[1], x[2], &s), F2B_OK);
    const float *p = x[0]->data;
    assert_true(p[0] > 0.75f && p[1] == 0.75f && p[2] == 0.75f && p[3] > 3);
    for (int k = 0; k < 3; k++) f2b_tensor_free(x[k]);
}

static void threads_do_not_matter(void **state)
{
    (void)state;
    enum { N = 30011 };
    f2b_tensor *x[2][3];
    for (int i = 0; i < 2; i++) {
        for (int k = 0; k < 3; k++) {
            x[i][k] = f2b_tensor_new(F2B_HOST, F2B_F32, 1, (int64_t[]){ N }, F2B_TAG_OTHER);
            for (int e = 0; e < N; e++) ((float *)x[i][k]->data)[e] = (float)(e % 101) / 99;
        }
        x[i][0]->requires_grad = true;
        assert_int_equal(f2b_tensor_zero_grad(x[i][0]), F2B_OK);
        for (int e = 0; e < N; e++) ((float *)x[i][0]->grad)[e] = (float)(e % 77) / 55 - 0.3f;
        const f2b_adamw s = settings(5);
        omp_set_num_threads(i + 1);
        assert_int_equal(f2b_adamw_update(x[i][0], x[i][1], x[i][2], &s), F2B_OK);
    }
    for (int k = 0; k < 3; k++)
        assert_memory_equal(x[0][k]->data, x[1][k]->data, N * sizeof(float));
    for (int i = 0; i < 6; i++) f2b_tensor_free(x[i / 3][i % 3]);
}

static void check_status(f2b_status got, f2b_status want, const char *words)
{
    assert_int_equal(got, want);
    f2b_check_error(NULL, want, words);
}

static void errors(void **state)
{
    (void)state;
    f2b_tensor *p = f2b_check_leaf(F2B_F32, 1, four, start, true);
    f2b_tensor *m = f2b_check_leaf(F2B_F32, 1, four, zeros, false);
    f2b_tensor *odd = f2b_check_leaf(F2B_F32, 2, (int64_t[]){ 2, 2 }, zeros, false);
    f2b_tensor *wide = f2b_check_leaf(F2B_F64, 1, four, zeros, false);
    p->name = "summary_tokens";
    f2b_adamw s = settings(1);
    check_status(f2b_adamw_update(p, m, m, &s), F2B_ERR_INVALID, "summary_tokens has no gradient");
    set_grad(p, zeros);
    check_status(f2b_adamw_update(p, m, odd, &s), F2B_ERR_SHAPE, "[2, 2] f32");
    check_status(f2b_adamw_update(p, wide, m, &s), F2B_ERR_DTYPE, "[4] f64");
    s.count = 0;
    check_status(f2b_adamw_update(p, m, m, &s), F2B_ERR_INVALID, "count from 1");
    f2b_tensor_free(p);
    f2b_tensor_free(m);
    f2b_tensor_free(odd);
    f2b_tensor_free(wide);
}

F2B_CHECK_MAIN("adamw", cmocka_unit_test(equals_pytorch),
               cmocka_unit_test(gradients_are_clipped), cmocka_unit_test(bad_norms_change_nothing),
               cmocka_unit_test(a_bound_holds),
               cmocka_unit_test(threads_do_not_matter), cmocka_unit_test(errors))
