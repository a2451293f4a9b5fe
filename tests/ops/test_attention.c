/* attention: packed sequences, causal and bidirectional limits, grouped heads, caches. */
#include "tests/support/check_op.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/device/device.h"
#include "autograd/ops/attention/attention.h"
#include "autograd/ops/rows/rows.h"

typedef struct setup {
    int64_t head_dim, n;
    const int32_t *q_start, *k_start, *k_count;
    const int32_t *limit;
    const int32_t *key_rows;    /* [keys], or NULL */
    int64_t keys, shared;
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
        .key_rows = s->key_rows != NULL ? ints(tape, s->key_rows, s->keys) : NULL, .shared = s->shared,
    };
    out[0] = f2b_attention(tape, in[0], in[1], in[2], &layout, s->head_dim,
                           1.0 / sqrt((double)s->head_dim));
    return out[0] != NULL;
}

#define Q(rows, width) { F2B_CHECK_ACTIVATION, 2, { rows, width }, -2, 2, NULL, false }
#define I32(...) (const int32_t[]){ __VA_ARGS__ }

static int32_t causal_290[290], causal_130[130], full_9[9], causal_36[36], falling_70[70];

static const setup one = { 2, 1, I32(0, 1), I32(0), I32(1), I32(1) };
static const setup packed = { 3, 3, I32(0, 4, 5, 9), I32(0, 4, 5), I32(4, 1, 4),
                              I32(1, 2, 3, 4, 1, 1, 2, 3, 4) };
static const setup grouped = { 4, 2, I32(0, 3, 5), I32(0, 3), I32(3, 2), I32(1, 2, 3, 1, 2) };
static const setup both_ways = { 2, 1, I32(0, 9), I32(0), I32(9), full_9 };
static const setup blocks = { 6, 1, I32(0, 130), I32(0), I32(130), causal_130 };
static const setup wide = { 40, 2, I32(0, 33, 36), I32(0, 33), I32(33, 3), causal_36 };
/* Of the sizes that models have: several blocks of rows and of keys, the last ones odd. */
static const setup long_one = { 64, 2, I32(0, 275, 290), I32(0, 275), I32(275, 15), causal_290 };
/* Queries are the last rows only; keys lie in slots of 8 of which 6 and 3 are filled. */
static const setup cached = { 5, 2, I32(0, 2, 3), I32(0, 8), I32(6, 3), I32(5, 6, 3) };
/* The keys are all in a sequence, those of the second are asked for by nobody. */
static const setup unasked = { 4, 2, I32(0, 3, 3), I32(0, 3), I32(3, 4), I32(1, 2, 3) };
/* The first rows of a block see most. */
static const setup falling = { 6, 1, I32(0, 70), I32(0), I32(150), falling_70 };

/* Two rows that three sequences begin with; the last has no key of its own. */
static const setup shared = { 3, 3, I32(0, 5, 7, 8), I32(0, 5, 9), I32(5, 4, 2), I32(1, 2, 3, 4, 5, 3, 4, 2),
                              I32(0, 1, 2, 3, 4, 0, 1, 5, 6, 0, 1), 11, 2 };
/* Rows of k that nobody has as keys, and a sequence whose keys nobody asks for. */
static const setup shared_holes = { 4, 2, I32(0, 2, 2), I32(0, 3), I32(3, 3), I32(2, 3),
                                    I32(0, 1, 3, 0, 1, 5), 6, 2 };
/* More in common than a block of keys, the rest of one with keys of its own, then whole blocks of these. */
enum { COMMON = 150, OWN_0 = 9, OWN_1 = 131, SHARED_ROWS = COMMON + OWN_0 + OWN_1 };
static int32_t long_limits[SHARED_ROWS], long_keys[SHARED_ROWS + COMMON];
static const setup shared_long = { 64, 2, I32(0, COMMON + OWN_0, SHARED_ROWS), I32(0, COMMON + OWN_0),
                                   I32(COMMON + OWN_0, COMMON + OWN_1), long_limits, long_keys,
                                   SHARED_ROWS + COMMON, COMMON };

