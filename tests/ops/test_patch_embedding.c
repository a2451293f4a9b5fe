/* patch_embedding: the harness's cases, values from PyTorch in f64, errors. */
#include "tests/support/check_op.h"

#include "autograd/ops/patch_embedding/patch_embedding.h"

static int build(f2b_tape *tape, f2b_dtype dtype, f2b_tensor *const *in, const void *context,
                 f2b_tensor **out)
{
    (void)context;
    return (out[0] = f2b_patch_embedding(tape, in[0], in[1], dtype)) != NULL;
}

#define IMAGES(...) F2B_ROWS(F2B_CHECK_DATA, -1, 1, 4, __VA_ARGS__)
#define W(...) F2B_IN(F2B_CHECK_PARAMETER, -1, 1, 4, __VA_ARGS__)
static const f2b_check_case cases[] = {
    { "patch_embedding: one pixel", build, NULL, 2, { IMAGES(1, 1, 1, 1), W(1, 1, 1, 1) } },
    { "patch_embedding: no image", build, NULL, 2, { IMAGES(0, 3, 4, 4), W(5, 3, 2, 2) } },
    { "patch_embedding: one patch", build, NULL, 2, { IMAGES(2, 3, 3, 3), W(7, 3, 3, 3) } },
    { "patch_embedding: grid", build, NULL, 2, { IMAGES(3, 3, 8, 8), W(17, 3, 2, 2) } },
    { "patch_embedding: many images", build, NULL, 2, { IMAGES(11, 3, 15, 15), W(33, 3, 5, 5) },
      .f32_tolerance = 3e-5 },
};

static void holds_for_all_cases(void **state)
{
    (void)state;
    f2b_check_ops(cases, sizeof cases / sizeof *cases);
}

static void values(void **state)
{
    (void)state;
    double pixels[64], weight[24], up[24];
    for (int i = 0; i < 64; i++) pixels[i] = i / 10.0;
    for (int i = 0; i < 24; i++) weight[i] = i % 7 - 3, up[i] = i % 5 - 2;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tensor *x = f2b_check_leaf(F2B_F64, 4, (int64_t[]){ 2, 2, 4, 4 }, pixels, false);
    f2b_tensor *w = f2b_check_leaf(F2B_F64, 4, (int64_t[]){ 3, 2, 2, 2 }, weight, true);
    f2b_tensor *y = f2b_patch_embedding(tape, x, w, F2B_F64);
    f2b_check_near(y, (double[]){ 4.1, -1.5, -5, 3.5, -1.9, -5.2, 1.7, -3.1, -5.8, 1.1, -3.5, -6,
                                  -5.5, -7.9, -8.2, -6.1, -8.3, -8.4, -7.9, -9.5, -9, -8.5, -9.9,
                                  -9.2 }, 24, 1e-12);
    assert_int_equal(f2b_tape_seed_from(tape, y, up), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    f2b_check_grad_near(w, (double[]){ -5.6, -5.8, -6.4, -6.6, -8.8, -9, -9.6, -9.8, 6.2, 6.3, 6.6,
                                       6.7, 7.8, 7.9, 8.2, 8.3, 2, 1.9, 1.6, 1.5, 0.4, 0.3, 0,
                                       -0.1 }, 24, 1e-12);
    f2b_tape_free(tape);
    f2b_tensor_free(x);
    f2b_tensor_free(w);
}

static void errors(void **state)
{
    (void)state;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tensor *x = f2b_tape_tensor(tape, F2B_F32, 4, (int64_t[]){ 1, 3, 5, 5 });
    f2b_tensor *w = f2b_tape_tensor(tape, F2B_F32, 4, (int64_t[]){ 2, 3, 2, 2 });
    f2b_tensor *flat = f2b_tape_tensor(tape, F2B_F32, 1, (int64_t[]){ 2 });
    f2b_check_error(f2b_patch_embedding(tape, x, w, F2B_F32), F2B_ERR_SHAPE,
                    "[1, 3, 5, 5] f32 do not divide into patches of weight [2, 3, 2, 2] f32");
    f2b_check_error(f2b_patch_embedding(tape, flat, w, F2B_F32), F2B_ERR_SHAPE,
                    "images is [2] f32");
    f2b_check_error(f2b_patch_embedding(tape, x, flat, F2B_F32), F2B_ERR_SHAPE,
                    "weight is [2] f32");
    f2b_tensor *image = f2b_tape_tensor(tape, F2B_F32, 4, (int64_t[]){ 1, 3, 4, 4 });
    image->requires_grad = true;
    f2b_check_error(f2b_patch_embedding(tape, image, w, F2B_F32), F2B_ERR_UNSUPPORTED, "images");
    f2b_tensor *trained = f2b_tape_tensor(tape, F2B_BF16, 4, (int64_t[]){ 2, 3, 5, 5 });
    trained->requires_grad = true;
    f2b_check_error(f2b_patch_embedding(tape, x, trained, F2B_F32), F2B_ERR_DTYPE, "must be f32");
    assert_null(f2b_patch_embedding(tape, NULL, w, F2B_F32));
    f2b_tape_free(tape);
}

F2B_CHECK_MAIN("patch_embedding", cmocka_unit_test(holds_for_all_cases), cmocka_unit_test(values),
               cmocka_unit_test(errors))
