/*
 * Small weights: nf4 against bitsandbytes' own values, int8 by hand, e4m3 against torch's, fp8 in both
 * directions, decoding from any place, and what cannot be quantised.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "autograd/core/e4m3.h"
#include "autograd/core/quant.h"


typedef struct golden {
    int64_t rows, cols;
    uint64_t codes, magnitudes;     /* FNV-1a of the packed codes, and of the magnitudes' codes */
    double mean, group;             /* the first group's */
    int64_t step;
    double values[40];              /* every step-th, decoded */
} golden;

static const golden cases[] = {
#include "tests/core/golden_nf4.inc"
};
#include "tests/core/golden_e4m3.inc"

static void close_to(double a, double b, double within)
{
    if (!(fabs(a - b) <= within)) fail_msg("%.9g, not %.9g", a, b);
}

static uint64_t fnv(const void *data, int64_t n)
{
    uint64_t h = UINT64_C(0xCBF29CE484222325);
    for (int64_t i = 0; i < n; i++) h = (h ^ ((const uint8_t *)data)[i]) * UINT64_C(0x100000001B3);
    return h;
}

/* The matrices of scripts/golden/nf4.py. */
static void draw(int64_t rows, int64_t cols, float *x)
{
    for (int64_t i = 0; i < rows * cols; i++) {
        int64_t total = 0;
        for (uint64_t k = 0; k < 4; k++) {
            uint64_t h = ((uint64_t)i * 2654435761u + k * 40503u) % (UINT64_C(1) << 32);
            h = (h ^ h >> 15) * 2246822519u % (UINT64_C(1) << 32);
            total += (int64_t)(h >> 22) - 512;
        }
        const int64_t row = i / cols;
        x[i] = row == 1 ? 0 : (float)total / 1024 * ((float)(1 + row % 7) / 4);
    }
}

static void *quantised(f2b_dtype type, int64_t rows, int64_t cols, const float *x)
{
    void *blob = f2b_alloc_host((size_t)f2b_quant_bytes(type, rows, cols), F2B_TAG_OTHER);
    assert_non_null(blob);
    assert_int_equal(f2b_quantise(type, rows, cols, x, F2B_F32, blob), F2B_OK);
    return blob;
}

static void nf4_is_that_of_bitsandbytes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const golden *g = &cases[i];
        const int64_t n = g->rows * g->cols, blocks = (n + 63) / 64;
        float *x = f2b_alloc_host((size_t)n * sizeof *x, F2B_TAG_OTHER);
        float *back = f2b_alloc_host((size_t)n * sizeof *back, F2B_TAG_OTHER);
        draw(g->rows, g->cols, x);
        char *blob = quantised(F2B_NF4, g->rows, g->cols, x);
        const f2b_quant *q = (const f2b_quant *)(void *)blob;
        assert_true(fnv(blob + q->codes, (n + 1) / 2) == g->codes);
        if (g->group != 0) assert_true(fnv(blob + q->scales, blocks) == g->magnitudes);
        close_to(q->mean, g->mean, 1e-7 * fabs(g->mean));
        close_to(((const float *)(void *)(blob + q->groups))[0], g->group, 1e-6);
        f2b_quant_decode(F2B_NF4, blob, 0, n, back);
        for (int64_t k = 0; k < 40 && k * g->step < n; k++)
            close_to(back[k * g->step], g->values[k], 1e-6);
        f2b_free(blob);
        f2b_free(back);
        f2b_free(x);
    }
}

static void int8_by_hand(void **state)
{
    (void)state;
    const float x[2][3] = { { 1.0f, -0.5f, 0.25f }, { 0, 0, 0 } };
    char *blob = quantised(F2B_INT8, 2, 3, &x[0][0]);
    const f2b_quant *q = (const f2b_quant *)(void *)blob;
    const int8_t *codes = (const int8_t *)blob + q->codes;
    assert_int_equal(codes[0], 127);
    assert_int_equal(codes[1], -64);        /* -63.5 to even */
    assert_int_equal(codes[2], 32);         /* 31.75 */
    float back[6];
    f2b_quant_decode(F2B_INT8, blob, 0, 6, back);
    close_to(back[0], 1.0, 1e-7);
    close_to(back[1], -64.0 / 127, 1e-7);
    close_to(back[2], 32.0 / 127, 1e-7);
    for (int i = 3; i < 6; i++) assert_true(back[i] == 0);
    f2b_free(blob);
}