static void fill_long(void)
{
    const int32_t all[2] = { COMMON + OWN_0, COMMON + OWN_1 };
    for (int32_t s = 0, key = 0; s < 2; s++)
        for (int32_t j = 0; j < all[s]; j++) long_keys[key++] = j < COMMON || s == 0 ? j : OWN_0 + j;
    for (int32_t t = 0; t < SHARED_ROWS; t++) long_limits[t] = t < all[0] ? t + 1 : COMMON + t - all[0] + 1;
}

static const f2b_check_case cases[] = {
    { "one element", build, &one, 3, { Q(1, 2), Q(1, 2), Q(1, 2) }, 0, 0, 0 },
    { "three sequences, causal", build, &packed, 3, { Q(9, 6), Q(9, 6), Q(9, 6) }, 0, 0, 0 },
    { "grouped key/value heads", build, &grouped, 3, { Q(5, 16), Q(5, 8), Q(5, 8) }, 0, 0, 0 },
    { "bidirectional", build, &both_ways, 3, { Q(9, 4), Q(9, 4), Q(9, 4) }, 0, 0, 0 },
    { "more than a block of rows", build, &blocks, 3, { Q(130, 6), Q(130, 6), Q(130, 6) }, 0, 0, 3e-2 },
    { "wide grouped heads, two sequences, tiles that are not full", build, &wide, 3,
      { Q(36, 80), Q(36, 40), Q(36, 40) }, 0, 0, 3e-2 },
    { "heads of 64, long and short", build, &long_one, 3, { Q(290, 64), Q(290, 64), Q(290, 64) },
      0, 0, 3e-2 },
    { "last rows over a cache", build, &cached, 3, { Q(3, 10), Q(16, 10), Q(16, 10) }, 0, 0, 0 },
    { "keys that no row asks for", build, &unasked, 3, { Q(3, 8), Q(7, 8), Q(7, 8) }, 0, 0, 0 },
    { "rows in common, three sequences", build, &shared, 3, { Q(8, 6), Q(7, 6), Q(7, 6) }, 0, 0, 0, 2 },
    { "rows in common, grouped heads, holes", build, &shared_holes, 3, { Q(2, 16), Q(7, 8), Q(7, 8) },
      0, 0, 0, 2 },
    { "more than a block of rows in common", build, &shared_long, 3,
      { Q(SHARED_ROWS, 64), Q(SHARED_ROWS, 64), Q(SHARED_ROWS, 64) }, 0, 0, 3e-2, 2 },
    { "rows that see fewer and fewer keys", build, &falling, 3, { Q(70, 6), Q(150, 6), Q(150, 6) }, 0, 0, 3e-2 },
};

/* ---- Heads for tensor cores: more than a tile of rows and of keys, and their odd ends ---- */

static int32_t causal_145[145], full_66[66], causal_17_63[80], few_rows[3 + 1];

static const setup one_64 = { 64, 1, I32(0, 1), I32(0), I32(1), I32(1) };
static const setup long_64 = { 64, 1, I32(0, 145), I32(0), I32(145), causal_145 };
static const setup both_ways_64 = { 64, 2, I32(0, 65, 66), I32(0, 65), I32(65, 1), full_66 };
static const setup grouped_128 = { 128, 3, I32(0, 17, 17, 80), I32(0, 17, 17), I32(17, 0, 63), causal_17_63 };
/* Rows fewer than keys, of slots of 80: some that see all, one that sees one, and a sequence of one. */
static const setup rows_128 = { 128, 2, I32(0, 3, 4), I32(0, 80), I32(72, 65), few_rows };

static const f2b_check_case tensor_cases[] = {
    { "heads of 64: one row", build, &one_64, 3, { Q(1, 64), Q(1, 64), Q(1, 64) }, 0, 0, 0 },
    { "heads of 64: three tiles of keys, causal", build, &long_64, 3,
      { Q(145, 64), Q(145, 64), Q(145, 64) }, 0, 0, 3e-2 },
    { "heads of 64: both ways, two heads", build, &both_ways_64, 3,
      { Q(66, 128), Q(66, 128), Q(66, 128) }, 0, 0, 0 },
    { "heads of 128: grouped, an empty sequence", build, &grouped_128, 3,
      { Q(80, 256), Q(80, 128), Q(80, 128) }, 0, 0, 3e-2 },
    { "heads of 128: last rows over a cache", build, &rows_128, 3,
      { Q(4, 128), Q(160, 128), Q(160, 128) }, 0, 0, 0 },
};

