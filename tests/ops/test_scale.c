/* scale: the harness's cases, values by hand, errors. */
#include "tests/support/check_op.h"

#include "autograd/ops/scale/scale.h"

static int build(f2b_tape *tape, f2b_dtype dtype, f2b_tensor *const *in, const void *context,
                 f2b_tensor **out)
{
    (void)dtype;
    return (out[0] = f2b_scale(tape, in[0], *(const double *)context)) != NULL;
}

#define X(...) F2B_ROWS(F2B_CHECK_ACTIVATION, -1, 1, __VA_ARGS__)
static const double third = 1.0 / 3, zero = 0;
static const f2b_check_case cases[] = {
    { "scale: one element", build, &third, 1, { X(1, 1) } },
    { "scale: odd", build, &third, 1, { X(2, 3, 33) } },
    { "scale: by zero", build, &zero, 1, { X(2, 3, 5) } },
    { "scale: many rows", build, &third, 1, { X(2, 300, 67) } },
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
    f2b_tensor *a = f2b_check_leaf(F2B_F32, 1, (int64_t[]){ 2 }, (double[]){ 3, -2.5 }, true);
    f2b_tensor *y = f2b_scale(tape, a, -2);
    f2b_check_near(y, (double[]){ -6, 5 }, 2, 0);
    assert_int_equal(f2b_tape_seed(tape, y, 3), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    f2b_check_grad_near(a, (double[]){ -6, -6 }, 2, 0);
    f2b_tape_free(tape);
    f2b_tensor_free(a);
}

static void errors(void **state)
{
    (void)state;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tensor *bytes = f2b_tape_tensor(tape, F2B_U8, 1, (int64_t[]){ 2 });
    f2b_check_error(f2b_scale(tape, bytes, 2), F2B_ERR_DTYPE, "scale: x is [2] u8");
    assert_null(f2b_scale(tape, NULL, 2));
    f2b_tape_free(tape);
}

F2B_CHECK_MAIN("scale", cmocka_unit_test(holds_for_all_cases), cmocka_unit_test(values),
               cmocka_unit_test(errors))
