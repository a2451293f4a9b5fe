/* gated_linear: the harness's cases, a hand value, the same bits as silu_mul and linear, errors. */
#include "tests/support/check_op.h"

#include <string.h>

#include "autograd/core/rng.h"
#include "autograd/device/cpu/threads.h"
#include "autograd/ops/linear/linear.h"
#include "autograd/ops/silu_mul/silu_mul.h"

typedef struct setup {
    bool bias, lora, residual, itself;      /* itself: gate is up, too */
    float dropout;
} setup;

enum { MOST_ROWS = 460 };
static uint64_t row_keys[3 * MOST_ROWS];    /* the harness repeats rows three times */

static int projection_of(const setup *s, f2b_tensor *const *in, f2b_projection *p)
{
    int at = s->itself ? 1 : 2;
    p->weight = in[at++];
    if (s->bias) p->bias = in[at++];
    if (s->lora) p->lora_a = in[at++], p->lora_b = in[at++];
    if (s->residual) p->residual = in[at++];
    return at;
}

static int build(f2b_tape *tape, f2b_dtype dtype, f2b_tensor *const *in, const void *context, f2b_tensor **out)
{
    (void)dtype;
    const setup *s = context;
    f2b_projection p = { 0 };
    (void)projection_of(s, in, &p);
    f2b_tensor *keys = f2b_tape_table(tape, F2B_U8, 1, (int64_t[]){ sizeof row_keys }, row_keys);
    if (keys == NULL) return 0;
    const f2b_dropout d = { s->dropout, 7, 3, 5, keys->data };
    out[0] = f2b_gated_linear(tape, in[0], s->itself ? in[0] : in[1], &p, 0.5, s->dropout > 0 ? &d : NULL);
    return out[0] != NULL;
}

#define X(rows, in) { F2B_CHECK_ACTIVATION, 2, { rows, in }, -2, 2, NULL, true }
#define XK(rows, in) { F2B_CHECK_ACTIVATION, 2, { rows, in }, -2, 2, NULL, false }
#define W(out, in) { F2B_CHECK_PARAMETER, 2, { out, in }, -1, 1, NULL, false }
#define FROZEN(out, in) { F2B_CHECK_CONSTANT, 2, { out, in }, -1, 1, NULL, false }
#define BIAS(out) { F2B_CHECK_PARAMETER, 1, { out }, -1, 1, NULL, false }

static const setup plain = { 0 }, biased = { .bias = true }, lora = { .lora = true }, itself = { .itself = true };
static const setup all = { .bias = true, .lora = true, .residual = true };
static const setup dropped = { .lora = true, .residual = true, .dropout = 0.25f };

/* Rows beyond four tasks a thread are made task by task, which one thread has here and three do not; fewer are all made
 * before. */
static const f2b_check_case cases[] = {
    { "one element", build, &plain, 3, { X(1, 1), X(1, 1), W(1, 1) }, 0, 0, 0, 1 },
    { "odd sizes, trained", build, &biased, 4, { X(5, 7), X(5, 7), W(3, 7), BIAS(3) }, 0, 0, 0, 1 },
    { "frozen weight", build, &plain, 3, { X(45, 301), X(45, 301), FROZEN(33, 301) }, 0, 0, 0, 1 },
    { "gate that is up", build, &itself, 2, { X(6, 40), W(5, 40) }, 0, 0, 0, 1 },
    { "a LoRA", build, &lora, 5, { X(7, 35), X(7, 35), FROZEN(9, 35), W(4, 35), W(9, 4) }, 0, 0, 0, 1 },
    { "all of it", build, &all, 7,
      { X(130, 67), X(130, 67), FROZEN(70, 67), BIAS(70), W(5, 67), W(70, 5), X(130, 70) }, 0, 0, 0, 1 },
    { "long sums, LoRA", build, &lora, 5,
      { X(20, 1411), X(20, 1411), FROZEN(3, 1411), W(2, 1411), W(3, 2) }, 0, 0, 0, 1 },
    { "many rows", build, &all, 7,
      { X(MOST_ROWS, 19), X(MOST_ROWS, 19), FROZEN(40, 19), BIAS(40), W(3, 19), W(40, 3), X(MOST_ROWS, 40) },
      0, 0, 0, 1 },
    { "dropout", build, &dropped, 6,
      { XK(9, 33), XK(9, 33), FROZEN(12, 33), W(3, 33), W(12, 3), XK(9, 12) }, 0, 0, 0, 1 },
    { "dropout, many rows", build, &dropped, 6,
      { XK(MOST_ROWS, 33), XK(MOST_ROWS, 33), FROZEN(12, 33), W(3, 33), W(12, 3), XK(MOST_ROWS, 12) }, 0, 0, 0, 1 },
    { "no rows", build, &lora, 5, { XK(0, 4), XK(0, 4), FROZEN(3, 4), W(2, 4), W(3, 2) }, 0, 0, 0, 1 },
};

