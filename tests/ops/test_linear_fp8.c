/*
 * linear with weights stored as fp8. On a CUDA device with bf16 rows they are multiplied as 8-bit
 * floats: within what the formats' rounding explains of f64, in both directions, the trained parts
 * untouched. Elsewhere they are decoded.
 */
#include "tests/support/check_op.h"

#include <math.h>
#include <string.h>

#include "autograd/core/quant.h"
#include "autograd/core/rng.h"
#include "autograd/device/device.h"
#include "autograd/ops/linear/linear.h"
#include "autograd/ops/mul/mul.h"
#include "tests/emulation/emulation.h"

/* Only in programs that have the emulated device. */
void f2b_emulation_set_order(f2b_emulation_order order, uint64_t seed) F2B_WEAK;
void f2b_emulation_set_capability(int capability) F2B_WEAK;

enum { ROWS = 19, IN = 144, OUT0 = 96, OUT1 = 48, RANK = 5, PROJECTIONS = 2 };
static const int64_t outs[PROJECTIONS] = { OUT0, OUT1 };
static const f2b_device cuda = { F2B_CUDA, 0 };

/* Everything as f64, exactly what a bf16 holds; rows and gradients of very different size. */
typedef struct numbers {
    int64_t rows;
    bool adds;                  /* a residual to each y */
    double residual[PROJECTIONS][ROWS * OUT0];
    double x[ROWS * IN], dy[PROJECTIONS][ROWS * OUT0], w[PROJECTIONS][OUT0 * IN];
    double bias[PROJECTIONS][OUT0], a[PROJECTIONS][RANK * IN], b[PROJECTIONS][OUT0 * RANK];
} numbers;

/* What a run gives. */
typedef struct result {
    double y[PROJECTIONS][ROWS * OUT0], dx[ROWS * IN];
    float da[PROJECTIONS][RANK * IN], db[PROJECTIONS][OUT0 * RANK], dbias[PROJECTIONS][OUT0];
} result;

static void draw(f2b_rng *r, double *values, int64_t n, int64_t row, double spread)
{
    for (int64_t i = 0; i < n; i++) {
        const double size = exp2(spread * (double)(i / row % 7 - 3));
        values[i] = (double)f2b_bf16_to_f32(f2b_f32_to_bf16((float)(size * f2b_rng_normal(r))));
    }
}

static numbers *numbers_new(void)
{
    numbers *n = f2b_alloc_host(sizeof *n, F2B_TAG_OTHER);
    assert_non_null(n);
    f2b_rng r = f2b_rng_new(11, F2B_RNG_TEST, 0, 0, 0);
    n->rows = ROWS, n->adds = false;
    draw(&r, n->x, ROWS * IN, IN, 4);
    for (int p = 0; p < PROJECTIONS; p++) {
        draw(&r, n->dy[p], ROWS * outs[p], outs[p], -5);
        draw(&r, n->w[p], outs[p] * IN, IN, 1);
        draw(&r, n->bias[p], outs[p], outs[p], 0);
        draw(&r, n->a[p], RANK * IN, IN, 0);
        draw(&r, n->b[p], outs[p] * RANK, RANK, 0);
        draw(&r, n->residual[p], ROWS * outs[p], outs[p], 3);
    }
    return n;
}

static f2b_tensor *leaf(f2b_device device, f2b_dtype dtype, int64_t rows, int64_t cols,
                        const double *values, bool trained)
{
    const int64_t shape[] = { rows, cols };
    f2b_tensor *t = rows > 1 ? f2b_tensor_new(device, dtype, 2, shape, F2B_TAG_WEIGHTS)
                             : f2b_tensor_new(device, dtype, 1, shape + 1, F2B_TAG_WEIGHTS);
    void *bytes = f2b_alloc_host(f2b_tensor_bytes(t), F2B_TAG_OTHER);
    if (f2b_dtype_is_quantised(dtype))
        assert_int_equal(f2b_quantise(dtype, rows, cols, values, F2B_F64, bytes), F2B_OK);
    else f2b_convert(bytes, dtype, values, F2B_F64, (size_t)(rows * cols));
    assert_int_equal(f2b_tensor_write(t, bytes), F2B_OK);
    f2b_free(bytes);
    t->requires_grad = trained;
    return t;
}

static void fetch(f2b_device device, f2b_dtype dtype, const void *src, int64_t n, double *values)
{
    void *bytes = f2b_alloc_host((size_t)n * 8, F2B_TAG_OTHER);
    assert_int_equal(f2b_copy(bytes, F2B_HOST, src, device, (size_t)n * f2b_dtype_size(dtype)), F2B_OK);
    f2b_convert(values, F2B_F64, bytes, dtype, (size_t)n);
    f2b_free(bytes);
}

