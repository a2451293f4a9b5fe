/* Choosing among compressed tokens: which rows stay, what embeddings become, what is refused. */
#include "tests/infer/tiny_models.h"

#include "infer/token_choice.h"

/* Two images of K = 4 tokens, d = 2: token t of image i is (10 i + t, -t). */
static f2b_compressed two_images(f2b_dtype dtype)
{
    f2b_compressed c;
    c.tokens = f2b_tensor_new(F2B_HOST, dtype, 2, (int64_t[]){ 8, 2 }, F2B_TAG_ACTIVATIONS);
    c.embeddings = f2b_tensor_new(F2B_HOST, F2B_F32, 2, (int64_t[]){ 2, 2 }, F2B_TAG_ACTIVATIONS);
    assert_non_null(c.tokens);
    assert_non_null(c.embeddings);
    double values[16];
    for (int r = 0; r < 8; r++) values[2 * r] = 10 * (r / 4) + r % 4, values[2 * r + 1] = -(r % 4);
    f2b_convert(c.tokens->data, dtype, values, F2B_F64, 16);
    memset(c.embeddings->data, 0, 4 * sizeof(float));
    return c;
}

static void check(f2b_token_choice choice, f2b_dtype dtype, int n, const int *tokens)
{
    const f2b_method method = { .tokens = 4 };
    f2b_compressed c = two_images(dtype);
    assert_ok(f2b_compressed_choose(&c, &choice, &method));
    assert_int_equal(c.tokens->shape[0], 2 * n);
    double values[16];
    f2b_convert(values, F2B_F64, c.tokens->data, dtype, (size_t)(4 * n));
    for (int i = 0; i < 2; i++) {
        double mean[2] = { 0, 0 };
        for (int t = 0; t < n; t++) {
            const double *row = values + 2 * (i * n + t);
            assert_true(row[0] == 10 * i + tokens[t] && row[1] == -tokens[t]);
            mean[0] += row[0] / n, mean[1] += row[1] / n;
        }
        for (int j = 0; j < 2; j++)
            assert_float_equal(((float *)c.embeddings->data)[2 * i + j], mean[j], 1e-5);
    }
    f2b_compressed_clear(&c);
}

static void test_rows(void **state)
{
    (void)state;
    check((f2b_token_choice){ 0, 3, 0, 0 }, F2B_F32, 3, (int[]){ 0, 1, 2 });
    check((f2b_token_choice){ 1, 4, 0, 0 }, F2B_BF16, 3, (int[]){ 1, 2, 3 });
    check((f2b_token_choice){ 0, 0, 0, 2 }, F2B_F32, 2, (int[]){ 2, 3 });
    check((f2b_token_choice){ 0, 4, 1, 3 }, F2B_F64, 2, (int[]){ 0, 3 });
    check((f2b_token_choice){ 2, 4, 0, 3 }, F2B_F32, 1, (int[]){ 3 });
}

static void test_all(void **state)
{
    (void)state;
    const f2b_method method = { .tokens = 4, .forward = F2B_FORWARD_SINGLE };
    f2b_compressed c = two_images(F2B_F32);
    const f2b_tensor *tokens = c.tokens;
    assert_ok(f2b_compressed_choose(&c, &(f2b_token_choice){ 0 }, &method));
    assert_ptr_equal(c.tokens, tokens);
    assert_true(((float *)c.embeddings->data)[0] == 0);
    f2b_compressed_clear(&c);
}

static void test_refusals(void **state)
{
    (void)state;
    int64_t used = 0;
    const f2b_token_choice bad[] = {
        { 0, 5, 0, 0 }, { 3, 3, 0, 0 }, { -1, 2, 0, 0 }, { 0, 0, 2, 9 }, { 0, 2, 0, 2 },
        { 0, 0, 0, 4 }, { 1, INT64_MAX, 0, 0 },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(f2b_token_choice_count(&bad[i], 4, &used), F2B_ERR_USAGE);
    assert_ok(f2b_token_choice_count(&(f2b_token_choice){ 0, 4, 1, 2 }, 4, &used));
    assert_int_equal(used, 3);

    const f2b_method single = { .tokens = 4, .forward = F2B_FORWARD_SINGLE };
    f2b_compressed c = two_images(F2B_F32);
    assert_int_equal(f2b_compressed_choose(&c, &(f2b_token_choice){ 0, 2, 0, 0 }, &single),
                     F2B_ERR_CONFIG);
    f2b_compressed_clear(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows), cmocka_unit_test(test_all), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("token_choice", tests, NULL, NULL);
}
