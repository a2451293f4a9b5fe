/* mul: the harness's cases, values by hand, errors. */
#include "tests/support/check_op.h"

#include "autograd/ops/mul/mul.h"

static int build(f2b_tape *tape, f2b_dtype dtype, f2b_tensor *const *in, const void *context,
                 f2b_tensor **out)
{
    (void)dtype, (void)context;
    return (out[0] = f2b_mul(tape, in[0], in[1])) != NULL;
}

#define X(...) F2B_ROWS(F2B_CHECK_ACTIVATION, -1, 1, __VA_ARGS__)
static const f2b_check_case cases[] = {
    { "mul: one element", build, NULL, 2, { X(1, 1), X(1, 1) } },
    { "mul: odd", build, NULL, 2, { X(2, 3, 33), X(2, 3, 33) } },
    { "mul: many rows", build, NULL, 2, { X(2, 300, 67), X(2, 300, 67) } },
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
    f2b_tensor *y = f2b_mul(tape, a, a);
    f2b_check_near(y, (double[]){ 9, 6.25 }, 2, 0);
    assert_int_equal(f2b_tape_seed(tape, y, 1), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    f2b_check_grad_near(a, (double[]){ 6, -5 }, 2, 0);      /* both uses of one tensor */
    f2b_tape_free(tape);
    f2b_tensor_free(a);
}

static void errors(void **state)
{
    (void)state;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tensor *a = f2b_tape_tensor(tape, F2B_F32, 1, (int64_t[]){ 2 });
    f2b_tensor *b = f2b_tape_tensor(tape, F2B_F32, 2, (int64_t[]){ 1, 2 });
    f2b_tensor *c = f2b_tape_tensor(tape, F2B_BF16, 1, (int64_t[]){ 2 });
    f2b_check_error(f2b_mul(tape, a, b), F2B_ERR_SHAPE, "[2] f32 and [1, 2] f32");
    f2b_check_error(f2b_mul(tape, a, c), F2B_ERR_DTYPE, "[2] bf16");
    assert_null(f2b_mul(tape, NULL, a));
    f2b_tape_free(tape);
}

F2B_CHECK_MAIN("mul", cmocka_unit_test(holds_for_all_cases), cmocka_unit_test(values),
               cmocka_unit_test(errors))
