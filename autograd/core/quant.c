/* See quant.h. */
#include "autograd/core/quant.h"

#include <float.h>
#include <math.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "autograd/core/alloc.h"
#include "autograd/core/e4m3.h"
#include "autograd/core/quant_internal.h"

enum { BLOCK = F2B_NF4_BLOCK, GROUP = F2B_NF4_GROUP };

const float f2b_nf4_book[16] = {
    -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
    -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,
    0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
    0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f,
};

/* ---- The dynamic 8-bit type ---- */

/* Element i of n evenly spaced numbers from 0.1 to 1, from the nearer end as PyTorch's linspace. */
static float spaced(int i, int n)
{
    const float step = (1.0f - 0.1f) / (float)(n - 1);
    return i < n / 2 ? fmaf(step, (float)i, 0.1f) : fmaf(-step, (float)(n - 1 - i), 1.0f);
}

/* Seven decades; decade e has 2^e values between 0.1 and 1 times 10^(e-6), and their negatives. */
void f2b_dynamic_book(float book[256])
{
    static const float decade[7] = { 1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1.0f };
    int n = 0;
    book[127] = 0.0f;
    for (int e = 0; e < 7; e++) {
        for (int i = 0; i < 1 << e; i++, n++) {
            const float middle = (spaced(i, (1 << e) + 1) + spaced(i + 1, (1 << e) + 1)) / 2.0f;
            book[128 + n] = decade[e] * middle;
            book[126 - n] = -book[128 + n];
        }
    }
    book[255] = 1.0f;
}

/* The place of the value nearest to x among 256 ascending ones; of two as near the lower. */
static int nearest(const float book[256], float x)
{
    int low = 0;                /* the last value that is not above x, or the first */
    for (int step = 128; step > 0; step /= 2)
        if (low + step < 256 && book[low + step] <= x) low += step;
    return low < 255 && fabsf(book[low + 1] - x) < fabsf(x - book[low]) ? low + 1 : low;
}

/* ---- Layout ---- */

static int64_t aligned(int64_t bytes)
{
    return (bytes + F2B_QUANT_ALIGN - 1) / F2B_QUANT_ALIGN * F2B_QUANT_ALIGN;
}

static int64_t blocks_of(int64_t n, int64_t block) { return (n + block - 1) / block; }

/* The head of a matrix of this shape; *bytes is the whole. */
static f2b_quant layout(f2b_dtype type, int64_t rows, int64_t cols, int64_t *bytes)
{
    const int64_t n = rows * cols, blocks = blocks_of(n, BLOCK);
    f2b_quant q = { .rows = rows, .cols = cols, .codes = aligned((int64_t)sizeof q) };
    const bool per_row = type != F2B_NF4;
    q.scales = q.codes + aligned(per_row ? n : (n + 1) / 2);
    const int64_t end = q.scales + aligned(per_row ? rows * (int64_t)sizeof(float) : blocks);
    *bytes = end;
    if (type == F2B_NF4) {
        q.groups = end;
        *bytes += aligned(blocks_of(blocks, GROUP) * (int64_t)sizeof(float));
    } else if (type == F2B_FP8) {
        q.turned_codes = end;
        q.turned_scales = end + aligned(n);
        *bytes = q.turned_scales + aligned(cols * (int64_t)sizeof(float));
    }
    return q;
}

f2b_quant f2b_quant_head(f2b_dtype type, int64_t rows, int64_t cols)
{
    int64_t bytes;
    return layout(type, rows, cols, &bytes);
}

int64_t f2b_quant_bytes(f2b_dtype type, int64_t rows, int64_t cols)
{
    int64_t n, bytes;
    F2B_CHECK(f2b_dtype_is_quantised(type));
    if (__builtin_mul_overflow(rows, cols, &n) || n > INT64_MAX / 16) return -1;
    (void)layout(type, rows, cols, &bytes);
    return bytes;
}

/* ---- Quantising ---- */

float f2bi_stretch(const void *src, f2b_dtype type, int64_t first, int64_t n, float *values)
{
    f2b_convert(values, F2B_F32, (const char *)src + first * (int64_t)f2b_dtype_size(type), type,
                (size_t)n);
    float largest = 0;
    bool finite = true;
    for (int64_t i = 0; i < n; i++) {
        const float magnitude = fabsf(values[i]);
        finite = finite && magnitude <= FLT_MAX;
        if (magnitude > largest) largest = magnitude;
    }
    return finite ? largest : INFINITY;
}

