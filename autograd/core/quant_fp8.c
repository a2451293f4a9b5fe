/* Weights as 8-bit floats, in both directions. See quant.h. */
#include <float.h>
#include <math.h>

#include "autograd/core/e4m3.h"
#include "autograd/core/quant_internal.h"

enum { PART = 1024, TILE = 64 };

bool f2b_fp8_takes(int64_t rows, int64_t cols)
{
    return rows > 0 && cols > 0 && rows % 16 == 0 && cols % 16 == 0
           && rows <= F2B_FP8_LONGEST && cols <= F2B_FP8_LONGEST;
}

/* The scale of numbers up to `largest`, and what they are multiplied with; both 0 below any use. The
 * device's kernels have the same rule (device/cuda/fp8.cuh). */
static float scale_of(float largest, float *inverse)
{
    *inverse = largest >= F2B_FP8_LEAST && largest <= FLT_MAX ? F2B_E4M3_MAX / largest : 0;
    return *inverse > 0 ? largest / F2B_E4M3_MAX : 0;
}

static int64_t quantise_rows(const f2b_quant *q, const void *src, f2b_dtype type, char *base)
{
    f2b_e4m3 *codes = (f2b_e4m3 *)(base + q->codes);
    float *scales = (float *)(void *)(base + q->scales);
    int64_t bad = INT64_MAX;
#pragma omp parallel for schedule(static) reduction(min : bad)
    for (int64_t row = 0; row < q->rows; row++) {
        float values[PART], largest = 0, inverse;
        for (int64_t c = 0; c < q->cols; c += PART) {
            const int64_t n = q->cols - c < PART ? q->cols - c : PART;
            largest = fmaxf(largest, f2bi_stretch(src, type, row * q->cols + c, n, values));
        }
        if (largest > FLT_MAX && row < bad) bad = row;
        scales[row] = scale_of(largest, &inverse);
        for (int64_t c = 0; c < q->cols; c += PART) {
            const int64_t n = q->cols - c < PART ? q->cols - c : PART;
            (void)f2bi_stretch(src, type, row * q->cols + c, n, values);
            for (int64_t i = 0; i < n; i++)
                codes[row * q->cols + c + i] = f2b_f32_to_e4m3(values[i] * inverse);
        }
    }
    return bad;
}

/* A task takes TILE columns of all rows: their largest magnitudes first, then their codes. */
static void quantise_columns(const f2b_quant *q, const void *src, f2b_dtype type, char *base)
{
    f2b_e4m3 *codes = (f2b_e4m3 *)(base + q->turned_codes);
    float *scales = (float *)(void *)(base + q->turned_scales);
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < q->cols; first += TILE) {
        const int64_t n = q->cols - first < TILE ? q->cols - first : TILE;
        float values[TILE], largest[TILE] = { 0 }, inverse[TILE];
        for (int64_t row = 0; row < q->rows; row++) {
            (void)f2bi_stretch(src, type, row * q->cols + first, n, values);
            for (int64_t i = 0; i < n; i++) largest[i] = fmaxf(largest[i], fabsf(values[i]));
        }
        for (int64_t i = 0; i < n; i++) scales[first + i] = scale_of(largest[i], &inverse[i]);
        for (int64_t row = 0; row < q->rows; row++) {
            (void)f2bi_stretch(src, type, row * q->cols + first, n, values);
            for (int64_t i = 0; i < n; i++)
                codes[(first + i) * q->rows + row] = f2b_f32_to_e4m3(values[i] * inverse[i]);
        }
    }
}

int64_t f2bi_quantise_fp8(const f2b_quant *q, const void *src, f2b_dtype type, char *base)
{
    const int64_t bad = quantise_rows(q, src, type, base);
    if (bad == INT64_MAX) quantise_columns(q, src, type, base);
    return bad;
}
