/* rows: the harness's cases, values by hand, errors. */
#include "tests/support/check_op.h"

#include "autograd/ops/rows/rows.h"

static int gather(f2b_tape *tape, f2b_dtype dtype, f2b_tensor *const *in, const void *context,
                  f2b_tensor **out)
{
    (void)dtype, (void)context;
    return (out[0] = f2b_rows_gather(tape, in[0], in[1])) != NULL;
}

/* Token rows (a table in some storage), image rows (activations), summary rows (a parameter). */
static int assemble(f2b_tape *tape, f2b_dtype dtype, f2b_tensor *const *in, const void *context,
                    f2b_tensor **out)
{
    (void)context;
    return (out[0] = f2b_rows_assemble(tape, dtype, in, 3, in[3])) != NULL;
}

#define X(...) F2B_IN(F2B_CHECK_ACTIVATION, -1, 1, 2, __VA_ARGS__)
#define W(...) F2B_IN(F2B_CHECK_PARAMETER, -1, 1, 2, __VA_ARGS__)
#define INDEX(R, n) F2B_ROWS(F2B_CHECK_INDEX, 0, R, 1, n)
/* Source 1 is taken out of order, source 2 twice, row 0 of source 0 never. */
static const double from[] = { 0, 1, 1, 2, 1, 0, 1, 1, 2, 0, 2, 1, 0, 2, 0, 1, 2, 0, 2, 1 };
#define FROM { F2B_CHECK_INDEX, 2, { 10, 2 }, 0, 0, from, true }
static const f2b_check_case cases[] = {
    { "gather: one element", gather, NULL, 2, { X(1, 1), INDEX(1, 1) } },
    { "gather: nothing", gather, NULL, 2, { X(3, 4), INDEX(3, 0) } },
    { "gather: repeats", gather, NULL, 2, { X(4, 65), INDEX(4, 13) } },
    { "gather: many", gather, NULL, 2, { X(300, 67), INDEX(300, 400) } },
    { "assemble: narrow", assemble, NULL, 4, { W(3, 1), X(3, 1), W(2, 1), FROM } },
    { "assemble: odd", assemble, NULL, 4, { W(3, 131), X(3, 131), W(2, 131), FROM } },
    { "assemble: wide", assemble, NULL, 4, { W(3, 2001), X(3, 2001), W(2, 2001), FROM } },
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
    f2b_tensor *table = f2b_check_leaf(F2B_F16, 2, (int64_t[]){ 2, 2 }, (double[]){ 1, 2, 3, 4 },
                                       false);
    f2b_tensor *summary = f2b_check_leaf(F2B_F32, 2, (int64_t[]){ 1, 2 }, (double[]){ -5, -6 },
                                         true);
    f2b_tensor *index = f2b_check_index(2, (int64_t[]){ 3, 2 }, (int32_t[]){ 1, 0, 0, 1, 1, 0 });
    f2b_tensor *y = f2b_rows_assemble(tape, F2B_BF16, (f2b_tensor *[]){ table, summary }, 2, index);
    f2b_check_near(y, (double[]){ -5, -6, 3, 4, -5, -6 }, 6, 0);
    assert_int_equal(f2b_tape_seed(tape, y, 0.5), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    f2b_check_grad_near(summary, (double[]){ 1, 1 }, 2, 0);
    assert_null(table->grad);
    f2b_tape_free(tape);
    f2b_tensor_free(table);
    f2b_tensor_free(summary);
    f2b_tensor_free(index);
}

static void errors(void **state)
{
    (void)state;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tensor *x = f2b_tape_tensor(tape, F2B_F32, 2, (int64_t[]){ 2, 3 });
    f2b_tensor *narrow = f2b_tape_tensor(tape, F2B_F32, 2, (int64_t[]){ 2, 1 });
    f2b_tensor *sources[] = { x, narrow };
    const int32_t wrong_source[] = { 0, 1, 1, 0 }, wrong_row[] = { 0, 1, 0, 2 };
    f2b_tensor *a = f2b_tape_tensor_from(tape, F2B_I32, 2, (int64_t[]){ 2, 2 }, wrong_source);
    f2b_tensor *b = f2b_tape_tensor_from(tape, F2B_I32, 2, (int64_t[]){ 2, 2 }, wrong_row);
    f2b_check_error(f2b_rows_assemble(tape, F2B_F32, sources, 1, a), F2B_ERR_DATA,
                    "row 1 comes from source 1, but there are 1");
    f2b_check_error(f2b_rows_assemble(tape, F2B_F32, sources, 1, b), F2B_ERR_DATA,
                    "entry 1 is 2, outside [0, 2)");
    f2b_check_error(f2b_rows_assemble(tape, F2B_F32, sources, 2, a), F2B_ERR_SHAPE,
                    "a source is [2, 1] f32, but must be [*, 3]");
    f2b_check_error(f2b_rows_assemble(tape, F2B_F32, sources, 0, a), F2B_ERR_INVALID, "0 sources");
    f2b_check_error(f2b_rows_gather(tape, x, a), F2B_ERR_SHAPE, "index is [2, 2] i32");
    f2b_check_error(f2b_rows_gather(tape, x, x), F2B_ERR_DTYPE, "must be i32");
    assert_null(f2b_rows_gather(tape, NULL, a));
    assert_null(f2b_rows_assemble(tape, F2B_F32, (f2b_tensor *[]){ NULL }, 1, a));
    f2b_tape_free(tape);
}

F2B_CHECK_MAIN("rows", cmocka_unit_test(holds_for_all_cases), cmocka_unit_test(values),
               cmocka_unit_test(errors))
