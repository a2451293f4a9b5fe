/*
 * Where few rows of a gradient are wanted (f2b_tape_want_grad_rows), rms_norm and linear give them and the
 * gradients of what is trained as if all were wanted: the same bits on the host, on a device what other
 * sizes of a product may change. Through a checkpointed segment too.
 */
#include "tests/support/check_op.h"

#include <math.h>
#include <string.h>

#include "autograd/core/profile.h"
#include "autograd/core/quant.h"
#include "autograd/core/rng.h"
#include "autograd/device/device.h"
#include "autograd/ops/add/add.h"
#include "autograd/ops/linear/linear.h"
#include "autograd/ops/rms_norm/rms_norm.h"

enum { ROWS = 37, D = 48, OTHER = 32, RANK = 4, WANTED = 5, LEAVES = 7, TRAINED = 4 };
static const int32_t wanted[WANTED] = { 3, 4, 19, 20, 36 };
static const f2b_device cuda = { F2B_CUDA, 0 };

typedef struct setting {
    f2b_device device;
    f2b_dtype dtype, stored;
    bool lora, dropout, segment, twice, fused;
} setting;

/* Norm, two weights; then the two LoRAs. */
static const int64_t shapes[LEAVES][2] = { { D, 1 },    { D, D },     { OTHER, D },    { RANK, D },
                                           { D, RANK }, { RANK, D }, { OTHER, RANK } };

typedef struct graph {
    const setting *s;
    f2b_tensor *leaves[LEAVES];
    f2b_dropout dropout;
} graph;

static f2b_tensor *leaf(const setting *s, int i)
{
    f2b_rng r = f2b_rng_new(5, F2B_RNG_TEST, 0, (uint64_t)i, 0);
    double values[D * D];
    const int64_t n = shapes[i][0] * shapes[i][1];
    for (int64_t k = 0; k < n; k++) values[k] = f2b_rng_normal(&r) / 4;
    const bool trained = i >= LEAVES - TRAINED;
    const f2b_dtype dtype = trained || i == 0 ? (s->dtype == F2B_F64 ? F2B_F64 : F2B_F32) : s->stored;
    f2b_tensor *t = f2b_tensor_new(s->device, dtype, i == 0 ? 1 : 2, shapes[i], F2B_TAG_WEIGHTS);
    assert_non_null(t);
    void *bytes = f2b_alloc_host(f2b_tensor_bytes(t), F2B_TAG_OTHER);
    if (f2b_dtype_is_quantised(dtype))
        assert_int_equal(f2b_quantise(dtype, shapes[i][0], shapes[i][1], values, F2B_F64, bytes), F2B_OK);
    else f2b_convert(bytes, dtype, values, F2B_F64, (size_t)n);
    assert_int_equal(f2b_tensor_write(t, bytes), F2B_OK);
    f2b_free(bytes);
    t->requires_grad = trained && s->lora;
    return t;
}

/* out[0] = x + (h W0), fused: by linear; out[1] = h W1 with h = norm(x); twice: and h W1 once more. */
static f2b_status body(f2b_tape *tape, const void *context, f2b_tensor *const *in, f2b_tensor **out)
{
    const graph *g = context;
    f2b_tensor *const *l = g->leaves;
    f2b_projection p[2] = { { .weight = l[1] }, { .weight = l[2] } };
    if (g->s->lora) p[0].lora_a = l[3], p[0].lora_b = l[4], p[1].lora_a = l[5], p[1].lora_b = l[6];
    if (g->s->fused) p[0].residual = in[0];
    f2b_tensor *h = f2b_rms_norm(tape, in[0], l[0], 1e-5), *y[2];
    F2B_TRY(f2b_linear_group(tape, h, p, 2, 0.5, g->s->dropout ? &g->dropout : NULL, y));
    out[0] = g->s->fused ? y[0] : f2b_add(tape, in[0], y[0]);
    out[1] = g->s->twice ? f2b_add(tape, y[1], f2b_linear(tape, h, l[2], NULL)) : y[1];
    return out[0] != NULL && out[1] != NULL ? F2B_OK : f2b_last_status();
}

typedef struct result {
    double dx[ROWS * D];
    double leaves[LEAVES][D * D];
} result;

static void fetch(f2b_device device, f2b_dtype dtype, const void *from, int64_t n, double *to)
{
    double bytes[ROWS * D > D * D ? ROWS * D : D * D];
    assert_non_null(from);
    assert_int_equal(f2b_copy(bytes, F2B_HOST, from, device, (size_t)n * f2b_dtype_size(dtype)), F2B_OK);
    f2b_convert(to, F2B_F64, bytes, dtype, (size_t)n);
}

static void draw(f2b_dtype dtype, uint64_t stream, int64_t n, void *to)
{
    f2b_rng r = f2b_rng_new(6, F2B_RNG_TEST, 0, stream, 0);
    double values[ROWS * D];
    for (int64_t i = 0; i < n; i++) values[i] = f2b_rng_normal(&r);
    f2b_convert(to, dtype, values, F2B_F64, (size_t)n);
}

