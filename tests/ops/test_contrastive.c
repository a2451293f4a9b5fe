/* contrastive: the harness's cases, values from PyTorch in f64, errors. */
#include "tests/support/check_op.h"

#include "autograd/ops/contrastive/contrastive.h"

#include <math.h>

static int fixed(f2b_tape *tape, f2b_dtype dtype, f2b_tensor *const *in, const void *context,
                 f2b_tensor **out)
{
    (void)dtype;
    return (out[0] = f2b_contrastive(tape, in[0], in[1], NULL, *(const double *)context)) != NULL;
}

static int learned(f2b_tape *tape, f2b_dtype dtype, f2b_tensor *const *in, const void *context,
                   f2b_tensor **out)
{
    (void)dtype, (void)context;
    return (out[0] = f2b_contrastive(tape, in[0], in[1], in[2], 0)) != NULL;
}

#define X(...) F2B_IN(F2B_CHECK_ACTIVATION, -1, 1, 2, __VA_ARGS__)
#define LOG_TAU F2B_IN(F2B_CHECK_PARAMETER, -1, -0.9, 1, 1)
static const double one = 1, half = 0.5, fiftieth = 0.02;
static const f2b_check_case cases[] = {
    { "contrastive: one pair", learned, NULL, 3, { X(1, 5), X(1, 5), LOG_TAU } },
    { "contrastive: one column", fixed, &one, 2, { X(2, 1), X(2, 1) } },
    { "contrastive: odd", fixed, &half, 2, { X(7, 33), X(7, 33) } },
    { "contrastive: learned", learned, NULL, 3, { X(9, 12), X(9, 12), LOG_TAU } },
    { "contrastive: sharp", fixed, &fiftieth, 2, { X(20, 67), X(20, 67) },
      .f32_tolerance = 1e-4, .bf16_tolerance = 0.1 },
    { "contrastive: many", learned, NULL, 3, { X(130, 129), X(130, 129), LOG_TAU },
      .f32_tolerance = 1e-4, .bf16_tolerance = 0.1 },
};

static void holds_for_all_cases(void **state)
{
    (void)state;
    f2b_check_ops(cases, sizeof cases / sizeof *cases);
}

static const double ev[] = { 1, 2, 0.5, -1, 0.25, 3, 2, -2, 1 };
static const double et[] = { 0.5, 1, -1, 0, 1, 2, 1, -1, 1 };