static f2b_tensor *of_tape(f2b_tape *tape, f2b_dtype dtype, int64_t rows, int64_t cols,
                           const double *values)
{
    double bytes[ROWS * IN];
    f2b_convert(bytes, dtype, values, F2B_F64, (size_t)(rows * cols));
    return f2b_tape_keep(f2b_tape_tensor_from(tape, dtype, 2, (int64_t[]){ rows, cols }, bytes));
}

/* The group, with its loss so that dy is what `n` says; lora: with LoRA, dropout and biases too. */
static void run(f2b_device device, f2b_dtype rows, f2b_dtype stored, bool lora, const numbers *n,
                result *got)
{
    static const uint64_t row_keys[ROWS] = { 3, 1, 4, 1, 5, 9, 2, 6 };
    f2b_tape *tape = f2b_tape_new(device);
    const f2b_tensor *keys = f2b_tape_table(tape, F2B_U8, 1, (int64_t[]){ sizeof row_keys }, row_keys);
    const f2b_dropout dropout = { 0.25f, 7, 3, 5, keys->data };
    f2b_projection p[PROJECTIONS] = { { 0 } };
    f2b_tensor *y[PROJECTIONS], *x = of_tape(tape, rows, n->rows, IN, n->x);
    x->requires_grad = true;
    for (int i = 0; i < PROJECTIONS; i++) {
        p[i].weight = leaf(device, stored, outs[i], IN, n->w[i], false);
        if (n->adds) p[i].residual = of_tape(tape, rows, n->rows, outs[i], n->residual[i]);
        if (!lora) continue;
        p[i].bias = leaf(device, F2B_F32, 1, outs[i], n->bias[i], true);
        p[i].lora_a = leaf(device, F2B_F32, RANK, IN, n->a[i], true);
        p[i].lora_b = leaf(device, F2B_F32, outs[i], RANK, n->b[i], true);
    }
    if (f2b_linear_group(tape, x, p, PROJECTIONS, 0.5, lora ? &dropout : NULL, y) != F2B_OK)
        fail_msg("%s", f2b_last_error());
    for (int i = 0; i < PROJECTIONS; i++) {
        fetch(device, rows, y[i]->data, n->rows * outs[i], got->y[i]);
        f2b_tensor *loss = f2b_mul(tape, y[i], of_tape(tape, rows, n->rows, outs[i], n->dy[i]));
        assert_non_null(loss);
        assert_int_equal(f2b_tape_seed(tape, loss, 1), F2B_OK);
    }
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    fetch(device, rows, x->grad, n->rows * IN, got->dx);
    for (int i = 0; i < PROJECTIONS; i++) {
        f2b_tensor *all[] = { p[i].weight, p[i].bias, p[i].lora_a, p[i].lora_b };
        float *to[] = { NULL, got->dbias[i], got->da[i], got->db[i] };
        for (int j = 0; j < 4; j++) {
            if (all[j] != NULL && to[j] != NULL)
                assert_int_equal(f2b_tensor_read_grad(all[j], to[j]), F2B_OK);
            f2b_tensor_free(all[j]);
        }
    }
    f2b_tape_free(tape);
}

/* ---- Products in 8-bit floats ---- */

/* out [R,C] = l [R,K] r, where r(k,c) is r[k * by_k + c * by_c], within rounding of `want` = f64: each
 * factor has a relative error of 2^-4, or in its row's (column's) smallest numbers one of 2^-10 of the
 * step that 448 stands for; the result 2^-8 for each time that it was rounded to bf16. Adds to error and
 * size for the error of the whole. */
static void within_formats(const char *what, const double *got, const double *l, const double *r,
                           int64_t R, int64_t K, int64_t C, int64_t by_k, int64_t by_c, double sums[2])
{
    for (int64_t i = 0; i < R; i++) {
        double most_l = 0;
        for (int64_t k = 0; k < K; k++) most_l = fmax(most_l, fabs(l[i * K + k]));
        for (int64_t c = 0; c < C; c++) {
            double want = 0, bound = 0, most_r = 0;
            for (int64_t k = 0; k < K; k++) most_r = fmax(most_r, fabs(r[k * by_k + c * by_c]));
            for (int64_t k = 0; k < K; k++) {
                const double a = l[i * K + k], b = r[k * by_k + c * by_c];
                const double da = fmax(fabs(a) * 0x1p-4, most_l / 448 * 0x1p-10);
                const double db = fmax(fabs(b) * 0x1p-4, most_r / 448 * 0x1p-10);
                want += a * b;
                bound += da * fabs(b) + db * fabs(a) + da * db;
            }
            bound = bound * 1.001 + 0x1p-7 * fabs(want);
            const double error = fabs(got[i * C + c] - want);
            if (!(error <= bound))
                fail_msg("%s[%d,%d] is %g, not %g within %g", what, (int)i, (int)c, got[i * C + c], want,
                         bound);
            sums[0] += error * error / (most_l * most_l), sums[1] += want * want / (most_l * most_l);
        }
    }
}

