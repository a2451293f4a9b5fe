/*
 * Pillow's bicubic resampling of 8-bit pixels, equal to the byte (src/libImaging/Resample.c): weights
 * of 22 fractional bits, rows first, their result rounded to uint8, then columns.
 *
 * Rows are resampled LANES at a time with the rows lying side by side (a transposed block), so that
 * both passes are the same: sums of 16 bytes side by side, kept in registers over the taps. Padding
 * is never stored: its rows are one constant line.
 *
 * W, H: canvas; S: output side; taps: input pixels under one output pixel.
 */
#include <math.h>
#include <string.h>

#ifdef __AVX2__
#include <immintrin.h>
#endif

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

/*
 * out[i] = what `count` rows weigh together at at+i, for RUN bytes. The sums stay in vector registers
 * over all taps.
 */
#ifdef __AVX512F__
static inline __m512i add(__m512i sum, const uint8_t *in, __m512i k)
{
    const __m512i wide = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)in));
    return _mm512_add_epi32(sum, _mm512_mullo_epi32(wide, k));
}

static inline void store(uint8_t *out, __m512i sum)
{
    const __m512i value = _mm512_srai_epi32(sum, PRECISION_BITS);
    const __m128i bytes = _mm512_cvtusepi32_epi8(_mm512_max_epi32(value, _mm512_setzero_si512()));
    _mm_storeu_si128((__m128i *)out, bytes);
}

static inline void blend(const uint8_t *const *rows, int64_t at, const int32_t *weight,
                         int64_t count, uint8_t *out)
{
    __m512i a = _mm512_set1_epi32(1 << (PRECISION_BITS - 1)), b = a, c = a;
    for (int64_t t = 0; t < count; t++) {
        const uint8_t *in = rows[t] + at;
        const __m512i k = _mm512_set1_epi32(weight[t]);
        a = add(a, in, k);
        b = add(b, in + 16, k);
        c = add(c, in + 32, k);
    }
    store(out, a);
    store(out + 16, b);
    store(out + 32, c);
}
#elif defined(__AVX2__)
static inline __m256i add(__m256i sum, const uint8_t *in, __m256i k)
{
    const __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)in));
    return _mm256_add_epi32(sum, _mm256_mullo_epi32(wide, k));
}

/* Sixteen, which packing clips. */
static inline void store(uint8_t *out, __m256i a, __m256i b)
{
    a = _mm256_srai_epi32(a, PRECISION_BITS), b = _mm256_srai_epi32(b, PRECISION_BITS);
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xD8);
    _mm_storeu_si128((__m128i *)out, _mm_packus_epi16(_mm256_castsi256_si128(words),
                                                      _mm256_extracti128_si256(words, 1)));
}

static inline void blend(const uint8_t *const *rows, int64_t at, const int32_t *weight,
                         int64_t count, uint8_t *out)
{
    __m256i a = _mm256_set1_epi32(1 << (PRECISION_BITS - 1)), b = a, c = a, d = a, e = a, f = a;
    for (int64_t t = 0; t < count; t++) {
        const uint8_t *in = rows[t] + at;
        const __m256i k = _mm256_set1_epi32(weight[t]);
        a = add(a, in, k), b = add(b, in + 8, k);
        c = add(c, in + 16, k), d = add(d, in + 24, k);
        e = add(e, in + 32, k), f = add(f, in + 40, k);
    }
    store(out, a, b);
    store(out + 16, c, d);
    store(out + 32, e, f);
}
#else
static void blend(const uint8_t *const *rows, int64_t at, const int32_t *restrict weight,
                  int64_t count, uint8_t *restrict out)
{
    int32_t sum[RUN];
    for (int i = 0; i < RUN; i++) sum[i] = 1 << (PRECISION_BITS - 1);
    for (int64_t t = 0; t < count; t++) {
        const uint8_t *restrict in = rows[t] + at;
        for (int i = 0; i < RUN; i++) sum[i] += weight[t] * in[i];
    }
    for (int i = 0; i < RUN; i++) out[i] = clip8(sum[i]);
}
#endif

/* Pixels go to and from lanes four bytes at a time. What the fourth overwrites is written later, by
 * the lane or pixel to the right; the last one moves three. */
static inline void move4(uint8_t *to, const uint8_t *from) { memcpy(to, from, 4); }

/* One block of `rows` <= LANES picture rows from `y`, laid on the canvas: block[x, lane*3 + channel].
 * `block` already holds the background everywhere the picture is not. */
static void gather_block(const f2bi_canvas *c, int64_t y, int64_t rows, uint8_t *block)
{
    const int64_t w = c->image->width;
    const uint8_t *in = c->image->rgb + y * w * 3;
    uint8_t *to = block + c->left * RUN;
    for (int64_t x = 0; x < w; x++, in += 3, to += RUN) {
        for (int64_t lane = 0; lane < rows - 1; lane++) move4(to + lane * 3, in + lane * w * 3);
        memcpy(to + (rows - 1) * 3, in + (rows - 1) * w * 3, 3);
    }
}

