/* attention: packed sequences, causal and bidirectional limits, grouped heads, caches. */
#include "tests/support/check_op.h"

#include <math.h>
#include <string.h>

#include "autograd/device/device.h"
#include "autograd/ops/attention/attention.h"

typedef struct setup {
    int64_t head_dim, n;
    const int32_t *q_start, *k_start, *k_count;
    const int32_t *limit;
} setup;

static f2b_tensor *ints(f2b_tape *tape, const int32_t *values, int64_t n)
{
    return f2b_tape_keep(f2b_tape_tensor_from(tape, F2B_I32, 1, &n, values));
}

static int build(f2b_tape *tape, f2b_dtype dtype, f2b_tensor *const *in, const void *context,
                 f2b_tensor **out)
{
    (void)dtype;
    const setup *s = context;
    const f2b_attention_layout layout = {
        ints(tape, s->q_start, s->n + 1), ints(tape, s->k_start, s->n), ints(tape, s->k_count, s->n),
        ints(tape, s->limit, in[0]->shape[0]),
    };
    out[0] = f2b_attention(tape, in[0], in[1], in[2], &layout, s->head_dim,
                           1.0 / sqrt((double)s->head_dim));
    return out[0] != NULL;
}

#define Q(rows, width) { F2B_CHECK_ACTIVATION, 2, { rows, width }, -2, 2, NULL, false }
#define I32(...) (const int32_t[]){ __VA_ARGS__ }

static int32_t causal_130[130], full_9[9], causal_36[36];

static const setup one = { 2, 1, I32(0, 1), I32(0), I32(1), I32(1) };
static const setup packed = { 3, 3, I32(0, 4, 5, 9), I32(0, 4, 5), I32(4, 1, 4),
                              I32(1, 2, 3, 4, 1, 1, 2, 3, 4) };
static const setup grouped = { 4, 2, I32(0, 3, 5), I32(0, 3), I32(3, 2), I32(1, 2, 3, 1, 2) };
static const setup both_ways = { 2, 1, I32(0, 9), I32(0), I32(9), full_9 };
static const setup blocks = { 6, 1, I32(0, 130), I32(0), I32(130), causal_130 };
static const setup wide = { 40, 2, I32(0, 33, 36), I32(0, 33), I32(33, 3), causal_36 };
/* Queries are the last rows only; keys lie in slots of 8 of which 6 and 3 are filled. */
static const setup cached = { 5, 2, I32(0, 2, 3), I32(0, 8), I32(6, 3), I32(5, 6, 3) };

static const f2b_check_case cases[] = {
    { "one element", build, &one, 3, { Q(1, 2), Q(1, 2), Q(1, 2) }, 0, 0, 0 },
    { "three sequences, causal", build, &packed, 3, { Q(9, 6), Q(9, 6), Q(9, 6) }, 0, 0, 0 },
    { "grouped key/value heads", build, &grouped, 3, { Q(5, 16), Q(5, 8), Q(5, 8) }, 0, 0, 0 },
    { "bidirectional", build, &both_ways, 3, { Q(9, 4), Q(9, 4), Q(9, 4) }, 0, 0, 0 },
    { "more than a block of rows", build, &blocks, 3, { Q(130, 6), Q(130, 6), Q(130, 6) }, 0, 0, 3e-2 },
    { "wide grouped heads, two sequences, tiles that are not full", build, &wide, 3,
      { Q(36, 80), Q(36, 40), Q(36, 40) }, 0, 0, 3e-2 },
    { "last rows over a cache", build, &cached, 3, { Q(3, 10), Q(16, 10), Q(16, 10) }, 0, 0, 0 },
};

static void all_cases(void **state)
{
    (void)state;
    for (int i = 0; i < 130; i++) causal_130[i] = i + 1;
    for (int i = 0; i < 9; i++) full_9[i] = 9;
    for (int i = 0; i < 36; i++) causal_36[i] = i < 33 ? i + 1 : i - 32;
    f2b_check_ops(cases, sizeof cases / sizeof *cases);
}