static void all_cases(void **state)
{
    (void)state;
    for (int i = 0; i < 3 * MOST_ROWS; i++) row_keys[i] = 11 + (uint64_t)i;
    f2b_check_ops(cases, sizeof cases / sizeof *cases);
}

/* silu(-2) * 1.5, silu(0.5) * -1, silu(3) * 2 are values from PyTorch; y = their sum. dy = 1 is then the gradient of
 * each product, as in silu_mul's own test. */
static void hand_value(void **state)
{
    (void)state;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tensor *gate = f2b_check_leaf(F2B_F32, 2, (int64_t[]){ 1, 3 }, (double[]){ -2, 0.5, 3 }, true);
    f2b_tensor *up = f2b_check_leaf(F2B_F32, 2, (int64_t[]){ 1, 3 }, (double[]){ 1.5, -1, 2 }, true);
    f2b_tensor *w = f2b_check_leaf(F2B_F32, 2, (int64_t[]){ 1, 3 }, (double[]){ 1, 1, 1 }, true);
    f2b_tensor *y = f2b_gated_linear(tape, gate, up, &(f2b_projection){ .weight = w }, 0, NULL);
    const double x[] = { -0.357608766066, -0.311229665601, 5.71544476093 };
    f2b_check_near(y, (double[]){ x[0] + x[1] + x[2] }, 1, 1e-6);
    assert_int_equal(f2b_tape_seed(tape, y, 1), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    f2b_check_grad_near(gate, (double[]){ -0.136176373177, -0.739961187303, 2.17620821203 }, 3, 1e-6);
    f2b_check_grad_near(up, (double[]){ -0.238405844044, 0.311229665601, 2.85772238047 }, 3, 1e-6);
    f2b_check_grad_near(w, x, 3, 1e-6);
    f2b_tape_free(tape);
    f2b_tensor *leaves[] = { gate, up, w };
    for (int i = 0; i < 3; i++) f2b_tensor_free(leaves[i]);
}

enum { IN = 300, OUT = 130, RANK = 5 };     /* sums short enough for one pass */

static f2b_tensor *activation(f2b_tape *tape, f2b_dtype type, int64_t rows, int64_t width, int seed)
{
    static float values[MOST_ROWS * IN];
    static f2b_bf16 rounded[MOST_ROWS * IN];
    const size_t n = (size_t)(rows * width);
    for (size_t i = 0; i < n; i++) values[i] = (float)(((int)i * 37 + seed * 11) % 201 - 100) / 40;
    f2b_convert(rounded, F2B_BF16, values, F2B_F32, n);
    f2b_tensor *x = f2b_tape_tensor_from(tape, type, 2, (int64_t[]){ rows, width },
                                         type == F2B_F32 ? (void *)values : (void *)rounded);
    assert_non_null(x);
    x->requires_grad = true;
    return f2b_tape_keep(x);
}

/* y, then the gradients of gate, up and the leaves, one behind the other; how many bytes. */
static size_t run(bool fused, f2b_dtype type, int64_t rows, float dropout, f2b_tensor *const *leaves, char *got)
{
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tensor *gate = activation(tape, type, rows, IN, 1), *up = activation(tape, type, rows, IN, 2), *y;
    const f2b_projection p = { leaves[0], leaves[1], leaves[2], leaves[3], activation(tape, type, rows, OUT, 3) };
    const f2b_dropout d = { dropout, 7, 3, 5, row_keys };
    if (fused) y = f2b_gated_linear(tape, gate, up, &p, 2, &d);
    else assert_int_equal(f2b_linear_group(tape, f2b_silu_mul(tape, gate, up), &p, 1, 2, &d, &y), F2B_OK);
    assert_non_null(y);
    f2b_tape_keep(y);
    assert_int_equal(f2b_tape_seed(tape, y, 0.375), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    const f2b_tensor *all_of_them[] = { gate, up, leaves[1], leaves[2], leaves[3] };
    size_t n = f2b_tensor_bytes(y);
    memcpy(got, y->data, n);
    for (int i = 0; i < 5; i++) {
        memcpy(got + n, all_of_them[i]->grad, f2b_tensor_bytes(all_of_them[i]));
        n += f2b_tensor_bytes(all_of_them[i]);
    }
    for (int i = 1; i < 4; i++) assert_int_equal(f2b_tensor_zero_grad(leaves[i]), F2B_OK);
    f2b_tape_free(tape);
    return n;
}

static void the_same_bits_as_two_ops(void **state)
{
    (void)state;
    static char one[16 << 20], two[16 << 20];
    static double values[OUT * IN];
    for (int i = 0; i < OUT * IN; i++) values[i] = (i * 53 % 97 - 48) / 64.0;
    f2b_tensor *leaves[] = { f2b_check_leaf(F2B_F32, 2, (int64_t[]){ OUT, IN }, values, false),
                             f2b_check_leaf(F2B_F32, 1, (int64_t[]){ OUT }, values, true),
                             f2b_check_leaf(F2B_F32, 2, (int64_t[]){ RANK, IN }, values, true),
                             f2b_check_leaf(F2B_F32, 2, (int64_t[]){ OUT, RANK }, values, true) };
    const int64_t rows[] = { 1, 60, MOST_ROWS };
    for (int t = 0; t < 2; t++)
        for (int i = 0; i < 3; i++)
            for (int drop = 0; drop < 2; drop++) {
                const f2b_dtype type = t == 0 ? F2B_F32 : F2B_BF16;
                const size_t n = run(true, type, rows[i], drop ? 0.25f : 0, leaves, one);
                assert_int_equal(run(false, type, rows[i], drop ? 0.25f : 0, leaves, two), n);
                assert_memory_equal(one, two, n);
            }
    for (int i = 0; i < 4; i++) f2b_tensor_free(leaves[i]);
}

static void errors(void **state)
{
    (void)state;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    const double zeros[16] = { 0 };
    f2b_tensor *a = f2b_tape_tensor(tape, F2B_F32, 2, (int64_t[]){ 2, 3 });
    f2b_tensor *b = f2b_tape_tensor(tape, F2B_F32, 2, (int64_t[]){ 2, 4 });
    f2b_tensor *w = f2b_check_leaf(F2B_F32, 2, (int64_t[]){ 2, 4 }, zeros, false);
    const f2b_projection p = { .weight = w };
    f2b_check_error(f2b_gated_linear(tape, a, b, &p, 0, NULL), F2B_ERR_SHAPE, "[2, 3] f32 and [2, 4] f32");
    f2b_check_error(f2b_gated_linear(tape, a, a, &p, 0, NULL), F2B_ERR_SHAPE, "[2, 4] f32, x is [2, 3] f32");
    assert_null(f2b_gated_linear(tape, a, NULL, &p, 0, NULL));
    assert_null(f2b_gated_linear(tape, NULL, a, &p, 0, NULL));
    f2b_tape_free(tape);
    f2b_tensor_free(w);
}

F2B_CHECK_MAIN("gated_linear", cmocka_unit_test(all_cases), cmocka_unit_test(hand_value),
               cmocka_unit_test(the_same_bits_as_two_ops), cmocka_unit_test(errors))
