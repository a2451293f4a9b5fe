/* dropout: the harness's cases, values from plain Philox, errors. */
#include "tests/support/check_op.h"

#include "autograd/ops/dropout/dropout.h"

#include <math.h>

#include "autograd/core/rng.h"
#include "autograd/ops/dropout/dropout_internal.h"

/* Keys repeat every five rows, so that the harness's copies of five rows have the same. */
static uint64_t keys[600];
static const f2b_dropout tenth = { .p = 0.1f, .seed = 3, .step = 4, .place = 5, .row_keys = keys };
static const f2b_dropout most = { .p = 0.9f, .seed = 3, .step = 4, .place = 5, .row_keys = keys };

static int build(f2b_tape *tape, f2b_dtype dtype, f2b_tensor *const *in, const void *context,
                 f2b_tensor **out)
{
    (void)dtype;
    f2b_dropout d = *(const f2b_dropout *)context;
    f2b_tensor *t = f2b_tape_table(tape, F2B_U8, 1, (int64_t[]){ sizeof keys }, keys);
    if (t == NULL) return 0;
    d.row_keys = t->data;
    return (out[0] = f2b_dropout_apply(tape, in[0], &d)) != NULL;
}

#define X(...) F2B_ROWS(F2B_CHECK_ACTIVATION, -1, 1, 2, __VA_ARGS__)
static const f2b_check_case cases[] = {
    { "dropout: narrow", build, &tenth, 1, { X(5, 1) } },
    { "dropout: odd", build, &most, 1, { X(5, 131) } },
    { "dropout: many", build, &tenth, 1, { X(100, 301) } },
};

static void holds_for_all_cases(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 600; i++) keys[i] = 1000 + i % 5;
    f2b_check_ops(cases, sizeof cases / sizeof *cases);
}

/* The mask is what the header says it is, taken from the plain f2b_philox. */
static void values(void **state)
{
    (void)state;
    const uint64_t row_keys[] = { 77, 4000000000001 };
    const f2b_dropout d = { .p = 0.3f, .seed = 1, .step = 2, .place = 9, .row_keys = row_keys };
    double ones[600], want[600];
    for (uint64_t i = 0; i < 600; i++) {
        const f2b_rng stream = f2b_rng_new(1, F2B_RNG_DROPOUT, 2, row_keys[i / 300], 9);
        const uint64_t c = i % 300, block = 16 * (c / 128) + c % 16, half = c / 16 % 8;
        const uint32_t word = f2b_rng_at(&stream, 4 * block + half / 2);
        ones[i] = 1;
        want[i] = (word >> 16 * (half % 2) & 0xFFFF) < 19661 ? 0 : 1 / 0.7;    /* 0.3 * 65536 */
    }
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tensor *x = f2b_check_leaf(F2B_F64, 2, (int64_t[]){ 2, 300 }, ones, true);
    f2b_tensor *y = f2b_dropout_apply(tape, x, &d);
    f2b_check_near(y, want, 600, 1e-6);
    assert_int_equal(f2b_tape_seed(tape, y, 1), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    f2b_check_grad_near(x, want, 600, 1e-6);
    f2b_tape_free(tape);
    f2b_tensor_free(x);
}

/* Of the CPU's kernels. */
void f2bi_dropout_mask_f32(const f2b_dropout *d, int64_t row, int64_t n, uint16_t *stays);

static double share_dropped(f2b_dropout d, uint64_t key, uint8_t *dropped)
{
    static uint16_t stays[80 * F2BI_DROPOUT_GROUP / 16];
    d.row_keys = &key;
    int64_t count = 0;
    f2bi_dropout_mask_f32(&d, 0, 80 * F2BI_DROPOUT_GROUP, stays);
    for (int64_t c = 0; c < 80 * F2BI_DROPOUT_GROUP; c++)
        count += dropped[c] = (stays[c / 16] >> c % 16 & 1) == 0;
    return (double)count / (80 * F2BI_DROPOUT_GROUP);
}

/* The share is p, and masks of another row, step, place or seed are unrelated. */
static void drops_the_right_share_independently(void **state)
{
    (void)state;
    const f2b_dropout d = { .p = 0.25f, .seed = 1, .step = 2, .place = 3 };
    const f2b_dropout others[] = { { 0.25f, 2, 2, 3 }, { 0.25f, 1, 3, 3 }, { 0.25f, 1, 2, 4 }, d };
    static uint8_t a[80 * F2BI_DROPOUT_GROUP], b[80 * F2BI_DROPOUT_GROUP];
    assert_true(fabs(share_dropped(d, 7, a) - 0.25) < 0.02);
    for (int o = 0; o < 4; o++) {
        assert_true(fabs(share_dropped(others[o], o == 3 ? 8 : 7, b) - 0.25) < 0.02);
        int64_t both = 0;
        for (size_t i = 0; i < sizeof a; i++) both += a[i] & b[i];
        assert_true(fabs((double)both / sizeof a - 0.0625) < 0.012);
    }
}

static void errors(void **state)
{
    (void)state;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tensor *x = f2b_tape_tensor(tape, F2B_F32, 1, (int64_t[]){ 3 });
    f2b_dropout d = { .p = 1, .row_keys = keys };
    f2b_check_error(f2b_dropout_apply(tape, x, &d), F2B_ERR_INVALID, "got 1");
    d.p = NAN;
    f2b_check_error(f2b_dropout_apply(tape, x, &d), F2B_ERR_INVALID, "dropout: p");
    d = (f2b_dropout){ .p = 0.5f };
    f2b_check_error(f2b_dropout_apply(tape, x, &d), F2B_ERR_INVALID, "row keys");
    d.p = 0;
    assert_ptr_equal(f2b_dropout_apply(tape, x, &d), x);
    assert_null(f2b_dropout_apply(tape, NULL, &d));
    f2b_tape_free(tape);
}

F2B_CHECK_MAIN("dropout", cmocka_unit_test(holds_for_all_cases), cmocka_unit_test(values),
               cmocka_unit_test(drops_the_right_share_independently), cmocka_unit_test(errors))
