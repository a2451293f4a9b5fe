/* layer_norm: the harness's cases, values from PyTorch in f64, errors. */
#include "tests/support/check_op.h"

#include "autograd/ops/layer_norm/layer_norm.h"

static int build(f2b_tape *tape, f2b_dtype dtype, f2b_tensor *const *in, const void *context,
                 f2b_tensor **out)
{
    (void)dtype, (void)context;
    return (out[0] = f2b_layer_norm(tape, in[0], in[1], in[2], 1e-5)) != NULL;
}

#define X(...) F2B_ROWS(F2B_CHECK_ACTIVATION, -1, 1, __VA_ARGS__)
#define W(D) F2B_IN(F2B_CHECK_PARAMETER, -1, 1, 1, D)
static const f2b_check_case cases[] = {
    { "layer_norm: one element", build, NULL, 3, { X(2, 1, 1), W(1), W(1) } },
    { "layer_norm: batch", build, NULL, 3, { X(3, 2, 3, 4), W(4), W(4) } },
    { "layer_norm: odd width", build, NULL, 3, { X(2, 3, 33), W(33), W(33) } },
    { "layer_norm: many rows", build, NULL, 3, { X(2, 130, 147), W(147), W(147) } },
    { "layer_norm: far from zero", build, NULL, 3,
      { F2B_ROWS(F2B_CHECK_ACTIVATION, 7, 9, 2, 3, 40), W(40), W(40) }, .bf16_tolerance = 0.05 },
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
    f2b_tensor *x = f2b_check_leaf(F2B_F64, 2, (int64_t[]){ 2, 3 },
                                   (double[]){ 3, 4, -1, 0.5, 2, 8 }, true);
    f2b_tensor *w = f2b_check_leaf(F2B_F64, 1, (int64_t[]){ 3 }, (double[]){ 1, 2, -0.5 }, true);
    f2b_tensor *b = f2b_check_leaf(F2B_F64, 1, (int64_t[]){ 3 }, (double[]){ 0.25, 0, 1 }, true);
    f2b_tensor *y = f2b_layer_norm(tape, x, w, b, 1e-5);
    f2b_check_near(y, (double[]){ 0.712909553912, 1.85163821565, 1.69436433087, -0.675819658906,
                                  -0.925819658906, 0.30563525582 }, 6, 1e-10);
    assert_int_equal(f2b_tape_seed_from(tape, y, (double[]){ 1, 2, 3, 1, 2, 3 }), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    f2b_check_grad_near(x,
                        (double[]){ -0.523527705642, 0.41882484277, 0.104702862872, -0.514343814082,
                                    0.642930539118, -0.128586725036 },
                        6, 1e-10);
    f2b_check_grad_near(w, (double[]){ -0.462910104994, 0.925818556742, 2.47986951063e-06 }, 3,
                        1e-10);
    f2b_check_grad_near(b, (double[]){ 2, 4, 6 }, 3, 0);
    f2b_tape_free(tape);
    f2b_tensor_free(x);
    f2b_tensor_free(w);
    f2b_tensor_free(b);
}

static void errors(void **state)
{
    (void)state;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tensor *x = f2b_tape_tensor(tape, F2B_F32, 2, (int64_t[]){ 2, 3 });
    f2b_tensor *w = f2b_tape_tensor(tape, F2B_F32, 1, (int64_t[]){ 3 });
    f2b_tensor *bad = f2b_tape_tensor(tape, F2B_F16, 2, (int64_t[]){ 1, 3 });
    f2b_check_error(f2b_layer_norm(tape, x, bad, w, 1e-5), F2B_ERR_SHAPE, "w is [1, 3] f16");
    f2b_check_error(f2b_layer_norm(tape, x, w, bad, 1e-5), F2B_ERR_SHAPE, "b is [1, 3] f16");
    f2b_check_error(f2b_layer_norm(tape, x, w, w, -1), F2B_ERR_INVALID, "eps");
    f2b_tensor *f16 = f2b_tape_tensor(tape, F2B_F16, 1, (int64_t[]){ 3 });
    f16->requires_grad = true;
    f2b_check_error(f2b_layer_norm(tape, x, f16, w, 1e-5), F2B_ERR_DTYPE, "keep an f32 copy");
    assert_null(f2b_layer_norm(tape, x, w, NULL, 1e-5));
    f2b_tape_free(tape);
}

F2B_CHECK_MAIN("layer_norm", cmocka_unit_test(holds_for_all_cases), cmocka_unit_test(values),
               cmocka_unit_test(errors))