static void check_against_f64(const numbers *n, const result *got)
{
    double y_sums[2] = { 0, 0 }, dx_sums[2] = { 0, 0 };
    for (int p = 0; p < PROJECTIONS; p++)
        within_formats("y", got->y[p], n->x, n->w[p], n->rows, IN, outs[p], 1, IN, y_sums);
    /* dx is the sum of two products: as one of the operands side by side. */
    static double dy[ROWS * (OUT0 + OUT1)], w[(OUT0 + OUT1) * IN];
    for (int p = 0, at = 0; p < PROJECTIONS; at += (int)outs[p++]) {
        for (int i = 0; i < n->rows; i++)
            memcpy(dy + i * (OUT0 + OUT1) + at, n->dy[p] + i * outs[p], (size_t)outs[p] * sizeof *dy);
        memcpy(w + (int64_t)at * IN, n->w[p], (size_t)(outs[p] * IN) * sizeof *w);
    }
    within_formats("dx", got->dx, dy, w, n->rows, OUT0 + OUT1, IN, IN, 1, dx_sums);
    /* Single numbers are off by 0.026 in the mean (e4m3 of normal numbers), products by sqrt(2) of it. */
    const double y_error = sqrt(y_sums[0] / y_sums[1]), dx_error = sqrt(dx_sums[0] / dx_sums[1]);
    print_message("[   fp8    ] y is off by %.4f, dx by %.4f\n", y_error, dx_error);
    assert_true(y_error < 0.045 && dx_error < 0.045 && y_error > 0.005 && dx_error > 0.005);
}

static bool no_device(void)
{
    if (!f2b_device_built(F2B_CUDA)) return true;
    if (f2b_device_takes_fp8(cuda) == F2B_OK) return false;
    print_message("[   CUDA   ] there is no CUDA device here: %s\n", f2b_last_error());
    return true;
}

static void multiplied(void **state)
{
    (void)state;
    if (no_device()) return;
    numbers *n = numbers_new();
    static result first, other;
    run(cuda, F2B_BF16, F2B_FP8, false, n, &first);
    check_against_f64(n, &first);
    for (int order = 0; f2b_emulation_set_order != NULL && order < F2B_EMULATION_ORDERS; order++) {
        f2b_emulation_set_order(order, 5);
        run(cuda, F2B_BF16, F2B_FP8, false, n, &other);
        assert_memory_equal(first.y, other.y, sizeof first.y);
        assert_memory_equal(first.dx, other.dx, sizeof first.dx);
    }
    f2b_free(n);
}

/* On a device without scales a row in cuBLASLt, which the kernel after the product replaces. */
static void multiplied_then_scaled(void **state)
{
    (void)state;
    if (no_device() || f2b_emulation_set_capability == NULL) return;
    numbers *n = numbers_new();
    static result got;
    n->rows = ROWS - 1;                 /* shapes for which nothing is remembered yet */
    f2b_emulation_set_capability(89);
    run(cuda, F2B_BF16, F2B_FP8, false, n, &got);
    f2b_emulation_set_capability(90);
    check_against_f64(n, &got);
    f2b_free(n);
}

/* LoRA, dropout and biases are those of a bf16 weight: their gradients to the bit. */
static void trained_parts(void **state)
{
    (void)state;
    if (no_device()) return;
    numbers *n = numbers_new();
    static result fp8, bf16;
    run(cuda, F2B_BF16, F2B_FP8, true, n, &fp8);
    run(cuda, F2B_BF16, F2B_BF16, true, n, &bf16);
    for (int p = 0; p < PROJECTIONS; p++) {
        assert_memory_equal(fp8.da[p], bf16.da[p], sizeof fp8.da[p]);
        assert_memory_equal(fp8.db[p], bf16.db[p], (size_t)(outs[p] * RANK) * sizeof(float));
        assert_memory_equal(fp8.dbias[p], bf16.dbias[p], (size_t)outs[p] * sizeof(float));
        double error = 0, size = 0;
        for (int i = 0; i < ROWS * outs[p]; i++) {
            error += pow(fp8.y[p][i] - bf16.y[p][i], 2);
            size += pow(bf16.y[p][i], 2);
        }
        assert_true(error < 0.045 * 0.045 * size && error > 0);
    }
    double dot = 0, a = 0, b = 0;
    for (int i = 0; i < ROWS * IN; i++) {
        dot += fp8.dx[i] * bf16.dx[i];
        a += fp8.dx[i] * fp8.dx[i], b += bf16.dx[i] * bf16.dx[i];
    }
    assert_true(dot / sqrt(a * b) > 0.999);                 /* the direction of the gradient */
    f2b_free(n);
}

