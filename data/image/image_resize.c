/*
 * Pillow's bicubic resampling of 8-bit pixels, equal to the byte (src/libImaging/Resample.c): weights
 * of 22 fractional bits, rows first, their result rounded to uint8, then columns.
 *
 * Rows are resampled LANES at a time with the rows lying side by side (a transposed block), so that
 * both passes are the same loop: accumulator += weight * byte over a long contiguous run, which the
 * compiler vectorises. Padding is never stored: its rows are one constant line.
 *
 * W, H: canvas; S: output side; taps: input pixels under one output pixel.
 */
#include <math.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "data/image/image_internal.h"

enum { PRECISION_BITS = 32 - 8 - 2, LANES = 16, RUN = LANES * 3 };

/* For each output pixel: its first input pixel, how many, and their weights (row o of `weights`). */
typedef struct weights {
    int64_t stride;             /* most taps of an output pixel */
    int64_t *first, *count;     /* [S] */
    int32_t *weight;            /* [S, stride] */
} weights;

static double bicubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

static void weights_free(weights *w)
{
    f2b_free(w->first);
    f2b_free(w->count);
    f2b_free(w->weight);
}

/*
 * Weights for the output pixels [from, from+n) of a line of `in` pixels resized to `full`. Each line
 * of arithmetic is Pillow's, in its order and in f64: another order would round differently.
 */
static f2b_status weights_init(weights *w, int64_t in, int64_t full, int64_t from, int64_t n)
{
    const double scale = (double)in / (double)full;
    const double filter_scale = scale < 1.0 ? 1.0 : scale;
    const double support = 2.0 * filter_scale, inverse = 1.0 / filter_scale;
    *w = (weights){ .stride = (int64_t)ceil(support) * 2 + 1 };
    w->first = f2b_calloc((size_t)n, sizeof *w->first, F2B_TAG_SCRATCH);
    w->count = f2b_calloc((size_t)n, sizeof *w->count, F2B_TAG_SCRATCH);
    w->weight = f2b_calloc((size_t)(n * w->stride), sizeof *w->weight, F2B_TAG_SCRATCH);
    double *line = f2b_calloc((size_t)w->stride, sizeof *line, F2B_TAG_SCRATCH);
    const bool ok = w->first != NULL && w->count != NULL && w->weight != NULL && line != NULL;
    for (int64_t o = 0; ok && o < n; o++) {
        const double centre = ((double)(from + o) + 0.5) * scale;
        int64_t first = (int64_t)(centre - support + 0.5), last = (int64_t)(centre + support + 0.5);
        if (first < 0) first = 0;
        if (last > in) last = in;
        double sum = 0.0;
        for (int64_t i = 0; i < last - first; i++) {
            line[i] = bicubic(((double)(i + first) - centre + 0.5) * inverse);
            sum += line[i];
        }
        for (int64_t i = 0; i < last - first; i++) {
            const double k = (sum != 0.0 ? line[i] / sum : line[i]) * (1 << PRECISION_BITS);
            w->weight[o * w->stride + i] = (int32_t)(k < 0 ? k - 0.5 : k + 0.5);
        }
        w->first[o] = first, w->count[o] = last - first;
    }
    f2b_free(line);
    return ok ? F2B_OK : f2b_last_status();
}

