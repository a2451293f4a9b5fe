/*
 * Rows in CPU kernels: reading and writing them in any float type, and sums whose order is fixed by
 * the row's length alone (sixteen lanes, then a tree), whatever the compiler vectorises.
 */
#ifndef F2B_AUTOGRAD_DEVICE_CPU_ROW_MATH_H
#define F2B_AUTOGRAD_DEVICE_CPU_ROW_MATH_H

#include <string.h>

#include "autograd/core/tensor.h"
#include "autograd/device/cpu/kernel.h"
#include "autograd/device/cpu/vector_math.h"

/* For a row's loop that is called with a constant `fresh`: writing and adding become two loops,
 * each of which vectorises; a test inside does not. */
#define F2BI_ROW_LOOP static inline __attribute__((always_inline)) void

/* Parallel loops over fewer elements than this are not worth waking threads for. */
enum { F2BI_PARALLEL_FROM = 16384 };

/** Size of the last dimension; 1 for a scalar. */
static inline int64_t f2bi_width(const f2b_tensor *x)
{
    return x->ndim > 0 ? f2b_dim(x, -1) : 1;
}

/* ---- Elements of bf16 in pairs ---- */

#if defined(F2B_KERNEL_BF16)
/* Two neighbours as one word, so that a loop over them has numbers of one width only: it vectorises better
 * than conversions between widths do. */
typedef uint32_t f2bi_pair __attribute__((aligned(2), may_alias));

static inline real f2bi_pair_first(uint32_t pair) { return f2bi_float_of_bits(pair << 16); }
static inline real f2bi_pair_second(uint32_t pair) { return f2bi_float_of_bits(pair & 0xFFFF0000u); }

/* Rounded to bf16, in the upper half; what is below it is not cleared. As f2b_f32_to_bf16. */
static inline uint32_t f2bi_round_up_high(real x)
{
    const uint32_t bits = f2bi_bits_of_float(x);
    return x == x ? bits + 0x7FFFu + (bits >> 16 & 1u) : bits | 0x400000u;
}

static inline real f2bi_rounded(real x) { return f2bi_float_of_bits(f2bi_round_up_high(x) & 0xFFFF0000u); }

static inline uint32_t f2bi_pair_of(real first, real second)
{
    return f2bi_round_up_high(first) >> 16 | (f2bi_round_up_high(second) & 0xFFFF0000u);
}
#endif

/* ---- Other types ---- */

/** dst[i] = src[first + i] for i < n. */
static inline void f2bi_read_row(real *restrict dst, const void *src, f2b_dtype type, int64_t first,
                                 int64_t n)
{
    switch (type) {
    case F2B_F32: {
        const float *s = (const float *)src + first;
        for (int64_t i = 0; i < n; i++) dst[i] = (real)s[i];
        break;
    }
    case F2B_F64: {
        const double *s = (const double *)src + first;
        for (int64_t i = 0; i < n; i++) dst[i] = (real)s[i];
        break;
    }
    case F2B_BF16: {
        const f2b_bf16 *s = (const f2b_bf16 *)src + first;
        for (int64_t i = 0; i < n; i++) dst[i] = (real)f2b_bf16_to_f32(s[i]);
        break;
    }
    case F2B_F16: {
        const f2b_f16 *s = (const f2b_f16 *)src + first;
        for (int64_t i = 0; i < n; i++) dst[i] = (real)f2b_f16_to_f32(s[i]);
        break;
    }
    default: F2B_CHECK(false);
    }
}

/** dst[first + i] = src[i] for i < n; f32, f64 or bf16. */
static inline void f2bi_write_row(void *dst, f2b_dtype type, int64_t first, int64_t n,
                                  const real *restrict src)
{
    switch (type) {
    case F2B_F32: {
        float *d = (float *)dst + first;
        for (int64_t i = 0; i < n; i++) d[i] = (float)src[i];
        break;
    }
    case F2B_F64: {
        double *d = (double *)dst + first;
        for (int64_t i = 0; i < n; i++) d[i] = src[i];
        break;
    }
    case F2B_BF16: {
        f2b_bf16 *d = (f2b_bf16 *)dst + first;
        for (int64_t i = 0; i < n; i++) d[i] = f2b_f32_to_bf16((float)src[i]);
        break;
    }
    default: F2B_CHECK(false);
    }
}