static void on_tensor_cores(void **state)
{
    (void)state;
    for (int i = 0; i < 145; i++) causal_145[i] = i + 1;
    for (int i = 0; i < 66; i++) full_66[i] = i < 65 ? 65 : 1;
    for (int i = 0; i < 80; i++) causal_17_63[i] = i < 17 ? i + 1 : i - 16;
    memcpy(few_rows, I32(72, 1, 70, 65), sizeof few_rows);
    const char *const who[] = { "", "plain" };
    for (int i = 0; i < 2; i++) {
        setenv("F2B_CUDA_ATTENTION", who[i], 1);
        f2b_check_ops(tensor_cases, sizeof tensor_cases / sizeof *tensor_cases);
    }
    unsetenv("F2B_CUDA_ATTENTION");
}

static void all_cases(void **state)
{
    (void)state;
    for (int i = 0; i < 130; i++) causal_130[i] = i + 1;
    for (int i = 0; i < 290; i++) causal_290[i] = i < 275 ? i + 1 : i - 274;
    for (int i = 0; i < 9; i++) full_9[i] = 9;
    for (int i = 0; i < 36; i++) causal_36[i] = i < 33 ? i + 1 : i - 32;
    for (int i = 0; i < 70; i++) falling_70[i] = 150 - 2 * i;
    fill_long();
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
    const int32_t *const wrong[] = { I32(1, 1), I32(0, 2), I32(0, -1), I32(0, 0) };
    for (int i = 0; i < 4; i++) {
        bad = layout, bad.shared = 1, bad.key_rows = ints(tape, wrong[i], 2);
        f2b_check_error(f2b_attention(tape, q, k, v, &bad, 1, 1.0), F2B_ERR_INVALID,
                        "key_rows of sequence 0 are not 1 shared");
    }
    bad.k_count = ints(tape, I32(2, 2), 2);
    f2b_check_error(f2b_attention(tape, q, k, v, &bad, 1, 1.0), F2B_ERR_SHAPE, "layout tensor 2");
    bad = layout, bad.shared = 0, bad.key_rows = ints(tape, I32(0), 1);
    f2b_check_error(f2b_attention(tape, q, k, v, &bad, 1, 1.0), F2B_ERR_INVALID, "key_rows of sequence 0");
    f2b_tape_free(tape);
    f2b_tensor_free(q), f2b_tensor_free(k), f2b_tensor_free(v);
}

/* ---- Rows in common ---- */