static inline uint8_t clip8(int32_t sum)
{
    const int32_t v = sum >> PRECISION_BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

/* acc[i] += k * in[i], for the whole run. */
static inline void accumulate(int32_t *restrict acc, const uint8_t *restrict in, int32_t k, int64_t n)
{
    for (int64_t i = 0; i < n; i++) acc[i] += k * (int32_t)in[i];
}

/* One block of `rows` <= LANES picture rows from `y`, laid on the canvas: block[x, lane*3 + channel].
 * `block` already holds the background everywhere the picture is not. */
static void gather_block(const f2bi_canvas *c, int64_t y, int64_t rows, uint8_t *block)
{
    const int64_t w = c->image->width;
    for (int64_t lane = 0; lane < rows; lane++) {
        const uint8_t *in = c->image->rgb + (y + lane) * w * 3;
        uint8_t *to = block + c->left * RUN + lane * 3;
        for (int64_t x = 0; x < w; x++, in += 3, to += RUN) {
            to[0] = in[0], to[1] = in[1], to[2] = in[2];
        }
    }
}

/* The picture rows [y0, y1) resampled along x: lines [(y1-y0), S, 3]. */
static f2b_status resize_rows(const f2bi_canvas *c, const weights *w, int64_t y0, int64_t y1, int size,
                              uint8_t *lines)
{
    uint8_t *block = f2b_alloc_host((size_t)(c->width * RUN), F2B_TAG_SCRATCH);
    if (block == NULL) return f2b_last_status();
    for (int64_t i = 0; i < c->width * RUN; i += 3) memcpy(block + i, c->background, 3);
    for (int64_t y = y0; y < y1; y += LANES) {
        const int64_t rows = y1 - y < LANES ? y1 - y : LANES;
        gather_block(c, y, rows, block);
        for (int64_t o = 0; o < size; o++) {
            int32_t acc[RUN];
            for (int i = 0; i < RUN; i++) acc[i] = 1 << (PRECISION_BITS - 1);
            for (int64_t t = 0; t < w->count[o]; t++) {
                accumulate(acc, block + (w->first[o] + t) * RUN, w->weight[o * w->stride + t], RUN);
            }
            uint8_t done[RUN];
            for (int i = 0; i < RUN; i++) done[i] = clip8(acc[i]);
            uint8_t *to = lines + ((y - y0) * size + o) * 3;
            for (int64_t lane = 0; lane < rows; lane++, to += (int64_t)size * 3) {
                memcpy(to, done + lane * 3, 3);
            }
        }
    }
    f2b_free(block);
    return F2B_OK;
}

/* A row of nothing but background, resampled along x. */
static void empty_line(const f2bi_canvas *c, const weights *w, int size, uint8_t *line)
{
    for (int64_t o = 0; o < size; o++) {
        int32_t sum = 0;
        for (int64_t t = 0; t < w->count[o]; t++) sum += w->weight[o * w->stride + t];
        for (int k = 0; k < 3; k++) {
            line[o * 3 + k] = clip8((1 << (PRECISION_BITS - 1)) + sum * c->background[k]);
        }
    }
}

/* The second pass: out row o from the canvas rows under it; rows outside the picture are `empty`. */
static void resize_columns(const f2bi_canvas *c, const weights *w, int64_t y0, int size,
                           const uint8_t *lines, const uint8_t *empty, int32_t *acc, uint8_t *out)
{
    const int64_t n = (int64_t)size * 3;
    for (int64_t o = 0; o < size; o++) {
        for (int64_t i = 0; i < n; i++) acc[i] = 1 << (PRECISION_BITS - 1);
        for (int64_t t = 0; t < w->count[o]; t++) {
            const int64_t row = w->first[o] + t - c->top;       /* row of the picture */
            const uint8_t *in = row < 0 || row >= c->image->height ? empty : lines + (row - y0) * n;
            accumulate(acc, in, w->weight[o * w->stride + t], n);
        }
        for (int64_t i = 0; i < n; i++) out[o * n + i] = clip8(acc[i]);
    }
}

f2b_status f2bi_resize(const f2bi_canvas *c, int64_t full_width, int64_t full_height, int64_t x,
                       int64_t y, int size, uint8_t *out)
{
    weights across = { 0 }, down = { 0 };
    uint8_t *lines = NULL, *empty = NULL;
    int32_t *acc = NULL;
    f2b_status status = weights_init(&across, c->width, full_width, x, size);
    if (status == F2B_OK) status = weights_init(&down, c->height, full_height, y, size);
    if (status != F2B_OK) goto done;

    /* Picture rows that the window needs at all. */
    const int64_t n = (int64_t)size * 3, height = c->image->height;
    int64_t y0 = down.first[0] - c->top, y1 = down.first[size - 1] + down.count[size - 1] - c->top;
    y0 = y0 < 0 ? 0 : y0 > height ? height : y0;
    y1 = y1 > height ? height : y1 < y0 ? y0 : y1;

    lines = f2b_alloc_host((size_t)((y1 - y0) * n), F2B_TAG_SCRATCH);
    empty = f2b_alloc_host((size_t)n, F2B_TAG_SCRATCH);
    acc = f2b_calloc((size_t)n, sizeof *acc, F2B_TAG_SCRATCH);
    if (lines == NULL || empty == NULL || acc == NULL) {
        status = f2b_last_status();
        goto done;
    }
    empty_line(c, &across, size, empty);
    status = resize_rows(c, &across, y0, y1, size, lines);
    if (status == F2B_OK) resize_columns(c, &down, y0, size, lines, empty, acc, out);
done:
    weights_free(&across);
    weights_free(&down);
    f2b_free(lines);
    f2b_free(empty);
    f2b_free(acc);
    return status;
}