static void add_residuals(int64_t rows, bool lora)
{
    static result without, with;
    numbers *n = numbers_new();
    n->rows = rows;
    run(cuda, F2B_BF16, F2B_FP8, lora, n, &without);
    n->adds = true;
    run(cuda, F2B_BF16, F2B_FP8, lora, n, &with);
    assert_memory_equal(with.dx, without.dx, (size_t)(rows * IN) * sizeof *with.dx);
    for (int p = 0; p < PROJECTIONS; p++)
        for (int64_t at = 0; at < rows * outs[p]; at += outs[p]) {
            const double *y = without.y[p] + at, *got = with.y[p] + at, *r = n->residual[p] + at;
            double most = 0;            /* a LoRA's part of y is rounded as well, and may be larger than y */
            for (int64_t c = 0; c < outs[p]; c++) most = fmax(most, fabs(y[c]));
            for (int64_t c = 0; c < outs[p]; c++)
                assert_true(fabs(got[c] - (y[c] + r[c])) <= 0x1p-7 * (most + fabs(r[c])));
        }
    f2b_free(n);
}

/* Added by the product, by the kernel that applies scales, and by a LoRA's product. */
static void residuals(void **state)
{
    (void)state;
    if (no_device()) return;
    add_residuals(ROWS, false);
    add_residuals(ROWS, true);
    if (f2b_emulation_set_capability == NULL) return;
    f2b_emulation_set_capability(89);
    add_residuals(ROWS - 2, false);
    add_residuals(ROWS - 2, true);
    f2b_emulation_set_capability(90);
}

/* A row with a number that is none gives a row of none, as in bf16, and no other row. */
static void bad_numbers(void **state)
{
    (void)state;
    if (no_device()) return;
    numbers *n = numbers_new();
    static result clean, got;
    run(cuda, F2B_BF16, F2B_FP8, false, n, &clean);
    n->x[2 * IN + 77] = NAN, n->x[5 * IN] = INFINITY;
    for (int i = 0; i < IN; i++) n->x[7 * IN + i] = 0;
    run(cuda, F2B_BF16, F2B_FP8, false, n, &got);
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < OUT0; c++) {
            const double y = got.y[0][r * OUT0 + c];
            if (r == 2 || r == 5) assert_true(isnan(y));
            else assert_true(y == (r == 7 ? 0 : clean.y[0][r * OUT0 + c]));
        }
    f2b_free(n);
}

/* ---- Decoded ---- */

static f2b_tensor *decoded(const double *w, int64_t rows, float *values)
{
    f2b_tensor *t = leaf(F2B_HOST, F2B_FP8, rows, IN, w, false);
    f2b_quant_decode(F2B_FP8, t->data, 0, rows * IN, values);
    return t;
}

static void close_by_row(const double *got, const double *want, int64_t cols)
{
    for (int64_t r = 0; r < ROWS; r++) {
        double error = 0, size = 0;
        for (int64_t i = r * cols; i < (r + 1) * cols; i++) {
            error += pow(got[i] - want[i], 2);
            size += pow(want[i], 2);
        }
        assert_true(error <= 1e-12 * size);
    }
}

/* Other rows, and the host, multiply what is stored: values of f32. */
static void as_stored(void **state)
{
    (void)state;
    static float values[OUT0 * IN];
    static result want, got;
    numbers *n = numbers_new();
    run(F2B_HOST, F2B_F32, F2B_FP8, true, n, &got);
    const bool on_cuda = f2b_device_built(F2B_CUDA) && f2b_device_open(cuda) == F2B_OK;
    static result there;
    if (on_cuda) run(cuda, F2B_F32, F2B_FP8, true, n, &there);
    for (int p = 0; p < PROJECTIONS; p++) {
        f2b_tensor_free(decoded(n->w[p], outs[p], values));
        for (int64_t i = 0; i < outs[p] * IN; i++) n->w[p][i] = (double)values[i];
    }
    run(F2B_HOST, F2B_F32, F2B_F32, true, n, &want);
    assert_memory_equal(want.y, got.y, sizeof got.y);
    assert_memory_equal(want.dx, got.dx, sizeof got.dx);
    if (on_cuda) {
        close_by_row(there.dx, want.dx, IN);
        for (int p = 0; p < PROJECTIONS; p++) close_by_row(there.y[p], want.y[p], outs[p]);
    }
    f2b_free(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(multiplied), cmocka_unit_test(multiplied_then_scaled),
        cmocka_unit_test(trained_parts), cmocka_unit_test(residuals), cmocka_unit_test(bad_numbers),
        cmocka_unit_test(as_stored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
