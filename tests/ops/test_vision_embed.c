/* vision_embed: the harness's cases, values by hand, errors. */
#include "tests/support/check_op.h"

#include "autograd/ops/vision_embed/vision_embed.h"

static int build(f2b_tape *tape, f2b_dtype dtype, f2b_tensor *const *in, const void *context,
                 f2b_tensor **out)
{
    (void)dtype, (void)context;
    return (out[0] = f2b_vision_embed(tape, in[0], in[1], in[2])) != NULL;
}

#define X(...) F2B_ROWS(F2B_CHECK_ACTIVATION, -1, 1, 2, __VA_ARGS__)
#define W(...) F2B_IN(F2B_CHECK_PARAMETER, -1, 1, __VA_ARGS__)
static const f2b_check_case cases[] = {
    { "vision_embed: smallest", build, NULL, 3, { X(1, 1), W(1, 1), W(2, 2, 1) } },
    { "vision_embed: odd", build, NULL, 3, { X(12, 33), W(1, 33), W(2, 5, 33) } },
    { "vision_embed: many", build, NULL, 3, { X(100, 257), W(1, 257), W(2, 11, 257) } },
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
    f2b_tensor *x = f2b_check_leaf(F2B_F32, 2, (int64_t[]){ 4, 1 }, (double[]){ 1, 2, 3, 4 }, true);
    f2b_tensor *first = f2b_check_leaf(F2B_F32, 1, (int64_t[]){ 1 }, (double[]){ 100 }, true);
    f2b_tensor *at = f2b_check_leaf(F2B_F32, 2, (int64_t[]){ 3, 1 }, (double[]){ 10, 20, 30 },
                                    true);
    f2b_tensor *y = f2b_vision_embed(tape, x, first, at);
    f2b_check_near(y, (double[]){ 110, 21, 32, 110, 23, 34 }, 6, 0);
    assert_int_equal(f2b_tape_seed_from(tape, y, (float[]){ 1, 2, 3, 4, 5, 6 }), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    f2b_check_grad_near(x, (double[]){ 2, 3, 5, 6 }, 4, 0);
    f2b_check_grad_near(first, (double[]){ 5 }, 1, 0);
    f2b_check_grad_near(at, (double[]){ 5, 7, 9 }, 3, 0);
    f2b_tape_free(tape);
    f2b_tensor_free(x);
    f2b_tensor_free(first);
    f2b_tensor_free(at);
}

static void errors(void **state)
{
    (void)state;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tensor *x = f2b_tape_tensor(tape, F2B_F32, 2, (int64_t[]){ 5, 3 });
    f2b_tensor *first = f2b_tape_tensor(tape, F2B_F32, 1, (int64_t[]){ 3 });
    f2b_tensor *at = f2b_tape_tensor(tape, F2B_F32, 2, (int64_t[]){ 3, 3 });
    f2b_check_error(f2b_vision_embed(tape, x, first, at), F2B_ERR_SHAPE,
                    "positions [3, 3] f32 are not for images that make patches [5, 3] f32");
    f2b_check_error(f2b_vision_embed(tape, x, at, at), F2B_ERR_SHAPE,
                    "class_embedding is [3, 3] f32");
    f2b_check_error(f2b_vision_embed(tape, x, first, first), F2B_ERR_SHAPE, "positions is [3] f32");
    assert_null(f2b_vision_embed(tape, x, NULL, at));
    f2b_tape_free(tape);
}

F2B_CHECK_MAIN("vision_embed", cmocka_unit_test(holds_for_all_cases), cmocka_unit_test(values),
               cmocka_unit_test(errors))