/* Every value, every place where rounding turns, both signs, and what is beyond. */
static void e4m3_is_that_of_torch(void **state)
{
    (void)state;
    for (int i = 0; i < 127; i++) {
        const float v = golden_values[i];
        assert_true(f2b_e4m3_to_f32((f2b_e4m3)i) == v && f2b_e4m3_to_f32((f2b_e4m3)(i | 0x80)) == -v);
        assert_int_equal(f2b_f32_to_e4m3(v), i);
        assert_int_equal(f2b_f32_to_e4m3(-v), i | 0x80);
    }
    for (int i = 0; i < 126; i++) {
        const float middle = (golden_values[i] + golden_values[i + 1]) / 2;
        const float at[3] = { nextafterf(middle, 0), middle, nextafterf(middle, INFINITY) };
        for (int j = 0; j < 3; j++) {
            assert_int_equal(f2b_f32_to_e4m3(at[j]), golden_codes[i][j]);
            assert_int_equal(f2b_f32_to_e4m3(-at[j]), golden_codes[i][j] | 0x80);
        }
    }
    const float beyond[] = { 449, 464, 480, 1e30f, INFINITY };
    for (int i = 0; i < 5; i++) {
        assert_int_equal(f2b_f32_to_e4m3(beyond[i]), 0x7E);
        assert_int_equal(f2b_f32_to_e4m3(-beyond[i]), 0xFE);
    }
    assert_int_equal(f2b_f32_to_e4m3(1e-30f), 0);
    assert_int_equal(f2b_f32_to_e4m3(NAN) & 0x7F, 0x7F);
    assert_true(isnan(f2b_e4m3_to_f32(0x7F)) && isnan(f2b_e4m3_to_f32(0xFF)));
}

/* Each row, and each column of the turned copy, has its largest at 448 and is within half a step. */
static void fp8_in_both_directions(void **state)
{
    (void)state;
    enum { ROWS = 48, COLS = 80 };
    float x[ROWS][COLS], back[ROWS * COLS];
    draw(ROWS, COLS, &x[0][0]);
    for (int r = 0; r < ROWS; r++) x[r][7] = 0;
    char *blob = quantised(F2B_FP8, ROWS, COLS, &x[0][0]);
    const f2b_quant q = f2b_quant_head(F2B_FP8, ROWS, COLS);
    assert_memory_equal(&q, blob, sizeof q);
    const f2b_e4m3 *turned = (const f2b_e4m3 *)blob + q.turned_codes;
    const float *scales = (const float *)(void *)(blob + q.turned_scales);
    f2b_quant_decode(F2B_FP8, blob, 0, ROWS * COLS, back);
    for (int r = 0; r < ROWS; r++) {
        double row = 0, column = 0;
        for (int c = 0; c < COLS; c++) row = fmax(row, fabs((double)x[r][c]));
        for (int c = 0; c < COLS; c++) {
            const double want = (double)x[r][c], floor = row / 448 * 0x1p-10;
            close_to((double)back[r * COLS + c], want, fmax(fabs(want) * 0x1.001p-4, floor));
        }
        for (int i = 0; i < ROWS; i++) column = fmax(column, fabs((double)x[i][r]));
        close_to((double)scales[r], column / 448, column / 448 * 1e-6);
        for (int i = 0; i < ROWS; i++) {
            const double got = (double)(f2b_e4m3_to_f32(turned[r * ROWS + i]) * scales[r]);
            close_to(got, (double)x[i][r],
                     fmax(fabs((double)x[i][r]) * 0x1.001p-4, column / 448 * 0x1p-10));
        }
    }
    assert_true(f2b_fp8_takes(16, 32768) && f2b_fp8_takes(11008, 4096));
    assert_false(f2b_fp8_takes(16, 24) || f2b_fp8_takes(8, 32) || f2b_fp8_takes(0, 16)
                 || f2b_fp8_takes(32784, 16));
    f2b_free(blob);
}

