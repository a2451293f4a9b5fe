/* rms_norm: the harness's cases, values from PyTorch in f64, errors. */
#include "tests/support/check_op.h"

#include "autograd/ops/rms_norm/rms_norm.h"

static int build(f2b_tape *tape, f2b_dtype dtype, f2b_tensor *const *in, const void *context,
                 f2b_tensor **out)
{
    (void)dtype, (void)context;
    return (out[0] = f2b_rms_norm(tape, in[0], in[1], 1e-5)) != NULL;
}

#define X(...) F2B_ROWS(F2B_CHECK_ACTIVATION, -1, 1, __VA_ARGS__)
#define W(D) F2B_IN(F2B_CHECK_PARAMETER, -1, 1, 1, D)
static const f2b_check_case cases[] = {
    { "rms_norm: one element", build, NULL, 2, { X(2, 1, 1), W(1) } },
    { "rms_norm: batch", build, NULL, 2, { X(3, 2, 3, 4), W(4) } },
    { "rms_norm: odd width", build, NULL, 2, { X(2, 3, 33), W(33) } },
    { "rms_norm: many rows", build, NULL, 2, { X(2, 130, 147), W(147) } },
    { "rms_norm: eps weighs", build, NULL, 2,
      { F2B_ROWS(F2B_CHECK_ACTIVATION, -0.01, 0.01, 2, 2, 40), W(40) },
      .gradcheck_tolerance = 1e-5 },
};

static void holds_for_all_cases(void **state)
{
    (void)state;
    f2b_check_ops(cases, sizeof cases / sizeof *cases);
}

static void values(void **state)
{
    (void)state;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tensor *x = f2b_check_leaf(F2B_F32, 2, (int64_t[]){ 2, 2 }, (double[]){ 3, 4, -1, 0.5 },
                                   true);
    f2b_tensor *w = f2b_check_leaf(F2B_F32, 1, (int64_t[]){ 2 }, (double[]){ 1, 2 }, true);
    f2b_tensor *y = f2b_rms_norm(tape, x, w, 1.0);
    f2b_check_near(y, (double[]){ 0.816496580928, 2.17732421581, -0.784464540553, 0.784464540553 },
                   4, 1e-6);
    assert_int_equal(f2b_tape_seed(tape, y, 1), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    f2b_check_grad_near(x, (double[]){ -0.0604812282169, 0.100802047028, 0.784464540553,
                                       1.56892908111 }, 4, 1e-6);
    f2b_check_grad_near(w, (double[]){ 0.032032040375, 1.48089437818 }, 2, 1e-6);
    f2b_tape_free(tape);
    f2b_tensor_free(x);
    f2b_tensor_free(w);
}

/* x * rstd rounds to bf16 before it meets the weight, as in Hugging Face's module: PyTorch's
 * values. Rounding once would give 0.486328125 and 2.421875. */
static void bf16_rounds_before_the_weight(void **state)
{
    (void)state;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tensor *x = f2b_check_leaf(F2B_BF16, 1, (int64_t[]){ 2 }, (double[]){ 1, 5 }, false);
    f2b_tensor *w = f2b_check_leaf(F2B_F32, 1, (int64_t[]){ 2 }, (double[]){ 1.75, 1.75 }, false);
    f2b_check_near(f2b_rms_norm(tape, x, w, 1e-6), (double[]){ 0.484375, 2.4375 }, 2, 0);
    f2b_tape_free(tape);
    f2b_tensor_free(x);
    f2b_tensor_free(w);
}

static void errors(void **state)
{
    (void)state;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tensor *x = f2b_tape_tensor(tape, F2B_F32, 2, (int64_t[]){ 2, 3 });
    f2b_tensor *w = f2b_tape_tensor(tape, F2B_F32, 1, (int64_t[]){ 2 });
    f2b_tensor *ids = f2b_tape_tensor(tape, F2B_I32, 1, (int64_t[]){ 3 });
    f2b_check_error(f2b_rms_norm(tape, x, w, 1e-5), F2B_ERR_SHAPE, "w is [2] f32, but must be [3]");
    f2b_check_error(f2b_rms_norm(tape, x, w, 0), F2B_ERR_INVALID, "eps");
    f2b_check_error(f2b_rms_norm(tape, x, ids, 1e-5), F2B_ERR_DTYPE, "float type");
    f2b_check_error(f2b_rms_norm(tape, ids, w, 1e-5), F2B_ERR_DTYPE, "x is [3] i32");
    assert_null(f2b_rms_norm(tape, NULL, w, 1e-5));
    f2b_tape_free(tape);
}

F2B_CHECK_MAIN("rms_norm", cmocka_unit_test(holds_for_all_cases), cmocka_unit_test(values),
               cmocka_unit_test(bf16_rounds_before_the_weight), cmocka_unit_test(errors))
