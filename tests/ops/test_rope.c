/* rope: the harness's cases, values from PyTorch in f64, errors. */
#include "tests/support/check_op.h"

#include "autograd/ops/rope/rope.h"

#include <math.h>

/* The table is built for the type of the run; the tape's clean-up does not own it, so the context
 * holds one of each. */
static f2b_tensor *tables[3][3];        /* [case][f32, f64, f32 on cuda:0] */

static int build(f2b_tape *tape, f2b_dtype dtype, f2b_tensor *const *in, const void *context,
                 f2b_tensor **out)
{
    f2b_tensor *const *table = context;
    const int which = f2b_tape_device(tape).kind == F2B_CUDA ? 2 : dtype == F2B_F64;
    return (out[0] = f2b_rope(tape, in[0], table[which], in[1])) != NULL;
}

#define X(...) F2B_ROWS(F2B_CHECK_ACTIVATION, -1, 1, 2, __VA_ARGS__)
#define P(n) F2B_ROWS(F2B_CHECK_INDEX, 0, 20, 1, n)
static const f2b_check_case cases[] = {
    { "rope: smallest", build, tables[0], 2, { X(1, 2), P(1) } },
    { "rope: heads of two", build, tables[0], 2, { X(5, 6), P(5) } },
    { "rope: odd halves", build, tables[1], 2, { X(3, 66), P(3) } },
    { "rope: many rows", build, tables[1], 2, { X(300, 66), P(300) } },
    { "rope: whole vectors", build, tables[2], 2, { X(5, 96), P(5) } },
};

static void holds_for_all_cases(void **state)
{
    (void)state;
    const int64_t hd[] = { 2, 22, 32 };
    const f2b_device cuda = { F2B_CUDA, 0 };
    for (int i = 0; i < 3; i++) {
        tables[i][0] = f2b_rope_table(F2B_HOST, F2B_F32, 10000, hd[i], 20);
        tables[i][1] = f2b_rope_table(F2B_HOST, F2B_F64, 10000, hd[i], 20);
        tables[i][2] = f2b_rope_table(cuda, F2B_F32, 10000, hd[i], 20);     /* NULL without one */
    }
    f2b_check_ops(cases, sizeof cases / sizeof *cases);
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 3; k++) f2b_tensor_free(tables[i][k]);
}

static void values(void **state)
{
    (void)state;
    const double x[] = { 1, 2, 3, 4, -1, 0.5, 2, -3, 0.25, -1, 2, 1, 3, 1, -2, 0.5 };
    const double want[] = { -1.41335252078, 1.87911806669,  -2.82885748174, 4.0581911354,
                            0.707752480481, 0.589761517482, -2.12110500126, -2.98365235115,
                            -1.54786639315, -1.00994983375, 1.29097235794,  0.989950167082,
                            3.30384888722,  0.99495008375,  1.44380834269,  0.509974833542 };
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tensor *leaf = f2b_check_leaf(F2B_F64, 2, (int64_t[]){ 2, 8 }, x, false);
    f2b_tensor *table = f2b_rope_table(F2B_HOST, F2B_F64, 10000, 4, 4);
    f2b_tensor *at = f2b_check_index(1, (int64_t[]){ 2 }, (int32_t[]){ 3, 1 });
    f2b_check_near(f2b_rope(tape, leaf, table, at), want, 16, 1e-10);
    f2b_tape_free(tape);
    f2b_tensor_free(leaf);
    f2b_tensor_free(table);
    f2b_tensor_free(at);
}

/* PyTorch's f32 frequencies and angles at position 4095, head size 128, columns 1, 5 and 63: the
 * f64 angles differ from the fourth digit on. */
static void the_f32_table_rounds_like_transformers(void **state)
{
    (void)state;
    f2b_tensor *table = f2b_rope_table(F2B_HOST, F2B_F32, 10000, 128, 4096);
    const int column[] = { 1, 5, 63 };
    const double cosine[] = { -0.742445707321167, -0.7114373445510864, 0.8902588486671448 };
    const double sine[] = { 0.6699061989784241, 0.7027495503425598, 0.4554549753665924 };
    const float *row = (const float *)table->data + 4095 * 128;
    for (int i = 0; i < 3; i++) {
        assert_true(fabs(row[column[i]] - cosine[i]) < 2e-7);
        assert_true(fabs(row[64 + column[i]] - sine[i]) < 2e-7);
    }
    f2b_tensor_free(table);
}

static void errors(void **state)
{
    (void)state;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tensor *table = f2b_rope_table(F2B_HOST, F2B_F32, 10000, 4, 3);
    f2b_tensor *x = f2b_tape_tensor(tape, F2B_F32, 2, (int64_t[]){ 2, 8 });
    f2b_tensor *wide = f2b_tape_tensor(tape, F2B_F32, 2, (int64_t[]){ 2, 6 });
    f2b_tensor *x64 = f2b_tape_tensor(tape, F2B_F64, 2, (int64_t[]){ 2, 8 });
    const int32_t high[] = { 0, 3 }, low[] = { -1, 0 };
    f2b_tensor *a = f2b_tape_tensor_from(tape, F2B_I32, 1, (int64_t[]){ 2 }, high);
    f2b_tensor *b = f2b_tape_tensor_from(tape, F2B_I32, 1, (int64_t[]){ 2 }, low);
    f2b_tensor *one = f2b_tape_tensor_from(tape, F2B_I32, 1, (int64_t[]){ 1 }, high);
    f2b_check_error(f2b_rope(tape, x, table, a), F2B_ERR_DATA,
                    "position 3 of row 1 is outside [0, 3)");
    f2b_check_error(f2b_rope(tape, x, table, b), F2B_ERR_DATA, "position -1 of row 0");
    f2b_check_error(f2b_rope(tape, x, table, one), F2B_ERR_SHAPE, "positions is [1] i32");
    f2b_check_error(f2b_rope(tape, wide, table, a), F2B_ERR_SHAPE, "heads of 4 columns");
    f2b_check_error(f2b_rope(tape, x64, table, a), F2B_ERR_DTYPE, "must be f64");
    f2b_check_error(f2b_rope_table(F2B_HOST, F2B_F32, 10000, 5, 3), F2B_ERR_INVALID, "head size 5");
    f2b_check_error(f2b_rope_table(F2B_HOST, F2B_BF16, 10000, 4, 3), F2B_ERR_DTYPE, "not bf16");
    assert_null(f2b_rope(tape, x, NULL, a));
    f2b_tape_free(tape);
    f2b_tensor_free(table);
}

F2B_CHECK_MAIN("rope", cmocka_unit_test(holds_for_all_cases), cmocka_unit_test(values),
               cmocka_unit_test(the_f32_table_rounds_like_transformers), cmocka_unit_test(errors))