/* Any stretch of a matrix is what the whole has there, to the bit. */
static void decodes_from_any_place(void **state)
{
    (void)state;
    enum { ROWS = 5, COLS = 131, N = ROWS * COLS };
    static const f2b_dtype types[] = { F2B_INT8, F2B_NF4, F2B_FP8 };
    float x[N], whole[N], part[N];
    draw(ROWS, COLS, x);
    for (int t = 0; t < 3; t++) {
        void *blob = quantised(types[t], ROWS, COLS, x);
        f2b_quant_decode(types[t], blob, 0, N, whole);
        for (int64_t first = 0; first < N; first += 7) {
            for (int64_t n = 0; first + n <= N; n += 1 + n / 2) {
                f2b_quant_decode(types[t], blob, first, n, part);
                assert_memory_equal(part, whole + first, (size_t)n * sizeof *part);
            }
        }
        f2b_free(blob);
    }
}

/* bf16 and f16 sources are read as they are. */
static void reads_every_float_type(void **state)
{
    (void)state;
    enum { N = 192 };
    float x[N], exact[N], back[N];
    f2b_bf16 small[N];
    draw(1, N, x);
    f2b_convert(small, F2B_BF16, x, F2B_F32, N);
    f2b_convert(exact, F2B_F32, small, F2B_BF16, N);
    void *a = quantised(F2B_NF4, 1, N, exact), *b = quantised(F2B_NF4, 1, N, x);
    assert_int_equal(f2b_quantise(F2B_NF4, 1, N, small, F2B_BF16, b), F2B_OK);
    f2b_quant_decode(F2B_NF4, a, 0, N, exact);
    f2b_quant_decode(F2B_NF4, b, 0, N, back);
    assert_memory_equal(exact, back, sizeof back);
    f2b_free(a);
    f2b_free(b);
}

static void refuses_what_has_no_scale(void **state)
{
    (void)state;
    static const f2b_dtype types[] = { F2B_INT8, F2B_NF4, F2B_FP8 };
    for (int t = 0; t < 3; t++) {
        float x[2][70] = { { 0 } };
        x[1][3] = t == 0 ? NAN : -INFINITY;
        void *blob = f2b_alloc_host((size_t)f2b_quant_bytes(types[t], 2, 70), F2B_TAG_OTHER);
        assert_int_equal(f2b_quantise(types[t], 2, 70, x, F2B_F32, blob), F2B_ERR_NUMBERS);
        assert_non_null(strstr(f2b_last_error(), "row 1 "));
        f2b_free(blob);
    }
    assert_true(f2b_quant_bytes(F2B_NF4, INT64_MAX / 2, 3) < 0);
}

static void sizes(void **state)
{
    (void)state;
    const int64_t rows = 11008, cols = 4096;
    const double nf4 = 8.0 * (double)f2b_quant_bytes(F2B_NF4, rows, cols) / (double)(rows * cols);
    const double int8 = 8.0 * (double)f2b_quant_bytes(F2B_INT8, rows, cols) / (double)(rows * cols);
    close_to(nf4, 4.127, 0.001);
    close_to(int8, 8.008, 0.001);
    close_to(8.0 * (double)f2b_quant_bytes(F2B_FP8, rows, cols) / (double)(rows * cols), 16.011, 0.001);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nf4_is_that_of_bitsandbytes), cmocka_unit_test(int8_by_hand),
        cmocka_unit_test(e4m3_is_that_of_torch),       cmocka_unit_test(fp8_in_both_directions),
        cmocka_unit_test(decodes_from_any_place),      cmocka_unit_test(reads_every_float_type),
        cmocka_unit_test(refuses_what_has_no_scale),   cmocka_unit_test(sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