/* Both return the first row that is not finite, or INT64_MAX. */
static int64_t quantise_int8(const f2b_quant *q, const void *src, f2b_dtype type, char *base)
{
    enum { PART = 1024 };
    int8_t *codes = (int8_t *)(base + q->codes);
    float *scales = (float *)(void *)(base + q->scales);
    int64_t bad = INT64_MAX;
#pragma omp parallel for schedule(static) reduction(min : bad)
    for (int64_t row = 0; row < q->rows; row++) {
        float values[PART], largest = 0;
        for (int64_t c = 0; c < q->cols; c += PART) {
            const int64_t n = q->cols - c < PART ? q->cols - c : PART;
            largest = fmaxf(largest, f2bi_stretch(src, type, row * q->cols + c, n, values));
        }
        if (largest > FLT_MAX && row < bad) bad = row;
        const float inverse = largest >= FLT_MIN && largest <= FLT_MAX ? 127.0f / largest : 0;
        scales[row] = inverse > 0 ? largest / 127.0f : 0;
        for (int64_t c = 0; c < q->cols; c += PART) {
            const int64_t n = q->cols - c < PART ? q->cols - c : PART;
            (void)f2bi_stretch(src, type, row * q->cols + c, n, values);
            for (int64_t i = 0; i < n; i++)
                codes[row * q->cols + c + i] = (int8_t)rintf(values[i] * inverse);
        }
    }
    return bad;
}

/* Codes of one block; returns its largest magnitude. */
static float quantise_block(const void *src, f2b_dtype type, int64_t first, int64_t n,
                            const float midpoints[15], uint8_t *codes)
{
    float values[BLOCK + 1] = { 0 };
    const float largest = f2bi_stretch(src, type, first, n, values);
    const float inverse = 1.0f / fmaxf(largest, 1e-38f);
    uint8_t code[BLOCK + 1];
    memset(code, 7, sizeof code);                       /* an odd end is filled up with zero */
    for (int64_t i = 0; i < n; i++) {
        const float x = values[i] * inverse;
        int place = 0;
        for (int m = 0; m < 15; m++) place += midpoints[m] < x;
        code[i] = (uint8_t)place;
    }
    for (int64_t i = 0; i < n; i += 2) codes[i / 2] = (uint8_t)(code[i] << 4 | code[i + 1]);
    return largest;
}

/* The magnitudes themselves, less their mean, to 8 bits. */
static void quantise_magnitudes(f2b_quant *q, const float *largest, int64_t blocks, char *base)
{
    uint8_t *codes = (uint8_t *)(base + q->scales);
    float *groups = (float *)(void *)(base + q->groups);
    float book[256];
    f2b_dynamic_book(book);
    double sum = 0;
    for (int64_t b = 0; b < blocks; b++) sum += (double)largest[b];
    const float mean = blocks > 0 ? (float)(sum / (double)blocks) : 0;
    q->mean = (double)mean;
    for (int64_t first = 0; first < blocks; first += GROUP) {
        const int64_t n = blocks - first < GROUP ? blocks - first : GROUP;
        float top = 0;
        for (int64_t i = 0; i < n; i++) top = fmaxf(top, fabsf(largest[first + i] - mean));
        groups[first / GROUP] = top;
        const float inverse = top > 0 ? 1.0f / top : 0;
        for (int64_t i = 0; i < n; i++)
            codes[first + i] = (uint8_t)nearest(book, (largest[first + i] - mean) * inverse);
    }
}

static f2b_status quantise_nf4(f2b_quant *q, const void *src, f2b_dtype type, char *base,
                               int64_t *bad_row)
{
    const int64_t n = q->rows * q->cols, blocks = blocks_of(n, BLOCK);
    float *largest = f2b_alloc_host((size_t)(blocks > 0 ? blocks : 1) * sizeof *largest, F2B_TAG_SCRATCH);
    if (largest == NULL) return F2B_ERR_MEMORY;
    uint8_t *codes = (uint8_t *)(base + q->codes);
    float midpoints[15];
    for (int i = 0; i < 15; i++) midpoints[i] = (f2b_nf4_book[i] + f2b_nf4_book[i + 1]) / 2.0f;
    int64_t bad = INT64_MAX;
#pragma omp parallel for schedule(static) reduction(min : bad)
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t first = b * BLOCK, here = n - first < BLOCK ? n - first : BLOCK;
        largest[b] = quantise_block(src, type, first, here, midpoints, codes + first / 2);
        if (largest[b] > FLT_MAX && first < bad) bad = first;
    }
    if (bad == INT64_MAX) {
        quantise_magnitudes(q, largest, blocks, base);
    } else {                            /* the first of a bad block's elements tells the row */
        float value;
        while (f2bi_stretch(src, type, bad, 1, &value) <= FLT_MAX) bad++;
        bad /= q->cols;
    }
    f2b_free(largest);
    *bad_row = bad;
    return F2B_OK;
}

f2b_status f2b_quantise(f2b_dtype type, int64_t rows, int64_t cols, const void *src,
                        f2b_dtype src_type, void *dst)
{
    int64_t bytes, bad = INT64_MAX;
    F2B_CHECK(f2b_dtype_is_quantised(type) && f2b_dtype_is_float(src_type));
    f2b_quant q = layout(type, rows, cols, &bytes);
    if (type == F2B_INT8) bad = quantise_int8(&q, src, src_type, dst);
    else if (type == F2B_FP8) bad = f2bi_quantise_fp8(&q, src, src_type, dst);
    else F2B_TRY(quantise_nf4(&q, src, src_type, dst, &bad));
    if (bad != INT64_MAX)
        return f2b_fail(F2B_ERR_NUMBERS, "row %lld has an infinite element or one that is no number",
                        (long long)bad);
    memcpy(dst, &q, sizeof q);
    return F2B_OK;
}

