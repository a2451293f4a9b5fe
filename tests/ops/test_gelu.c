/* gelu: the harness's cases, values from PyTorch in f64, errors. */
#include "tests/support/check_op.h"

#include "autograd/ops/gelu/gelu.h"

static int build(f2b_tape *tape, f2b_dtype dtype, f2b_tensor *const *in, const void *context,
                 f2b_tensor **out)
{
    (void)dtype, (void)context;
    return (out[0] = f2b_gelu(tape, in[0])) != NULL;
}

#define X(low, high, ...) F2B_ROWS(F2B_CHECK_ACTIVATION, low, high, __VA_ARGS__)
static const f2b_check_case cases[] = {
    { "gelu: one element", build, NULL, 1, { X(-1, 1, 1, 1) } },
    { "gelu: odd", build, NULL, 1, { X(-4, 4, 2, 3, 33) } },
    { "gelu: far out", build, NULL, 1, { X(-60, 60, 2, 3, 40) } },
    { "gelu: many rows", build, NULL, 1, { X(-2, 2, 2, 300, 67) } },
};

static void holds_for_all_cases(void **state)
{
    (void)state;
    f2b_check_ops(cases, sizeof cases / sizeof *cases);
}

static void values(void **state)
{
    (void)state;
    const double at[] = { -6, -2, -0.5, 0, 0.75, 1, 3 };
    const double want[] = { -5.91952586948e-09, -0.0455002638964, -0.154268769363, 0,
                            0.580029485717,     0.841344746069,   2.99595030591 };
    const double slope[] = { -3.5468709454e-08, -0.0852318010782, 0.132504875344, 0.5,
                             0.999225721739,    1.08331547059,    1.0119456472 };
    const f2b_dtype types[] = { F2B_F32, F2B_F64 };
    for (int t = 0; t < 2; t++) {
        f2b_tape *tape = f2b_tape_new(F2B_HOST);
        f2b_tensor *x = f2b_check_leaf(types[t], 1, (int64_t[]){ 7 }, at, true);
        f2b_tensor *y = f2b_gelu(tape, x);
        f2b_check_near(y, want, 7, t == 0 ? 2e-7 : 1e-11);
        assert_int_equal(f2b_tape_seed(tape, y, 1), F2B_OK);
        assert_int_equal(f2b_tape_backward(tape), F2B_OK);
        f2b_check_grad_near(x, slope, 7, t == 0 ? 2e-7 : 1e-11);
        f2b_tape_free(tape);
        f2b_tensor_free(x);
    }
}

static void errors(void **state)
{
    (void)state;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tensor *ids = f2b_tape_tensor(tape, F2B_I32, 1, (int64_t[]){ 3 });
    f2b_check_error(f2b_gelu(tape, ids), F2B_ERR_DTYPE, "gelu: x is [3] i32");
    assert_null(f2b_gelu(tape, NULL));
    f2b_tape_free(tape);
}

F2B_CHECK_MAIN("gelu", cmocka_unit_test(holds_for_all_cases), cmocka_unit_test(values),
               cmocka_unit_test(errors))
