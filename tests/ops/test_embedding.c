/* embedding: the harness's cases, values by hand, errors. */
#include "tests/support/check_op.h"

#include "autograd/ops/embedding/embedding.h"

static int build(f2b_tape *tape, f2b_dtype dtype, f2b_tensor *const *in, const void *context,
                 f2b_tensor **out)
{
    (void)context;
    return (out[0] = f2b_embedding(tape, in[0], in[1], dtype)) != NULL;
}

#define IDS(V, n) F2B_ROWS(F2B_CHECK_INDEX, 0, V, 1, n)
#define TABLE(V, D) F2B_IN(F2B_CHECK_PARAMETER, -1, 1, 2, V, D)
static const f2b_check_case cases[] = {
    { "embedding: one element", build, NULL, 2, { IDS(1, 1), TABLE(1, 1) } },
    { "embedding: no id", build, NULL, 2, { IDS(3, 0), TABLE(3, 5) } },
    { "embedding: repeated ids", build, NULL, 2, { IDS(3, 11), TABLE(3, 65) } },
    { "embedding: many", build, NULL, 2, { IDS(50, 300), TABLE(50, 67) } },
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
    f2b_tensor *ids = f2b_check_index(1, (int64_t[]){ 3 }, (int32_t[]){ 2, 0, 2 });
    f2b_tensor *table = f2b_check_leaf(F2B_F32, 2, (int64_t[]){ 3, 2 },
                                       (double[]){ 1, 2, 3, 4, 5, 6 }, true);
    f2b_tensor *y = f2b_embedding(tape, ids, table, F2B_BF16);
    f2b_check_near(y, (double[]){ 5, 6, 1, 2, 5, 6 }, 6, 0);
    assert_int_equal(y->dtype, F2B_BF16);
    assert_int_equal(f2b_tape_seed(tape, y, 1.5), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    f2b_check_grad_near(table, (double[]){ 1.5, 1.5, 0, 0, 3, 3 }, 6, 0);
    f2b_tape_free(tape);
    f2b_tensor_free(ids);
    f2b_tensor_free(table);
}

static void errors(void **state)
{
    (void)state;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tensor *table = f2b_tape_tensor(tape, F2B_F16, 2, (int64_t[]){ 4, 2 });
    const int32_t high[] = { 1, 4 }, low[] = { -200 };
    f2b_tensor *a = f2b_tape_tensor_from(tape, F2B_I32, 1, (int64_t[]){ 2 }, high);
    f2b_tensor *b = f2b_tape_tensor_from(tape, F2B_I32, 1, (int64_t[]){ 1 }, low);
    f2b_check_error(f2b_embedding(tape, a, table, F2B_F32), F2B_ERR_DATA,
                    "embedding: entry 1 is 4, outside [0, 4)");
    f2b_check_error(f2b_embedding(tape, b, table, F2B_F32), F2B_ERR_DATA, "entry 0 is -200");
    f2b_check_error(f2b_embedding(tape, table, table, F2B_F32), F2B_ERR_DTYPE, "ids is [4, 2] f16");
    f2b_check_error(f2b_embedding(tape, a, a, F2B_F32), F2B_ERR_DTYPE, "table is [2] i32");
    f2b_check_error(f2b_embedding(tape, a, table, F2B_F16), F2B_ERR_DTYPE, "cannot compute in f16");
    assert_null(f2b_embedding(tape, NULL, table, F2B_F32));
    f2b_tape_free(tape);
}

F2B_CHECK_MAIN("embedding", cmocka_unit_test(holds_for_all_cases), cmocka_unit_test(values),
               cmocka_unit_test(errors))