/* Two keys, one head of width 1, scale 1: the second row sees both. softmax(2*[0 1]) = [.1192 .8808]. */
static void hand_value(void **state)
{
    (void)state;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    const int64_t shape[] = { 2, 1 };
    f2b_tensor *q = f2b_check_leaf(F2B_F32, 2, shape, (double[]){ 5, 2 }, false);
    f2b_tensor *k = f2b_check_leaf(F2B_F32, 2, shape, (double[]){ 0, 1 }, false);
    f2b_tensor *v = f2b_check_leaf(F2B_F32, 2, shape, (double[]){ 10, 20 }, false);
    const f2b_attention_layout layout = { ints(tape, I32(0, 2), 2), ints(tape, I32(0), 1),
                                          ints(tape, I32(2), 1), ints(tape, I32(1, 2), 2) };
    f2b_tensor *o = f2b_attention(tape, q, k, v, &layout, 1, 1.0);
    f2b_check_near(o, (double[]){ 10, 18.807970779778824 }, 2, 1e-6);

    f2b_attention_layout bad = layout;
    bad.limit = ints(tape, I32(1, 3), 2);
    f2b_check_error(f2b_attention(tape, q, k, v, &bad, 1, 1.0), F2B_ERR_INVALID, "sequence 0");
    bad = layout, bad.k_start = ints(tape, I32(1), 1);
    f2b_check_error(f2b_attention(tape, q, k, v, &bad, 1, 1.0), F2B_ERR_INVALID, "leaves its rows");
    f2b_check_error(f2b_attention(tape, q, k, v, &layout, 2, 1.0), F2B_ERR_SHAPE, "heads of 2");
    f2b_tape_free(tape);
    f2b_tensor_free(q), f2b_tensor_free(k), f2b_tensor_free(v);
}

/* A layout that is wrong on the device, where only the kernels see it: named at the next wait. */
static void wrong_layout_on_cuda(void **state)
{
    (void)state;
    const f2b_device cuda = { F2B_CUDA, 0 };
    if (!f2b_device_built(F2B_CUDA) || f2b_device_open(cuda) != F2B_OK) {
        print_message("[   CUDA   ] there is no CUDA device here\n");
        return;
    }
    const int32_t *const wrong[][4] = {         /* q_start, k_start, k_count, limit */
        { I32(0, 2), I32(0), I32(2), I32(1, 3) }, { I32(0, 2), I32(1), I32(2), I32(1, 2) },
        { I32(0, 1), I32(0), I32(2), I32(1, 2) }, { I32(0, 9), I32(0), I32(2), I32(1, 2) },
        { I32(-4, 2), I32(0), I32(2), I32(1, 2) }, { I32(0, 2), I32(0), I32(-1), I32(1, 2) },
        { I32(0, 2), I32(0), I32(2), I32(0, 2) },
    };
    f2b_tape *tape = f2b_tape_new(cuda);
    const int64_t shape[] = { 2, 3 };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const int32_t *const *w = wrong[i];
        f2b_tensor *x = f2b_tape_keep(f2b_tape_tensor_from(tape, F2B_F32, 2, shape, (float[6]){ 1 }));
        const f2b_attention_layout layout = { ints(tape, w[0], 2), ints(tape, w[1], 1),
                                              ints(tape, w[2], 1), ints(tape, w[3], 2) };
        assert_non_null(f2b_attention(tape, x, x, x, &layout, 3, 1.0));
        assert_int_equal(f2b_device_wait(cuda), F2B_ERR_DATA);
        assert_non_null(strstr(f2b_last_error(), "attention: layout"));
        f2b_tape_reset(tape);
    }
    const int64_t too_wide[] = { 2, 129 };
    float zeros[2 * 129] = { 0 };
    f2b_tensor *x = f2b_tape_keep(f2b_tape_tensor_from(tape, F2B_F32, 2, too_wide, zeros));
    const f2b_attention_layout layout = { ints(tape, I32(0, 2), 2), ints(tape, I32(0), 1),
                                          ints(tape, I32(2), 1), ints(tape, I32(1, 2), 2) };
    f2b_check_error(f2b_attention(tape, x, x, x, &layout, 129, 1.0), F2B_ERR_UNSUPPORTED, "heads of 129");
    f2b_tape_free(tape);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(all_cases), cmocka_unit_test(hand_value),
                                        cmocka_unit_test(wrong_layout_on_cuda) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