/** All elements of w in the compute type: w's own memory where it has that type, else a copy in
 *  *scratch, to be freed with f2b_free (NULL if there is none). */
static inline f2b_status f2bi_parameter_as_real(const f2b_tensor *w, const real **values,
                                                void **scratch)
{
    *values = w->data, *scratch = NULL;
    if (w->dtype == F2B_REAL_DTYPE) return F2B_OK;
    const int64_t n = f2b_numel(w);
    real *copy = f2b_alloc_host((size_t)n * sizeof(real), F2B_TAG_SCRATCH);
    if (copy == NULL) return F2B_ERR_MEMORY;
    f2bi_read_row(copy, w->data, w->dtype, 0, n);
    *values = *scratch = copy;
    return F2B_OK;
}

/* ---- Sums over a row ---- */

enum { F2BI_LANES = 16 };

static inline double f2bi_sum_lanes(double lane[F2BI_LANES])
{
    for (int width = F2BI_LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) lane[i] += lane[i + width];
    return lane[0];
}

/* Defines `sum` as the f64 sum over i in [0, n) of `term`, an expression in i. */
#define F2BI_ROW_SUM(sum, n, term)                                                                \
    double sum;                                                                                   \
    do {                                                                                          \
        double lane_[F2BI_LANES] = { 0 };                                                         \
        int64_t first_ = 0;                                                                       \
        for (; first_ + F2BI_LANES <= (n); first_ += F2BI_LANES)                                  \
            for (int64_t l_ = 0; l_ < F2BI_LANES; l_++) {                                         \
                const int64_t i = first_ + l_;                                                    \
                lane_[l_] += (double)(term);                                                      \
            }                                                                                     \
        for (int64_t i = first_; i < (n); i++) lane_[i - first_] += (double)(term);               \
        sum = f2bi_sum_lanes(lane_);                                                              \
    } while (0)

/* ---- Sums over rows, for gradients of parameters ---- */

enum { F2BI_COLUMN_BLOCK = 64 };

/* Adds, to the gradient `grad` (of `type`) at columns [0, D), the f64 sum over r in [0, R) of
 * `term`, an expression in r and c; parallel over blocks of columns, so that the order is that of
 * the rows. */
#define F2BI_ADD_COLUMN_SUMS(grad, type, R, D, term)                                              \
    do {                                                                                          \
        const int64_t blocks_ = ((D) + F2BI_COLUMN_BLOCK - 1) / F2BI_COLUMN_BLOCK;                \
        const bool many_ = (R) * (D) > F2BI_PARALLEL_FROM;                                        \
        _Pragma("omp parallel for schedule(static) if (many_)")                                   \
        for (int64_t block_ = 0; block_ < blocks_; block_++) {                                    \
            const int64_t from_ = block_ * F2BI_COLUMN_BLOCK;                                     \
            const int64_t n_ = (D) - from_ < F2BI_COLUMN_BLOCK ? (D) - from_ : F2BI_COLUMN_BLOCK; \
            double sum_[F2BI_COLUMN_BLOCK] = { 0 };                                               \
            real value_[F2BI_COLUMN_BLOCK];                                                       \
            for (int64_t r = 0; r < (R); r++)                                                     \
                for (int64_t j_ = 0; j_ < n_; j_++) {                                             \
                    const int64_t c = from_ + j_;                                                 \
                    sum_[j_] += (double)(term);                                                   \
                }                                                                                 \
            f2bi_read_row(value_, (grad), (type), from_, n_);                                     \
            for (int64_t j_ = 0; j_ < n_; j_++) value_[j_] = (real)(value_[j_] + sum_[j_]);       \
            f2bi_write_row((grad), (type), from_, n_, value_);                                    \
        }                                                                                         \
    } while (0)

#endif