/* Outputs and all gradients with the keys that `layout` says, of [SHARED_ROWS, 64] q and k [rows, 64]. */
static void run_long(f2b_dtype type, bool in_common, void *o, void *dq)
{
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    const int64_t shape[] = { SHARED_ROWS, 64 };
    double *x = calloc(SHARED_ROWS * 64, sizeof *x);
    f2b_tensor *in[3];
    for (int i = 0; i < 3; i++) {
        for (int e = 0; e < SHARED_ROWS * 64; e++) x[e] = (double)((e * 7919 + i * 104729) % 1009) / 504.5 - 1;
        in[i] = f2b_check_leaf(type, 2, shape, x, true);
    }
    f2b_attention_layout layout = {
        ints(tape, shared_long.q_start, 3), ints(tape, shared_long.k_start, 2),
        ints(tape, shared_long.k_count, 2), ints(tape, long_limits, SHARED_ROWS),
        .key_rows = ints(tape, long_keys, SHARED_ROWS + COMMON), .shared = COMMON,
    };
    f2b_tensor *k = in[1], *v = in[2];
    if (!in_common) {
        k = f2b_rows_gather(tape, k, layout.key_rows), v = f2b_rows_gather(tape, v, layout.key_rows);
        layout.key_rows = NULL;
    }
    f2b_tensor *y = f2b_attention(tape, in[0], k, v, &layout, 64, 0.125);
    assert_non_null(y);
    memcpy(o, y->data, f2b_tensor_bytes(y));
    assert_int_equal(f2b_tape_seed_from(tape, y, in[1]->data), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    memcpy(dq, in[0]->grad, f2b_tensor_bytes(y));
    f2b_tape_free(tape);
    for (int i = 0; i < 3; i++) f2b_tensor_free(in[i]);
    free(x);
}

/* What a row comes to does not depend on whether others have its keys, too. */
static void rows_in_common_are_as_copies(void **state)
{
    (void)state;
    fill_long();
    static double o[2][SHARED_ROWS * 64], dq[2][SHARED_ROWS * 64];
    const f2b_dtype types[] = { F2B_F32, F2B_F64, F2B_BF16 };
    for (int i = 0; i < 3; i++) {
        for (int side = 0; side < 2; side++) run_long(types[i], side == 0, o[side], dq[side]);
        const size_t bytes = SHARED_ROWS * 64 * f2b_dtype_size(types[i]);
        assert_memory_equal(o[0], o[1], bytes);
        assert_memory_equal(dq[0], dq[1], bytes);
    }
}

/* ---- A row's bits are its own ---- */

static const f2b_device on_cuda = { F2B_CUDA, 0 };
static bool no_cuda(void)
{
    if (f2b_device_built(F2B_CUDA) && f2b_device_open(on_cuda) == F2B_OK) return false;
    print_message("[   CUDA   ] there is no CUDA device here\n");
    return true;
}

enum { ROWS = 80, LAST = 3, BEFORE = 21, WIDTH = 128 };
static f2b_bf16 numbers[4][(BEFORE + ROWS) * WIDTH];        /* q, k, v, the gradient that comes in */

typedef struct outcome {
    f2b_bf16 o[ROWS * WIDTH], dq[ROWS * WIDTH], dk[ROWS * WIDTH], dv[ROWS * WIDTH];
} outcome;

/* One sequence of ROWS keys, its rows' numbers always the same, for its last `queries` rows: behind
 * another sequence of `before` rows or by itself. What comes out for those rows and the keys. */
static void run_behind(int before, int queries, outcome *out)
{
    f2b_tape *tape = f2b_tape_new(on_cuda);
    const int64_t q_shape[] = { before + queries, WIDTH }, k_shape[] = { before + ROWS, WIDTH };
    int32_t limit[BEFORE + ROWS];
    for (int i = 0; i < before; i++) limit[i] = i + 1;
    for (int i = 0; i < queries; i++) limit[before + i] = ROWS - queries + i + 1;
    const int other = before > 0, first = BEFORE - before + ROWS - queries;     /* the first query */
    const f2b_attention_layout layout = {
        other ? ints(tape, I32(0, before, before + queries), 3) : ints(tape, I32(0, queries), 2),
        other ? ints(tape, I32(0, before), 2) : ints(tape, I32(0), 1),
        other ? ints(tape, I32(before, ROWS), 2) : ints(tape, I32(ROWS), 1),
        ints(tape, limit, before + queries),
    };
    f2b_tensor *in[3];
    for (int i = 0; i < 3; i++) {
        const int64_t *shape = i == 0 ? q_shape : k_shape;
        in[i] = f2b_tensor_new(on_cuda, F2B_BF16, 2, shape, F2B_TAG_OTHER);
        assert_int_equal(f2b_tensor_write(in[i], numbers[i] + (i == 0 ? first : BEFORE - before) * WIDTH),
                         F2B_OK);
        in[i]->requires_grad = true;
    }
    f2b_tensor *o = f2b_attention(tape, in[0], in[1], in[2], &layout, 64, 0.125);
    assert_non_null(o);
    const size_t q_bytes = (size_t)queries * WIDTH * sizeof(f2b_bf16), k_bytes = sizeof out->dk;
    const size_t at = (size_t)before * WIDTH;
    assert_int_equal(f2b_copy(out->o, F2B_HOST, (f2b_bf16 *)o->data + at, on_cuda, q_bytes), F2B_OK);
    assert_int_equal(f2b_tape_seed_from(tape, o, numbers[3] + first * WIDTH), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    assert_int_equal(f2b_copy(out->dq, F2B_HOST, (f2b_bf16 *)in[0]->grad + at, on_cuda, q_bytes), F2B_OK);
    assert_int_equal(f2b_copy(out->dk, F2B_HOST, (f2b_bf16 *)in[1]->grad + at, on_cuda, k_bytes), F2B_OK);
    assert_int_equal(f2b_copy(out->dv, F2B_HOST, (f2b_bf16 *)in[2]->grad + at, on_cuda, k_bytes), F2B_OK);
    f2b_tape_free(tape);
    for (int i = 0; i < 3; i++) f2b_tensor_free(in[i]);
}

static void rows_keep_their_bits(void **state)
{
    (void)state;
    if (no_cuda()) return;
    for (int i = 0; i < 4; i++)
        for (int e = 0; e < (BEFORE + ROWS) * WIDTH; e++)
            numbers[i][e] = f2b_f32_to_bf16((float)((e * 7919 + i * 104729) % 1009) / 504.5f - 1);
    static outcome alone, behind, last;
    run_behind(0, ROWS, &alone);
    run_behind(BEFORE, ROWS, &behind);
    assert_memory_equal(&alone, &behind, sizeof alone);
    run_behind(0, LAST, &last);             /* as generation has them: the last rows by themselves */
    const size_t from = (ROWS - LAST) * WIDTH, bytes = LAST * WIDTH * sizeof(f2b_bf16);
    assert_memory_equal(last.o, alone.o + from, bytes);
    assert_memory_equal(last.dq, alone.dq + from, bytes);
}

/* Who computes can be said; what can't be had is an error. */
static void families(void **state)
{
    (void)state;
    if (no_cuda()) return;
    f2b_tape *tape = f2b_tape_new(on_cuda);
    const int64_t shape[] = { 1, 64 };
    const f2b_attention_layout layout = { ints(tape, I32(0, 1), 2), ints(tape, I32(0), 1),
                                          ints(tape, I32(1), 1), ints(tape, I32(1), 1) };
    static const char zeros[64 * 4];
    f2b_tensor *f32 = f2b_tape_keep(f2b_tape_tensor_from(tape, F2B_F32, 2, shape, zeros));
    f2b_tensor *bf16 = f2b_tape_keep(f2b_tape_tensor_from(tape, F2B_BF16, 2, shape, zeros));
    setenv("F2B_CUDA_ATTENTION", "fast", 1);
    f2b_check_error(f2b_attention(tape, bf16, bf16, bf16, &layout, 64, 1), F2B_ERR_USAGE,
                    "\"fast\" is no family of kernels; there are plain and tensor");
    setenv("F2B_CUDA_ATTENTION", "tensor", 1);
    assert_non_null(f2b_attention(tape, bf16, bf16, bf16, &layout, 64, 1));
    f2b_check_error(f2b_attention(tape, f32, f32, f32, &layout, 64, 1), F2B_ERR_UNSUPPORTED, "for f32");
    f2b_check_error(f2b_attention(tape, bf16, bf16, bf16, &layout, 32, 1), F2B_ERR_UNSUPPORTED, "width");
    f2b_check_error(f2b_attention(tape, bf16, bf16, bf16, &layout, 64, -1), F2B_ERR_UNSUPPORTED, "scale");
    unsetenv("F2B_CUDA_ATTENTION");
    assert_non_null(f2b_attention(tape, bf16, bf16, bf16, &layout, 64, -1));
    assert_int_equal(f2b_device_wait(on_cuda), F2B_OK);
    f2b_tape_free(tape);
}

/* A layout that is wrong on the device, where only the kernels see it: named at the next wait. */
static void wrong_layout_on_cuda(void **state)
{
    (void)state;
    const f2b_device cuda = on_cuda;
    if (no_cuda()) return;
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
    const struct CMUnitTest tests[] = { cmocka_unit_test(all_cases), cmocka_unit_test(on_tensor_cores),
                                        cmocka_unit_test(hand_value),
                                        cmocka_unit_test(rows_in_common_are_as_copies),
                                        cmocka_unit_test(rows_keep_their_bits),
                                        cmocka_unit_test(families),
                                        cmocka_unit_test(wrong_layout_on_cuda) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
