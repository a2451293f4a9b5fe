/* silu_mul: the harness's cases, values from PyTorch in f64, errors. */
#include "tests/support/check_op.h"

#include "autograd/ops/silu_mul/silu_mul.h"

static int build(f2b_tape *tape, f2b_dtype dtype, f2b_tensor *const *in, const void *context,
                 f2b_tensor **out)
{
    (void)dtype, (void)context;
    return (out[0] = f2b_silu_mul(tape, in[0], in[1])) != NULL;
}

#define X(low, high, ...) F2B_ROWS(F2B_CHECK_ACTIVATION, low, high, __VA_ARGS__)
static const f2b_check_case cases[] = {
    { "silu_mul: one element", build, NULL, 2, { X(-1, 1, 1, 1), X(-1, 1, 1, 1) } },
    { "silu_mul: odd", build, NULL, 2, { X(-4, 4, 2, 3, 33), X(-1, 1, 2, 3, 33) } },
    { "silu_mul: far out", build, NULL, 2, { X(-120, 120, 2, 3, 40), X(-1, 1, 2, 3, 40) } },
    { "silu_mul: many rows", build, NULL, 2, { X(-2, 2, 2, 300, 67), X(-2, 2, 2, 300, 67) } },
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
    const int64_t shape[] = { 3 };
    f2b_tensor *gate = f2b_check_leaf(F2B_F32, 1, shape, (double[]){ -2, 0.5, 3 }, true);
    f2b_tensor *up = f2b_check_leaf(F2B_F32, 1, shape, (double[]){ 1.5, -1, 2 }, true);
    f2b_tensor *y = f2b_silu_mul(tape, gate, up);
    f2b_check_near(y, (double[]){ -0.357608766066, -0.311229665601, 5.71544476093 }, 3, 2e-7);
    assert_int_equal(f2b_tape_seed(tape, y, 1), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    f2b_check_grad_near(gate, (double[]){ -0.136176373177, -0.739961187303, 2.17620821203 }, 3,
                        2e-7);
    f2b_check_grad_near(up, (double[]){ -0.238405844044, 0.311229665601, 2.85772238047 }, 3, 2e-7);
    f2b_tape_free(tape);
    f2b_tensor_free(gate);
    f2b_tensor_free(up);
}

static void errors(void **state)
{
    (void)state;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tensor *a = f2b_tape_tensor(tape, F2B_F32, 1, (int64_t[]){ 2 });
    f2b_tensor *b = f2b_tape_tensor(tape, F2B_F32, 1, (int64_t[]){ 3 });
    f2b_tensor *c = f2b_tape_tensor(tape, F2B_BF16, 1, (int64_t[]){ 2 });
    f2b_check_error(f2b_silu_mul(tape, a, b), F2B_ERR_SHAPE, "[2] f32 and [3] f32");
    f2b_check_error(f2b_silu_mul(tape, a, c), F2B_ERR_DTYPE, "[2] bf16");
    assert_null(f2b_silu_mul(tape, a, NULL));
    f2b_tape_free(tape);
}

F2B_CHECK_MAIN("silu_mul", cmocka_unit_test(holds_for_all_cases), cmocka_unit_test(values),
               cmocka_unit_test(errors))
