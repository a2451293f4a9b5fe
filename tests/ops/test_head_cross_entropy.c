/* head_cross_entropy: frozen and trained heads, several chunks, labels out of range. */
#include "tests/support/check_op.h"

#include <math.h>

#include "autograd/ops/head_cross_entropy/head_cross_entropy.h"

static int build(f2b_tape *tape, f2b_dtype dtype, f2b_tensor *const *in, const void *context,
                 f2b_tensor **out)
{
    (void)dtype, (void)context;
    out[0] = f2b_head_cross_entropy(tape, in[0], in[1], in[2]);
    return out[0] != NULL;
}

#define X(rows, d) { F2B_CHECK_ACTIVATION, 2, { rows, d }, -1, 1, NULL, false }
#define W(V, d) { F2B_CHECK_PARAMETER, 2, { V, d }, -1, 1, NULL, false }
#define FROZEN(V, d) { F2B_CHECK_CONSTANT, 2, { V, d }, -1, 1, NULL, false }
#define LABELS(rows, V) { F2B_CHECK_INDEX, 1, { rows }, 0, V, NULL, false }

static const f2b_check_case cases[] = {
    { "one token", build, NULL, 3, { X(1, 1), W(1, 1), LABELS(1, 1) }, 0, 0, 0 },
    { "trained head", build, NULL, 3, { X(5, 7), W(11, 7), LABELS(5, 11) }, 0, 0, 0 },
    { "frozen head, long vocabulary", build, NULL, 3, { X(3, 9), FROZEN(2500, 9), LABELS(3, 2500) },
      0, 0, 0 },
    { "no rows", build, NULL, 3, { X(0, 4), W(6, 4), LABELS(0, 6) }, 0, 0, 0 },
};

static void all_cases(void **state)
{
    (void)state;
    f2b_check_ops(cases, sizeof cases / sizeof *cases);
}

/* x = [1], W = [0 ln3]^T: z = [0 ln3], p = [1/4 3/4]; label 0: loss ln 4, dx = 3/4 ln3. */
static void hand_value(void **state)
{
    (void)state;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tensor *x = f2b_check_leaf(F2B_F32, 2, (int64_t[]){ 1, 1 }, (double[]){ 1 }, true);
    f2b_tensor *w = f2b_check_leaf(F2B_F32, 2, (int64_t[]){ 2, 1 }, (double[]){ 0, log(3) }, true);
    f2b_tensor *zero = f2b_check_index(1, (int64_t[]){ 1 }, (int32_t[]){ 0 });
    f2b_tensor *two = f2b_check_index(1, (int64_t[]){ 1 }, (int32_t[]){ 2 });
    f2b_tensor *loss = f2b_head_cross_entropy(tape, x, w, zero);
    f2b_check_near(loss, (double[]){ log(4) }, 1, 1e-6);
    assert_int_equal(f2b_tape_seed(tape, loss, 2.0), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    f2b_check_grad_near(x, (double[]){ 1.5 * log(3) }, 1, 1e-6);
    f2b_check_grad_near(w, (double[]){ -1.5, 1.5 }, 2, 1e-6);
    f2b_check_error(f2b_head_cross_entropy(tape, x, w, two), F2B_ERR_DATA, "label 2 of row 0");
    f2b_tape_free(tape);
    f2b_tensor_free(x), f2b_tensor_free(w), f2b_tensor_free(zero), f2b_tensor_free(two);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(all_cases), cmocka_unit_test(hand_value) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
