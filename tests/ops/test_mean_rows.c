/* mean_rows: the harness's cases, values by hand, errors. */
#include "tests/support/check_op.h"

#include "autograd/ops/mean_rows/mean_rows.h"

static int build(f2b_tape *tape, f2b_dtype dtype, f2b_tensor *const *in, const void *context,
                 f2b_tensor **out)
{
    (void)dtype;
    return (out[0] = f2b_mean_rows(tape, in[0], *(const int64_t *)context)) != NULL;
}

#define X(...) F2B_ROWS(F2B_CHECK_ACTIVATION, -1, 1, __VA_ARGS__)
static const int64_t one = 1, three = 3, sixteen = 16;
static const f2b_check_case cases[] = {
    { "mean_rows: one element", build, &one, 1, { X(2, 1, 1) } },
    { "mean_rows: groups of one", build, &one, 1, { X(2, 3, 7) } },
    { "mean_rows: odd", build, &three, 1, { X(2, 6, 129) } },
    { "mean_rows: many", build, &sixteen, 1, { X(2, 320, 67) } },
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
    f2b_tensor *x = f2b_check_leaf(F2B_F32, 2, (int64_t[]){ 4, 1 }, (double[]){ 3, -2, 1, 8 },
                                   true);
    f2b_tensor *y = f2b_mean_rows(tape, x, 2);
    f2b_check_near(y, (double[]){ 0.5, 4.5 }, 2, 0);
    assert_int_equal(f2b_tape_seed_from(tape, y, (float[]){ 2, 4 }), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    f2b_check_grad_near(x, (double[]){ 1, 1, 2, 2 }, 4, 0);
    f2b_tape_free(tape);
    f2b_tensor_free(x);
}

static void errors(void **state)
{
    (void)state;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tensor *x = f2b_tape_tensor(tape, F2B_F32, 2, (int64_t[]){ 4, 2 });
    f2b_check_error(f2b_mean_rows(tape, x, 3), F2B_ERR_SHAPE,
                    "[4, 2] f32 is not made of groups of 3");
    f2b_check_error(f2b_mean_rows(tape, x, 0), F2B_ERR_INVALID, "groups of 0");
    assert_null(f2b_mean_rows(tape, NULL, 1));
    f2b_tape_free(tape);
}

F2B_CHECK_MAIN("mean_rows", cmocka_unit_test(holds_for_all_cases), cmocka_unit_test(values),
               cmocka_unit_test(errors))
