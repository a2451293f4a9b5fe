/* Recall from hand-made embeddings; the rule for right answers. */
#include "tests/checkpoints/fixtures.h"

#include <math.h>

#include "infer/evaluate.h"

static f2b_tensor *rows(int64_t n, int64_t d, const float *values)
{
    return f2b_tensor_borrow(F2B_HOST, F2B_F32, 2, (int64_t[]){ n, d }, values);
}

static void assert_recall(f2b_recall r, double at1, double at5, double at10)
{
    assert_true(fabs(r.at1 - at1) < 1e-12);
    assert_true(fabs(r.at5 - at5) < 1e-12);
    assert_true(fabs(r.at10 - at10) < 1e-12);
}

/* Images along the axes, captions of other lengths: only angles count. */
static void test_recall_by_hand(void **state)
{
    (void)state;
    const float images[] = { 2, 0, 0,   0, 5, 0,   0, 0, 1 };
    const float captions[] = { 9, 1, 0,   0, 0, 3,   1, 2, 0,   0, 1, 8 };
    const int64_t image_of[] = { 0, 0, 1, 2 };
    f2b_tensor *e = rows(3, 3, images), *t = rows(4, 3, captions);
    f2b_retrieval_result r = { 0 };
    assert_ok(f2b_retrieval_recall(e, t, image_of, &r));
    assert_int_equal(r.images, 3);
    assert_int_equal(r.captions, 4);
    /* caption 1 is of image 0 but points at image 2 */
    assert_recall(r.text_to_image, 3.0 / 4, 1, 1);
    /* image 0 finds caption 0, image 1 caption 2; image 2 finds caption 1, which is image 0's */
    assert_recall(r.image_to_text, 2.0 / 3, 1, 1);
    f2b_tensor_free(e);
    f2b_tensor_free(t);
}

/* Twelve equal images and captions: everything ties, the lower index comes first. */
static void test_ties_go_to_the_lower_index(void **state)
{
    (void)state;
    float same[12 * 2];
    int64_t image_of[12];
    for (int i = 0; i < 12; i++) same[2 * i] = 1, same[2 * i + 1] = -1, image_of[i] = i;
    f2b_tensor *e = rows(12, 2, same);
    f2b_retrieval_result r = { 0 };
    assert_ok(f2b_retrieval_recall(e, e, image_of, &r));
    assert_recall(r.text_to_image, 1.0 / 12, 5.0 / 12, 10.0 / 12);
    assert_recall(r.image_to_text, 1.0 / 12, 5.0 / 12, 10.0 / 12);
    /* one image with all captions hits by any of them */
    int64_t zero[12] = { 0 };
    f2b_tensor *one = rows(1, 2, same);
    assert_ok(f2b_retrieval_recall(one, e, zero, &r));
    assert_recall(r.image_to_text, 1, 1, 1);
    f2b_tensor_free(e);
    f2b_tensor_free(one);
}

/* More queries than a block of them. */
static void test_many_queries(void **state)
{
    (void)state;
    enum { N = 600, IMAGES = 590 };
    static float points[N * 2];
    static int64_t image_of[N];
    for (int i = 0; i < N; i++) {
        const double angle = 6.2 * i / N;
        points[2 * i] = (float)cos(angle), points[2 * i + 1] = (float)sin(angle);
        /* of the last captions only the first is of the image beside it */
        image_of[i] = i < IMAGES ? i : IMAGES - 1 - (i - IMAGES);
    }
    f2b_tensor *e = rows(IMAGES, 2, points), *t = rows(N, 2, points);
    f2b_retrieval_result r = { 0 };
    assert_ok(f2b_retrieval_recall(e, t, image_of, &r));
    assert_true(fabs(r.text_to_image.at1 - (double)(IMAGES + 1) / N) < 1e-9);
    f2b_tensor_free(e);
    f2b_tensor_free(t);
}

static void test_refusals(void **state)
{
    (void)state;
    const float values[] = { 1, 0, 0, 1 }, bad[] = { 1, NAN, 0, 1 };
    f2b_tensor *x = rows(2, 2, values), *y = rows(2, 2, bad), *z = rows(4, 1, values);
    f2b_retrieval_result r = { 0 };
    assert_int_equal(f2b_retrieval_recall(x, x, (int64_t[]){ 0, 2 }, &r), F2B_ERR_DATA);
    assert_int_equal(f2b_retrieval_recall(x, x, (int64_t[]){ 0, 0 }, &r), F2B_ERR_DATA);
    assert_failed(F2B_ERR_DATA, "image 1", "no caption");
    assert_int_equal(f2b_retrieval_recall(x, y, (int64_t[]){ 0, 1 }, &r), F2B_ERR_NUMBERS);
    assert_int_equal(f2b_retrieval_recall(x, z, (int64_t[]){ 0, 1 }, &r), F2B_ERR_SHAPE);
    f2b_tensor_free(x);
    f2b_tensor_free(y);
    f2b_tensor_free(z);
}

static void test_matching(void **state)
{
    (void)state;
    assert_true(f2b_vqa_match("red", "red"));
    assert_true(f2b_vqa_match(" Red.\n", "red"));
    assert_true(f2b_vqa_match("two circles", "Two Circles."));
    assert_true(f2b_vqa_match("", "  ."));
    assert_false(f2b_vqa_match("red", "reddish"));
    assert_false(f2b_vqa_match("reddish", "red"));
    assert_false(f2b_vqa_match("red square", "redsquare"));
    assert_false(f2b_vqa_match(".red", "red"));
    assert_false(f2b_vqa_match("1.5", "15"));
    assert_false(f2b_vqa_match("", "red"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recall_by_hand), cmocka_unit_test(test_ties_go_to_the_lower_index),
        cmocka_unit_test(test_many_queries), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_matching),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
