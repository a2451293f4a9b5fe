/* linear: groups, biases, LoRA, dropout, residuals, stored weights. */
#include "tests/support/check_op.h"

#include <math.h>

#include "autograd/core/quant.h"
#include "autograd/core/rng.h"
#include "autograd/device/device.h"
#include "autograd/ops/linear/linear.h"

typedef struct setup {
    int n;                      /* projections; each takes weight, then what the flags say */
    bool bias, lora;
    float dropout;
    enum { NO_RESIDUAL, ITS_OWN, X_ITSELF } residual;
} setup;

static const uint64_t row_keys[64] = { 11, 12, 13, 14, 15, 16, 17, 18 };

static int build(f2b_tape *tape, f2b_dtype dtype, f2b_tensor *const *in, const void *context,
                 f2b_tensor **out)
{
    (void)dtype;
    const setup *s = context;
    f2b_projection p[F2B_MAX_PROJECTIONS] = { 0 };
    int at = 1;
    for (int i = 0; i < s->n; i++) {
        p[i].weight = in[at++];
        if (s->bias) p[i].bias = in[at++];
        if (s->lora) p[i].lora_a = in[at++], p[i].lora_b = in[at++];
        if (s->residual != NO_RESIDUAL) p[i].residual = s->residual == ITS_OWN ? in[at++] : in[0];
    }
    f2b_tensor *keys = f2b_tape_table(tape, F2B_U8, 1, (int64_t[]){ sizeof row_keys }, row_keys);
    if (keys == NULL) return 0;
    const f2b_dropout d = { s->dropout, 7, 3, 5, keys->data };
    return f2b_linear_group(tape, in[0], p, s->n, 0.5, s->dropout > 0 ? &d : NULL, out) == F2B_OK
           ? s->n : 0;
}

#define X(rows, in) { F2B_CHECK_ACTIVATION, 2, { rows, in }, -1, 1, NULL, true }
#define XK(rows, in) { F2B_CHECK_ACTIVATION, 2, { rows, in }, -1, 1, NULL, false }
#define W(out, in) { F2B_CHECK_PARAMETER, 2, { out, in }, -1, 1, NULL, false }
#define FROZEN(out, in) { F2B_CHECK_CONSTANT, 2, { out, in }, -1, 1, NULL, false }
#define BIAS(out) { F2B_CHECK_PARAMETER, 1, { out }, -1, 1, NULL, false }

static const setup plain = { .n = 1 }, biased = { .n = 1, .bias = true };
static const setup lora = { .n = 1, .bias = true, .lora = true }, three = { .n = 3, .lora = true };
static const setup dropped = { .n = 2, .lora = true, .dropout = 0.25f };
static const setup added = { .n = 1, .residual = ITS_OWN }, itself = { .n = 1, .residual = X_ITSELF };
static const setup added_twice = { .n = 2, .bias = true, .residual = ITS_OWN };
static const setup added_lora = { .n = 1, .bias = true, .lora = true, .dropout = 0.25f, .residual = ITS_OWN };

static const f2b_check_case cases[] = {
    { "one element", build, &plain, 2, { X(1, 1), W(1, 1) }, 0, 0, 0 },
    { "odd sizes, trained", build, &biased, 3, { X(5, 7), W(3, 7), BIAS(3) }, 0, 0, 0 },
    { "more rows than a tile, long sums", build, &biased, 3, { X(45, 301), W(33, 301), BIAS(33) },
      0, 0, 0 },
    { "frozen weight", build, &plain, 2, { X(4, 19), FROZEN(17, 19) }, 0, 0, 0 },
    { "LoRA on a frozen weight", build, &lora, 5,
      { X(6, 20), FROZEN(9, 20), BIAS(9), W(4, 20), W(9, 4) }, 0, 0, 0 },
    { "three projections of the same rows", build, &three, 10,
      { X(7, 16), FROZEN(24, 16), W(3, 16), W(24, 3), FROZEN(8, 16), W(2, 16), W(8, 2),
        FROZEN(8, 16), W(5, 16), W(8, 5) }, 0, 0, 0 },
    { "dropout on the LoRA's input", build, &dropped, 7,
      { XK(8, 33), FROZEN(12, 33), W(3, 33), W(12, 3), FROZEN(10, 33), W(4, 33), W(10, 4) }, 0, 0, 0 },
    { "a residual", build, &added, 3, { X(5, 7), W(3, 7), X(5, 3) }, 0, 0, 0 },
    { "a residual, long sums", build, &added, 3, { X(45, 1501), FROZEN(33, 1501), X(45, 33) }, 0, 0, 0 },
    { "a residual that is x", build, &itself, 2, { X(6, 9), W(9, 9) }, 0, 0, 0 },
    { "two residuals, biased", build, &added_twice, 7,
      { X(7, 16), FROZEN(24, 16), BIAS(24), X(7, 24), W(8, 16), BIAS(8), X(7, 8) }, 0, 0, 0 },
    { "a residual, LoRA, dropout", build, &added_lora, 6,
      { XK(8, 33), FROZEN(12, 33), BIAS(12), W(3, 33), W(12, 3), XK(8, 12) }, 0, 0, 0 },
    { "no rows", build, &lora, 5, { XK(0, 4), FROZEN(3, 4), BIAS(3), W(2, 4), W(3, 2) }, 0, 0, 0 },
};