static void run(const setting *s, bool few, result *got)
{
    static const uint64_t row_keys[ROWS] = { 3, 1, 4, 1, 5, 9, 2, 6, [19] = 7, [20] = 8, [36] = 11 };
    double numbers[ROWS * D];
    memset(got, 0, sizeof *got);
    f2b_tape *tape = f2b_tape_new(s->device);
    const f2b_tensor *keys = f2b_tape_table(tape, F2B_U8, 1, (int64_t[]){ sizeof row_keys }, row_keys);
    graph g = { .s = s, .dropout = { 0.25f, 7, 3, 5, keys->data } };
    for (int i = 0; i < LEAVES; i++) g.leaves[i] = leaf(s, i);
    draw(s->dtype, 0, ROWS * D, numbers);
    f2b_tensor *x = f2b_tape_tensor_from(tape, s->dtype, 2, (int64_t[]){ ROWS, D }, numbers), *out[2];
    assert_non_null(f2b_tape_keep(x));
    x->requires_grad = true;
    if (few) f2b_tape_want_grad_rows(x, f2b_tape_table(tape, F2B_I32, 1, (int64_t[]){ WANTED }, wanted));
    if ((s->segment ? f2b_tape_segment(tape, body, &g, sizeof g, &x, 1, out, 2)
                    : body(tape, &g, &x, out)) != F2B_OK)
        fail_msg("%s", f2b_last_error());
    for (int o = 0; o < 2; o++) {
        draw(s->dtype, 1 + (uint64_t)o, f2b_numel(out[o]), numbers);
        assert_int_equal(f2b_tape_seed_from(tape, out[o], numbers), F2B_OK);
    }
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    fetch(s->device, s->dtype, x->grad, ROWS * D, got->dx);
    for (int i = 0; i < LEAVES; i++) {
        const f2b_tensor *t = g.leaves[i];
        if (t->requires_grad) fetch(s->device, t->dtype, t->grad, f2b_numel(t), got->leaves[i]);
        f2b_tensor_free(g.leaves[i]);
    }
    f2b_tape_free(tape);
}

static void compare(const setting *s)
{
    static result all, few;
    const int64_t before = f2b_bytes_in_use(F2B_TAG_COUNT);
    run(s, false, &all);
    run(s, true, &few);
    assert_int_equal(f2b_bytes_in_use(F2B_TAG_COUNT), before);
    const double within = s->device.kind == F2B_CPU ? 0 : s->dtype == F2B_BF16 ? 0x1p-7 : 1e-5;
    double size = 0;
    for (int w = 0; w < WANTED; w++)
        for (int64_t c = 0; c < D; c++) {
            const int64_t at = wanted[w] * D + c;
            size += fabs(all.dx[at]);
            if (!(fabs(all.dx[at] - few.dx[at]) <= within * fmax(1, fabs(all.dx[at]))))
                fail_msg("row %d, column %d: %g instead of %g", wanted[w], (int)c, few.dx[at], all.dx[at]);
        }
    assert_true(size > WANTED * D * 0.1);
    assert_memory_equal(all.leaves, few.leaves, sizeof all.leaves);
}

static void the_same_with_everything(f2b_device device, f2b_dtype dtype, f2b_dtype stored)
{
    for (unsigned bits = 0; bits < 32; bits++) {
        const setting s = { device, dtype, stored, bits & 1, bits & 2, bits & 4, bits & 8, bits & 16 };
        if (s.dropout && !s.lora) continue;
        compare(&s);
    }
}

static void on_the_host(void **state)
{
    (void)state;
    the_same_with_everything(F2B_HOST, F2B_F32, F2B_F32);
    the_same_with_everything(F2B_HOST, F2B_F64, F2B_F32);
    the_same_with_everything(F2B_HOST, F2B_BF16, F2B_BF16);
    the_same_with_everything(F2B_HOST, F2B_BF16, F2B_INT8);
}

static void on_a_device(void **state)
{
    (void)state;
    if (f2b_device_open(cuda) != F2B_OK) {
        f2b_clear_error();
        skip();
    }
    the_same_with_everything(cuda, F2B_F32, F2B_F32);
    the_same_with_everything(cuda, F2B_BF16, F2B_BF16);
    the_same_with_everything(cuda, F2B_BF16, F2B_NF4);
    the_same_with_everything(cuda, F2B_BF16, F2B_FP8);
}

/* Operations of linear's backward. */
static double backward_flops(bool few)
{
    const setting s = { .device = F2B_HOST, .dtype = F2B_F32, .stored = F2B_F32 };
    static result got;
    f2b_profile_reset();
    f2b_profile_enable(true);
    run(&s, few, &got);
    f2b_profile_enable(false);
    const f2b_profile_row *rows;
    const int n = f2b_profile_rows(&rows);
    for (int i = 0; i < n; i++)
        if (strcmp(rows[i].name, "linear") == 0 && rows[i].backward) return rows[i].flops;
    return 0;
}

static void only_wanted_rows_are_multiplied(void **state)
{
    (void)state;
    assert_float_equal(backward_flops(false), 2.0 * ROWS * D * (D + OTHER), 0);
    assert_float_equal(backward_flops(true), 2.0 * WANTED * D * (D + OTHER), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(on_the_host),
        cmocka_unit_test(on_a_device),
        cmocka_unit_test(only_wanted_rows_are_multiplied),
    };
    return cmocka_run_group_tests_name("grad_rows", tests, NULL, NULL);
}