/* ---- Decoding ---- */

static inline float magnitude(const f2b_quant *q, const char *base, int64_t block,
                              const float book[256])
{
    const uint8_t code = ((const uint8_t *)(base + q->scales))[block];
    const float group = ((const float *)(const void *)(base + q->groups))[block / GROUP];
    return book[code] * group + (float)q->mean;
}

/* n elements of one block; `first` may be odd. */
static void decode_block(const uint8_t *codes, int64_t first, int64_t n, float scale, float *out)
{
    int64_t i = 0;
    if (n > 0 && first % 2 != 0) {
        out[i++] = f2b_nf4_book[codes[first / 2] & 15] * scale;
        first++;
    }
    const uint8_t *pairs = codes + first / 2;
    const int64_t start = i;
#if defined(__AVX512F__)
    const __m512 book = _mm512_loadu_ps(f2b_nf4_book), factor = _mm512_set1_ps(scale);
    const __m512i shift = _mm512_set1_epi64(4);         /* even lanes: high half; odd: low half */
    for (; i + 16 <= n; i += 16) {
        const __m512i bytes = _mm512_cvtepu8_epi64(
            _mm_loadl_epi64((const __m128i *)(const void *)(pairs + (i - start) / 2)));
        const __m512i high = _mm512_srlv_epi64(bytes, shift);
        const __m512i low = _mm512_slli_epi64(_mm512_and_si512(bytes, _mm512_set1_epi64(15)), 32);
        const __m512 values = _mm512_permutexvar_ps(_mm512_or_si512(high, low), book);
        _mm512_storeu_ps(out + i, _mm512_mul_ps(values, factor));
    }
#elif defined(__AVX2__)
    const __m256 below = _mm256_loadu_ps(f2b_nf4_book), above = _mm256_loadu_ps(f2b_nf4_book + 8);
    const __m256 factor = _mm256_set1_ps(scale);
    const __m256i shift = _mm256_set1_epi64x(4);        /* as above */
    for (; i + 8 <= n; i += 8) {
        int32_t four;
        memcpy(&four, pairs + (i - start) / 2, sizeof four);
        const __m256i bytes = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(four));
        const __m256i high = _mm256_srlv_epi64(bytes, shift);
        const __m256i low = _mm256_slli_epi64(_mm256_and_si256(bytes, _mm256_set1_epi64x(15)), 32);
        const __m256i code = _mm256_or_si256(high, low);
        const __m256 values = _mm256_blendv_ps(             /* by the code's highest bit; its other three are a place */
            _mm256_permutevar8x32_ps(below, code), _mm256_permutevar8x32_ps(above, code),
            _mm256_castsi256_ps(_mm256_slli_epi32(code, 28)));
        _mm256_storeu_ps(out + i, _mm256_mul_ps(values, factor));
    }
#endif
    for (; i < n; i++) {
        const uint8_t pair = pairs[(i - start) / 2];
        out[i] = f2b_nf4_book[(i - start) % 2 ? pair & 15 : pair >> 4] * scale;
    }
}

static void decode_nf4(const f2b_quant *q, const char *base, int64_t first, int64_t n, float *out)
{
    static _Thread_local float book[256];
    static _Thread_local bool made;
    if (!made) f2b_dynamic_book(book);
    made = true;
    const uint8_t *codes = (const uint8_t *)(base + q->codes);
    while (n > 0) {
        const int64_t left = BLOCK - first % BLOCK, here = n < left ? n : left;
        decode_block(codes, first, here, magnitude(q, base, first / BLOCK, book), out);
        first += here, n -= here, out += here;
    }
}

static void decode_fp8(const f2b_quant *q, const char *base, int64_t first, int64_t n, float *out)
{
    const f2b_e4m3 *codes = (const f2b_e4m3 *)(base + q->codes) + first;
    const float *scales = (const float *)(const void *)(base + q->scales);
    for (int64_t i = 0; i < n; i++)
        out[i] = f2b_e4m3_to_f32(codes[i]) * scales[(first + i) / q->cols];
}

static void decode_int8(const f2b_quant *q, const char *base, int64_t first, int64_t n, float *out)
{
    const int8_t *codes = (const int8_t *)(base + q->codes) + first;
    const float *scales = (const float *)(const void *)(base + q->scales);
    for (int64_t i = 0; i < n;) {
        const int64_t row = (first + i) / q->cols, left = (row + 1) * q->cols - (first + i);
        const int64_t end = n - i < left ? n : i + left;
        const float scale = scales[row];
        for (; i < end; i++) out[i] = (float)codes[i] * scale;
    }
}

void f2b_quant_decode(f2b_dtype type, const void *quantised, int64_t first, int64_t n, float *out)
{
    const f2b_quant *q = quantised;
    F2B_CHECK(first >= 0 && n >= 0 && first + n <= q->rows * q->cols);
    if (type == F2B_INT8) decode_int8(q, quantised, first, n, out);
    else if (type == F2B_FP8) decode_fp8(q, quantised, first, n, out);
    else decode_nf4(q, quantised, first, n, out);
}