/* And back: output pixel `o` of each lane's line. */
static void scatter(const uint8_t done[RUN], int64_t rows, int64_t o, int64_t pitch, bool last,
                    uint8_t *lines)
{
    uint8_t *to = lines + o * 3;
    for (int64_t lane = 0; lane < rows; lane++, to += pitch) {
        if (last || lane == LANES - 1) memcpy(to, done + lane * 3, 3);
        else move4(to, done + lane * 3);
    }
}

/* The picture rows [y0, y1) resampled along x: lines [(y1-y0), pitch], of which S*3 are used. `taps`
 * has room for w->stride pointers. */
static f2b_status resize_rows(const f2bi_canvas *c, const weights *w, int64_t y0, int64_t y1, int size,
                              int64_t pitch, const uint8_t **taps, uint8_t *lines)
{
    uint8_t *block = f2b_alloc_host((size_t)(c->width * RUN), F2B_TAG_SCRATCH);
    if (block == NULL) return f2b_last_status();
    for (int64_t i = 0; i < c->width * RUN; i += 3) memcpy(block + i, c->background, 3);
    for (int64_t y = y0; y < y1; y += LANES) {
        const int64_t rows = y1 - y < LANES ? y1 - y : LANES;
        gather_block(c, y, rows, block);
        for (int64_t o = 0; o < size; o++) {
            uint8_t done[RUN];
            for (int64_t t = 0; t < w->count[o]; t++) taps[t] = block + (w->first[o] + t) * RUN;
            blend(taps, 0, w->weight + o * w->stride, w->count[o], done);
            scatter(done, rows, o, pitch, o == size - 1, lines + (y - y0) * pitch);
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
static void resize_columns(const f2bi_canvas *c, const weights *w, int64_t y0, int size, int64_t pitch,
                           const uint8_t *lines, const uint8_t *empty, const uint8_t **taps,
                           uint8_t *out)
{
    const int64_t n = (int64_t)size * 3;
    for (int64_t o = 0; o < size; o++, out += n) {
        const int32_t *weight = w->weight + o * w->stride;
        for (int64_t t = 0; t < w->count[o]; t++) {
            const int64_t row = w->first[o] + t - c->top;       /* row of the picture */
            taps[t] = row < 0 || row >= c->image->height ? empty : lines + (row - y0) * pitch;
        }
        int64_t i = 0;
        for (; i + RUN <= n; i += RUN) blend(taps, i, weight, w->count[o], out + i);
        uint8_t rest[RUN];
        if (i < n) blend(taps, i, weight, w->count[o], rest);
        memcpy(out + i, rest, (size_t)(n - i));
    }
}

f2b_status f2bi_resize(const f2bi_canvas *c, int64_t full_width, int64_t full_height, int64_t x,
                       int64_t y, int size, uint8_t *out)
{
    weights across = { 0 }, down = { 0 };
    uint8_t *lines = NULL, *empty = NULL;
    const uint8_t **taps = NULL;
    f2b_status status = weights_init(&across, c->width, full_width, x, size);
    if (status == F2B_OK) status = weights_init(&down, c->height, full_height, y, size);
    if (status != F2B_OK) goto done;

    /* Picture rows that the window needs at all. */
    const int64_t pitch = ((int64_t)size * 3 + RUN - 1) / RUN * RUN, height = c->image->height;
    int64_t y0 = down.first[0] - c->top, y1 = down.first[size - 1] + down.count[size - 1] - c->top;
    y0 = y0 < 0 ? 0 : y0 > height ? height : y0;
    y1 = y1 > height ? height : y1 < y0 ? y0 : y1;

    lines = f2b_alloc_host((size_t)((y1 - y0) * pitch), F2B_TAG_SCRATCH);
    empty = f2b_calloc((size_t)pitch, 1, F2B_TAG_SCRATCH);
    taps = f2b_calloc((size_t)(across.stride > down.stride ? across.stride : down.stride),
                      sizeof *taps, F2B_TAG_SCRATCH);
    if (lines == NULL || empty == NULL || taps == NULL) {
        status = f2b_last_status();
        goto done;
    }
    empty_line(c, &across, size, empty);
    status = resize_rows(c, &across, y0, y1, size, pitch, taps, lines);
    if (status == F2B_OK) resize_columns(c, &down, y0, size, pitch, lines, empty, taps, out);
done:
    weights_free(&across);
    weights_free(&down);
    f2b_free(lines);
    f2b_free(empty);
    f2b_free(taps);
    return status;
}