static void values(void **state)
{
    (void)state;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tensor *v = f2b_check_leaf(F2B_F64, 2, (int64_t[]){ 3, 3 }, ev, true);
    f2b_tensor *t = f2b_check_leaf(F2B_F64, 2, (int64_t[]){ 3, 3 }, et, true);
    f2b_tensor *loss = f2b_contrastive(tape, v, t, NULL, 0.5);
    f2b_check_near(loss, (double[]){ 0.791706127153 }, 1, 1e-11);
    assert_int_equal(f2b_tape_seed(tape, loss, 1), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    f2b_check_grad_near(v, (double[]){ -0.039083748658, -0.0736715833092, 0.372853830553,
        0.0242502540422, -0.095098150242, 0.0160082638676, 0.0282611413781, 0.0283269611528,
        0.000131639549401 }, 9, 1e-11);
    f2b_check_grad_near(t, (double[]){ -0.0257346572103, -0.15928366356, -0.172150992165,
        0.208651969084, 0.160995344308, -0.0804976721539, -0.065874612333, 0.121726050187,
        0.18760066252 }, 9, 1e-11);
    f2b_tape_free(tape);
    f2b_tensor_free(v);
    f2b_tensor_free(t);
}

static void learned_values(void **state)
{
    (void)state;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tensor *v = f2b_check_leaf(F2B_F32, 2, (int64_t[]){ 3, 3 }, ev, true);
    f2b_tensor *t = f2b_check_leaf(F2B_F32, 2, (int64_t[]){ 3, 3 }, et, false);
    f2b_tensor *log_tau = f2b_check_leaf(F2B_F32, 1, (int64_t[]){ 1 }, (double[]){ log(0.07) },
                                         true);
    f2b_tensor *loss = f2b_contrastive(tape, v, t, log_tau, 0);
    f2b_check_near(loss, (double[]){ 0.24479365325 }, 1, 1e-6);
    assert_int_equal(f2b_tape_seed(tape, loss, 1), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    f2b_check_grad_near(log_tau, (double[]){ 0.0127433540203 }, 1, 1e-6);
    f2b_check_grad_near(v, (double[]){ -0.364675288652, -0.239258448634, 1.68638437184,
        -0.00572804128434, -0.00876124350796, -0.00117924346912, 1.08834610193e-05,
        -7.05077937117e-06, -3.5868480781e-05 }, 9, 2e-6);
    f2b_tape_free(tape);
    f2b_tensor_free(v);
    f2b_tensor_free(t);
    f2b_tensor_free(log_tau);
}

/* A batch of one is exactly 0 with gradient 0; a row of zeros has cosine 0 and no gradient; the
 * sharpest temperature neither overflows nor loses the loss. */
static void edges(void **state)
{
    (void)state;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tensor *v = f2b_check_leaf(F2B_F32, 2, (int64_t[]){ 1, 9 }, ev, true);
    f2b_tensor *t = f2b_check_leaf(F2B_F32, 2, (int64_t[]){ 1, 9 }, et, true);
    f2b_tensor *loss = f2b_contrastive(tape, v, t, NULL, 0.02);
    assert_true(*(float *)loss->data == 0);
    assert_int_equal(f2b_tape_seed(tape, loss, 1), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    f2b_check_grad_near(v, (double[9]){ 0 }, 9, 0);
    f2b_check_grad_near(t, (double[9]){ 0 }, 9, 0);
    f2b_tape_reset(tape);
    f2b_tensor *z = f2b_check_leaf(F2B_F32, 2, (int64_t[]){ 2, 2 }, (double[]){ 0, 0, 1, 0 }, true);
    f2b_tensor *o = f2b_check_leaf(F2B_F32, 2, (int64_t[]){ 2, 2 }, (double[]){ 1, 0, -1, 0 },
                                   true);
    loss = f2b_contrastive(tape, z, o, NULL, 0.01);
    /* cosines [[0, 0], [1, -1]]: by row ln 2 and 200, by column 100 and 100 */
    f2b_check_near(loss, (double[]){ (log(2) + 200 + 100 + 100) / 2 }, 1, 1e-6);
    assert_int_equal(f2b_tape_seed(tape, loss, 1), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    f2b_check_grad_near(z, (double[4]){ 0 }, 4, 1e-5);      /* et is parallel: nothing turns */
    f2b_tape_free(tape);
    f2b_tensor_free(v);
    f2b_tensor_free(t);
    f2b_tensor_free(z);
    f2b_tensor_free(o);
}

static void errors(void **state)
{
    (void)state;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tensor *a = f2b_tape_tensor(tape, F2B_F32, 2, (int64_t[]){ 2, 3 });
    f2b_tensor *b = f2b_tape_tensor(tape, F2B_F32, 2, (int64_t[]){ 3, 3 });
    f2b_tensor *none = f2b_tape_tensor(tape, F2B_F32, 2, (int64_t[]){ 0, 3 });
    f2b_check_error(f2b_contrastive(tape, a, b, NULL, 1), F2B_ERR_SHAPE,
                    "[2, 3] f32 and [3, 3] f32");
    f2b_check_error(f2b_contrastive(tape, none, none, NULL, 1), F2B_ERR_SHAPE, "no pair");
    f2b_check_error(f2b_contrastive(tape, a, a, NULL, 0), F2B_ERR_INVALID, "got 0");
    f2b_check_error(f2b_contrastive(tape, a, a, b, 1), F2B_ERR_SHAPE,
                    "log_temperature is [3, 3] f32");
    assert_null(f2b_contrastive(tape, NULL, a, NULL, 1));
    f2b_tape_free(tape);
}

F2B_CHECK_MAIN("contrastive", cmocka_unit_test(holds_for_all_cases), cmocka_unit_test(values),
               cmocka_unit_test(learned_values), cmocka_unit_test(edges), cmocka_unit_test(errors))