static void all_cases(void **state)
{
    (void)state;
    f2b_check_ops(cases, sizeof cases / sizeof *cases);
}

/* y = x W^T + b + 2 (x A^T) B^T with x = [1 2], W = [[1 0] [3 1]], b = [1 -1], A = [[1 1]], B = [1 2]^T:
 * x W^T = [1 5]; x A^T = 3; so y = [1+1+6, 5-1+12] = [8 16]. */
static void hand_value(void **state)
{
    (void)state;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tensor *x = f2b_check_leaf(F2B_F32, 2, (int64_t[]){ 1, 2 }, (double[]){ 1, 2 }, true);
    f2b_tensor *w = f2b_check_leaf(F2B_F32, 2, (int64_t[]){ 2, 2 }, (double[]){ 1, 0, 3, 1 }, false);
    f2b_tensor *b = f2b_check_leaf(F2B_F32, 1, (int64_t[]){ 2 }, (double[]){ 1, -1 }, false);
    f2b_tensor *la = f2b_check_leaf(F2B_F32, 2, (int64_t[]){ 1, 2 }, (double[]){ 1, 1 }, true);
    f2b_tensor *lb = f2b_check_leaf(F2B_F32, 2, (int64_t[]){ 2, 1 }, (double[]){ 1, 2 }, true);
    f2b_tensor *y;
    assert_int_equal(f2b_linear_group(tape, x, &(f2b_projection){ w, b, la, lb, NULL }, 1, 2.0, NULL, &y),
                     F2B_OK);
    f2b_check_near(y, (double[]){ 8, 16 }, 2, 0);
    /* dy = [1 1]: dx = dy W + 2 (dy B) A = [4 1] + 2*3*[1 1]; dA = 2 (dy B) x = 6 [1 2];
     * dB = 2 dy^T (x A^T) = [6 6]. */
    assert_int_equal(f2b_tape_seed(tape, y, 1), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    f2b_check_grad_near(x, (double[]){ 10, 7 }, 2, 0);
    f2b_check_grad_near(la, (double[]){ 6, 12 }, 2, 0);
    f2b_check_grad_near(lb, (double[]){ 6, 6 }, 2, 0);
    assert_null(w->grad);
    f2b_tape_free(tape);
    f2b_tensor *all[] = { x, w, b, la, lb };
    for (int i = 0; i < 5; i++) f2b_tensor_free(all[i]);
}

/* A sum of 257 and 1 that is rounded to bf16 once is 258; 257 alone would be 256, and with 1 more stay so. */
static void a_residual_is_rounded_with_the_product(void **state)
{
    (void)state;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tensor *x = f2b_check_leaf(F2B_BF16, 2, (int64_t[]){ 1, 2 }, (double[]){ 16, 1 }, false);
    f2b_tensor *w = f2b_check_leaf(F2B_BF16, 2, (int64_t[]){ 1, 2 }, (double[]){ 16, 1 }, false);
    f2b_tensor *r = f2b_check_leaf(F2B_BF16, 2, (int64_t[]){ 1, 1 }, (double[]){ 1 }, true), *y;
    assert_int_equal(f2b_linear_group(tape, x, &(f2b_projection){ .weight = w, .residual = r }, 1, 0, NULL, &y),
                     F2B_OK);
    f2b_check_near(y, (double[]){ 258 }, 1, 0);
    assert_int_equal(f2b_tape_seed(tape, y, 3), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);      /* of nothing but the residual */
    f2b_check_grad_near(r, (double[]){ 3 }, 1, 0);
    assert_null(x->grad);
    f2b_tape_free(tape);
    f2b_tensor *all[] = { x, w, r };
    for (int i = 0; i < 3; i++) f2b_tensor_free(all[i]);
}

static f2b_tensor *with_residual(f2b_tape *tape, f2b_tensor *x, f2b_tensor *w, f2b_tensor *residual)
{
    const f2b_projection p[] = { { .weight = w }, { .weight = w, .residual = residual } };
    f2b_tensor *y[2];
    return f2b_linear_group(tape, x, p, 2, 0, NULL, y) == F2B_OK ? y[1] : NULL;
}

static void errors(void **state)
{
    (void)state;
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    const double zeros[16] = { 0 };
    f2b_tensor *x = f2b_check_leaf(F2B_F32, 2, (int64_t[]){ 2, 3 }, zeros, false);
    f2b_tensor *w = f2b_check_leaf(F2B_F32, 2, (int64_t[]){ 2, 4 }, zeros, false);
    f2b_tensor *w3 = f2b_check_leaf(F2B_F32, 2, (int64_t[]){ 2, 3 }, zeros, false);
    f2b_tensor *half = f2b_check_leaf(F2B_BF16, 2, (int64_t[]){ 2, 3 }, zeros, true);
    f2b_check_error(f2b_linear(tape, x, w, NULL), F2B_ERR_SHAPE, "[2, 4] f32");
    f2b_check_error(f2b_linear(tape, x, w3, w3), F2B_ERR_SHAPE, "bias");
    f2b_check_error(f2b_linear(tape, x, half, NULL), F2B_ERR_DTYPE, "bf16");
    f2b_tensor *y;
    assert_int_equal(f2b_linear_group(tape, x, &(f2b_projection){ .weight = w3, .lora_a = w3 }, 1, 1, NULL, &y),
                     F2B_ERR_INVALID);
    w3->name = "o_proj";
    f2b_check_error(with_residual(tape, x, w3, w), F2B_ERR_SHAPE,
                    "projection 1: residual of o_proj is [2, 4] f32, not [2, 2] f32");
    f2b_tensor *y_half = f2b_tape_tensor(tape, F2B_BF16, 2, (int64_t[]){ 2, 2 });
    f2b_check_error(with_residual(tape, x, w3, y_half), F2B_ERR_DTYPE, "is [2, 2] bf16, not [2, 2] f32");
    assert_null(f2b_linear(tape, NULL, w, NULL));
    f2b_tape_free(tape);
    f2b_tensor *all[] = { x, w, w3, half };
    for (int i = 0; i < 4; i++) f2b_tensor_free(all[i]);
}

/* The bytes of a tensor's data or gradient, on the host, as f64. */
static void fetch(f2b_device device, f2b_dtype dtype, const void *src, int64_t n, double *values)
{
    void *bytes = f2b_alloc_host((size_t)n * 8, F2B_TAG_OTHER);
    assert_int_equal(f2b_copy(bytes, F2B_HOST, src, device, (size_t)n * f2b_dtype_size(dtype)), F2B_OK);
    f2b_convert(values, F2B_F64, bytes, dtype, (size_t)n);
    f2b_free(bytes);
}

/* y and dx of rows x [rows, in] through a weight on its device, as f64. */
static void through(f2b_dtype dtype, f2b_tensor *w, int64_t rows, const double *x, double *y, double *dx)
{
    f2b_tape *tape = f2b_tape_new(w->device);
    const int64_t out = w->shape[0], in = w->shape[1];
    const f2b_dtype leaf_type = dtype == F2B_BF16 ? F2B_F32 : dtype;
    f2b_tensor *leaf = f2b_check_leaf(leaf_type, 2, (int64_t[]){ rows, in }, x, true);
    void *bytes = f2b_alloc_host((size_t)(rows * in) * 8, F2B_TAG_OTHER);
    f2b_convert(bytes, dtype, leaf->data, leaf_type, (size_t)(rows * in));
    f2b_tensor *input = f2b_tape_tensor_from(tape, dtype, 2, leaf->shape, bytes);
    input->requires_grad = true;
    f2b_tensor *result = f2b_linear(tape, f2b_tape_keep(input), w, NULL);
    assert_non_null(result);
    fetch(w->device, dtype, result->data, rows * out, y);
    assert_int_equal(f2b_tape_seed(tape, result, 0.5), F2B_OK);
    assert_int_equal(f2b_tape_backward(tape), F2B_OK);
    fetch(w->device, dtype, input->grad, rows * in, dx);
    f2b_free(bytes);
    f2b_tape_free(tape);
    f2b_tensor_free(leaf);
}

/* The same on a CUDA device, from the same bytes, in f32 and bf16. */
static void small_weights_on_cuda(const f2b_tensor *w, int64_t rows, const double *x)
{
    enum { MOST = 20000 };
    static const f2b_dtype compute[] = { F2B_F32, F2B_BF16 };
    static double y[2][MOST], dx[2][MOST];
    const f2b_device cuda = { F2B_CUDA, 0 };
    if (!f2b_device_built(F2B_CUDA)) return;
    if (f2b_device_open(cuda) != F2B_OK) {
        print_message("[   CUDA   ] there is no CUDA device here: %s\n", f2b_last_error());
        return;
    }
    f2b_tensor *there = f2b_tensor_new(cuda, w->dtype, 2, w->shape, F2B_TAG_WEIGHTS);
    assert_int_equal(f2b_copy(there->data, cuda, w->data, F2B_HOST, f2b_tensor_bytes(w)), F2B_OK);
    f2b_tensor here = *w;
    for (int c = 0; c < 2; c++) {
        const double tolerance = compute[c] == F2B_F32 ? 1e-4 : 0.5;     /* of sums up to 40 */
        through(compute[c], &here, rows, x, y[0], dx[0]);
        through(compute[c], there, rows, x, y[1], dx[1]);
        for (int64_t i = 0; i < rows * w->shape[0]; i++)
            assert_true(fabs(y[0][i] - y[1][i]) <= tolerance);
        for (int64_t i = 0; i < rows * w->shape[1]; i++)
            assert_true(fabs(dx[0][i] - dx[1][i]) <= tolerance);
    }
    f2b_tensor_free(there);
}

/* int8 and nf4 give what their decoded values in f32 give, to the bit, forwards and backwards. */
static void small_weights(void **state)
{
    (void)state;
    enum { ROWS = 17, OUT = 70, IN = 131, MOST = OUT * IN };
    static const f2b_dtype stored[] = { F2B_INT8, F2B_NF4 }, compute[] = { F2B_F32, F2B_F64, F2B_BF16 };
    static double x[ROWS * IN], y[2][ROWS * OUT], dx[2][ROWS * IN];
    static float values[MOST], decoded[MOST];
    f2b_rng r = f2b_rng_new(3, F2B_RNG_TEST, 0, 0, 0);
    for (int i = 0; i < ROWS * IN; i++) x[i] = f2b_rng_normal(&r);
    for (int i = 0; i < MOST; i++) values[i] = (float)f2b_rng_normal(&r);
    for (int s = 0; s < 2; s++) {
        const int64_t shape[] = { OUT, IN };
        f2b_tensor *small = f2b_tensor_new(F2B_HOST, stored[s], 2, shape, F2B_TAG_WEIGHTS);
        assert_int_equal(f2b_quantise(stored[s], OUT, IN, values, F2B_F32, small->data), F2B_OK);
        f2b_quant_decode(stored[s], small->data, 0, MOST, decoded);
        f2b_tensor *whole = f2b_tensor_borrow(F2B_HOST, F2B_F32, 2, shape, decoded);
        for (int c = 0; c < 3; c++) {
            through(compute[c], small, ROWS, x, y[0], dx[0]);
            through(compute[c], whole, ROWS, x, y[1], dx[1]);
            assert_memory_equal(y[0], y[1], sizeof y[0]);
            assert_memory_equal(dx[0], dx[1], sizeof dx[0]);
        }
        small_weights_on_cuda(small, ROWS, x);
        f2b_tape *tape = f2b_tape_new(F2B_HOST);
        small->requires_grad = true;
        f2b_tensor *in = f2b_check_leaf(F2B_F32, 2, (int64_t[]){ ROWS, IN }, x, false);
        f2b_check_error(f2b_linear(tape, in, small, NULL), F2B_ERR_DTYPE, f2b_dtype_name(stored[s]));
        f2b_tape_free(tape);
        f2b_tensor_free(in);
        f2b_tensor_free(small);
        f2b_tensor_free(whole);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(all_cases), cmocka_unit_test(hand_value),
                                        cmocka_unit_test(a_residual_is_rounded_with_the_product),
                                        cmocka_unit_test(small_weights), cmocka_unit_test(errors) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
