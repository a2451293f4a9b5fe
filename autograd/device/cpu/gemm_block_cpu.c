/*
 * One block of C: groups of MR rows by panels of NR columns, sums in registers. What runs inside is
 * chosen by the type; for bf16 also by the processor (products.h).
 */
#include "autograd/device/cpu/gemm_internal.h"
#include "autograd/device/cpu/products.h"

enum { AHEAD = 48 };                /* steps for which memory is asked early where B is not packed */

typedef real vec __attribute__((vector_size(F2BI_VECTOR_BYTES), aligned(sizeof(real)), may_alias));

/* What is asked for while others are multiplied: the mr rows of A behind these; the first or second half of the panel
 * of B behind this one (a group of rows has as many steps as half a panel has lines). */
enum { NOTHING, NEXT_ROWS, NEXT_PANEL, NEXT_PANEL_REST };

/* out[i*ldo + j] = beta * what lies `from` bytes behind out[i*ldo + j] + the sum of the runs: i < mr rows from
 * `first` on, j < nv*VL columns of a panel; beta 0: nothing is read there. `ask`: one of the above. */
typedef void micro_fn(const f2bi_run *runs, int n_runs, int64_t first, int64_t panel, real *out,
                      int64_t ldo, real beta, intptr_t from, int ask);

/* The loop of every kernel. mr and nv are constants at each use, so that sums stay in registers.
 * LOAD_B fills what MULTIPLY needs of both vectors of B; MULTIPLY adds row i's step. Memory is asked for a line a
 * step; of A, lines of 16 rows after each other and then their next ones, which is as fast as 14 or 16 rows are used
 * up (kernels that read B where it lies, MAY_ASK false, ask for its rows instead). */
#define MICRO_BODY(rows_max, MAY_ASK, LOAD_B, MULTIPLY)                                           \
    vec c[rows_max][2];                                                                           \
    const vec zero = { 0 };                                                                       \
    _Pragma("GCC unroll 14")                                                                      \
    for (int i = 0; i < mr; i++) c[i][0] = c[i][1] = zero;                                        \
    real alpha = 1;                                                                               \
    for (int r = 0; r < n_runs; r++) {                                                            \
        const int64_t lda = runs[r].lda, ldb = runs[r].ldb;                                       \
        const elem *a = runs[r].a + first * lda, *b = runs[r].b + panel * runs[r].b_panel, *p[5]; \
        if (r > 0 && runs[r].alpha != alpha) {                                                    \
            const real factor = alpha / runs[r].alpha;                                            \
            _Pragma("GCC unroll 14")                                                              \
            for (int i = 0; i < mr; i++) c[i][0] *= factor, c[i][1] *= factor;                    \
        }                                                                                         \
        alpha = runs[r].alpha;                                                                    \
        _Pragma("GCC unroll 5")                                                                   \
        for (int g = 0; g < 5; g++) p[g] = a + (3 * g < mr ? 3 * g * lda : 0);                    \
        const bool of_a = ask == NEXT_ROWS, of_b = ask > NEXT_ROWS;                               \
        const char *ahead = (const char *)(of_a ? a + mr * lda : of_b ? b + runs[r].b_panel : a); \
        if (ask == NEXT_PANEL_REST) ahead += runs[r].k / STEP * 64;                               \
        const intptr_t row = of_a ? lda * (int64_t)sizeof(elem) : of_b ? 64 : 0;                  \
        const intptr_t next = of_a ? 64 - 16 * row : 0;                                           \
        for (int64_t l = 0; l < runs[r].k; l += STEP, b += ldb) {                                 \
            if (MAY_ASK) {                                                                        \
                __builtin_prefetch(ahead);                                                        \
                ahead += row;                                                                     \
                if ((l & 15 * STEP) == 15 * STEP) ahead += next;                                  \
            }                                                                                     \
            LOAD_B                                                                                \
            _Pragma("GCC unroll 5")                                                               \
            for (int g = 0; g < 5; g++)                                                           \
                if (3 * g < mr) IN_REGISTER(p[g]);                                                \
            _Pragma("GCC unroll 14")                                                              \
            for (int i = 0; i < mr; i++) {                                                        \
                const elem *at = p[i / 3] + (i % 3) * lda;                                        \
                MULTIPLY                                                                          \
            }                                                                                     \
            _Pragma("GCC unroll 5")                                                               \
            for (int g = 0; g < 5; g++) p[g] += STEP;                                             \
        }                                                                                         \
    }                                                                                             \
    if (alpha != 1)                                                                               \
        _Pragma("GCC unroll 14")                                                                  \
        for (int i = 0; i < mr; i++) c[i][0] *= alpha, c[i][1] *= alpha;                          \
    _Pragma("GCC unroll 14")                                                                      \
    for (int i = 0; i < mr; i++, out += ldo)                                                      \
        for (int v = 0; v < nv; v++) {                                                            \
            vec sum = c[i][v];                                                                    \
            if (beta != 0) sum += beta * *(const vec *)((const char *)(out + v * VL) + from);     \
            *(vec *)(out + v * VL) = sum;                                                         \
        }

/* One function for each number of rows and vectors: PREFIX_<rows>_<vectors>. */
#define MICRO(PREFIX, TARGET, mr, nv)                                                             \
    static __attribute__((noinline)) TARGET void PREFIX##_##mr##_##nv(                            \
        const f2bi_run *runs, int n_runs, int64_t first, int64_t panel, real *out, int64_t ldo,   \
        real beta, intptr_t from, int ask)                                                       \
    { PREFIX(mr, nv, runs, n_runs, first, panel, out, ldo, beta, from, ask); }
#define MICROS(PREFIX, TARGET, mr) MICRO(PREFIX, TARGET, mr, 1) MICRO(PREFIX, TARGET, mr, 2)
#define NAMES(PREFIX, mr) { PREFIX##_##mr##_1, PREFIX##_##mr##_2 }
#define NO_TARGET
#define INLINE_MICRO static inline __attribute__((always_inline)) void

#if defined(F2B_KERNEL_BF16) && defined(__x86_64__)
#include <immintrin.h>
typedef uint32_t word __attribute__((aligned(2), may_alias));
static const uint16_t zip_low[32] = { 0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39,
                                      8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47 };
static const uint16_t zip_high[32] = { 16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55,
                                       24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63 };
#define DOT_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

/* VDPBF16PS. The broadcast pair is held in a register, else it would be loaded for each vector. */
DOT_TARGET INLINE_MICRO dot(const int mr, const int nv, const f2bi_run *runs, int n_runs, int64_t first,
                 int64_t panel, real *out, int64_t ldo, real beta, intptr_t from, int ask)
{
    MICRO_BODY(MR, true,
        const __m512bh b0 = (__m512bh)_mm512_loadu_si512(b);
        const __m512bh b1 = nv == 2 ? (__m512bh)_mm512_loadu_si512(b + NR) : b0;
    ,
        __m512i x = _mm512_set1_epi32((int)*(const word *)at);
        __asm__("" : "+v"(x));
        c[i][0] = (vec)_mm512_dpbf16_ps((__m512)c[i][0], (__m512bh)x, b0);
        if (nv == 2) c[i][1] = (vec)_mm512_dpbf16_ps((__m512)c[i][1], (__m512bh)x, b1);
    )
}

/* B where it lies: its rows are brought together in registers, two at a time. Columns are whole panels. */
DOT_TARGET INLINE_MICRO far_dot(const int mr, const int nv, const f2bi_run *runs, int n_runs, int64_t first,
                 int64_t panel, real *out, int64_t ldo, real beta, intptr_t from, int ask)
{
    static const elem none[NR];
    const __m512i low = _mm512_loadu_si512(zip_low), high = _mm512_loadu_si512(zip_high);
    MICRO_BODY(MR, false,
        const elem *second = l + 1 < runs[r].k ? b + ldb / 2 : none;
        const __m512i x0 = _mm512_loadu_si512(b);
        const __m512i x1 = _mm512_loadu_si512(second);
        const __m512bh b0 = (__m512bh)_mm512_permutex2var_epi16(x0, low, x1);
        const __m512bh b1 = (__m512bh)_mm512_permutex2var_epi16(x0, high, x1);
        __builtin_prefetch(b + AHEAD * ldb);
        __builtin_prefetch(b + AHEAD * ldb + ldb / 2);
    ,
        __m512i x = _mm512_set1_epi32((int)*(const word *)at);
        __asm__("" : "+v"(x));
        c[i][0] = (vec)_mm512_dpbf16_ps((__m512)c[i][0], (__m512bh)x, b0);
        c[i][1] = (vec)_mm512_dpbf16_ps((__m512)c[i][1], (__m512bh)x, b1);
    )
}
#define FAR_DOT(mr) MICRO(far_dot, DOT_TARGET, mr, 2)
#define FAR_DOT_NAMES(mr) { far_dot_##mr##_2, far_dot_##mr##_2 }
FAR_DOT(1) FAR_DOT(2) FAR_DOT(3) FAR_DOT(4) FAR_DOT(5) FAR_DOT(6) FAR_DOT(7)
FAR_DOT(8) FAR_DOT(9) FAR_DOT(10) FAR_DOT(11) FAR_DOT(12) FAR_DOT(13) FAR_DOT(14)
static micro_fn *const far_micros[][2] = {
    FAR_DOT_NAMES(1), FAR_DOT_NAMES(2), FAR_DOT_NAMES(3), FAR_DOT_NAMES(4), FAR_DOT_NAMES(5),
    FAR_DOT_NAMES(6), FAR_DOT_NAMES(7), FAR_DOT_NAMES(8), FAR_DOT_NAMES(9), FAR_DOT_NAMES(10),
    FAR_DOT_NAMES(11), FAR_DOT_NAMES(12), FAR_DOT_NAMES(13), FAR_DOT_NAMES(14),
};

MICROS(dot, DOT_TARGET, 1) MICROS(dot, DOT_TARGET, 2) MICROS(dot, DOT_TARGET, 3)
MICROS(dot, DOT_TARGET, 4) MICROS(dot, DOT_TARGET, 5) MICROS(dot, DOT_TARGET, 6)
MICROS(dot, DOT_TARGET, 7) MICROS(dot, DOT_TARGET, 8) MICROS(dot, DOT_TARGET, 9)
MICROS(dot, DOT_TARGET, 10) MICROS(dot, DOT_TARGET, 11) MICROS(dot, DOT_TARGET, 12)
MICROS(dot, DOT_TARGET, 13) MICROS(dot, DOT_TARGET, 14)
static micro_fn *const dot_micros[][2] = {
    NAMES(dot, 1), NAMES(dot, 2), NAMES(dot, 3), NAMES(dot, 4), NAMES(dot, 5), NAMES(dot, 6),
    NAMES(dot, 7), NAMES(dot, 8), NAMES(dot, 9), NAMES(dot, 10), NAMES(dot, 11), NAMES(dot, 12),
    NAMES(dot, 13), NAMES(dot, 14),
};

static micro_fn *const (*micros_in_use(bool far))[2] { return far ? far_micros : dot_micros; }

#elif !defined(F2B_KERNEL_BF16)

INLINE_MICRO multiply_add(const bool far, const int mr, const int nv, const f2bi_run *runs, int n_runs,
                          int64_t first, int64_t panel, real *out, int64_t ldo, real beta, intptr_t from, int ask)
{
    MICRO_BODY(MR, !far,
        const vec b0 = *(const vec *)b;
        const vec b1 = nv == 2 ? *(const vec *)(b + VL) : zero;
        if (far) __builtin_prefetch(b + AHEAD * ldb);
        if (far) __builtin_prefetch(b + AHEAD * ldb + VL);
    ,
        const vec x = *at - zero;
        c[i][0] += x * b0;
        if (nv == 2) c[i][1] += x * b1;
    )
}

#define FUSED(mr, nv, ...) multiply_add(false, mr, nv, __VA_ARGS__)
/* B where it lies, which no processor sees coming: rows far apart, a cache line or two of each. */
#define FAR(mr, nv, ...) multiply_add(true, mr, nv, __VA_ARGS__)

#if F2BI_VECTOR_BYTES == 64
#define ALL_MICROS(PREFIX)                                                                        \
    MICROS(PREFIX, NO_TARGET, 1) MICROS(PREFIX, NO_TARGET, 2) MICROS(PREFIX, NO_TARGET, 3)        \
    MICROS(PREFIX, NO_TARGET, 4) MICROS(PREFIX, NO_TARGET, 5) MICROS(PREFIX, NO_TARGET, 6)        \
    MICROS(PREFIX, NO_TARGET, 7) MICROS(PREFIX, NO_TARGET, 8) MICROS(PREFIX, NO_TARGET, 9)        \
    MICROS(PREFIX, NO_TARGET, 10) MICROS(PREFIX, NO_TARGET, 11) MICROS(PREFIX, NO_TARGET, 12)     \
    MICROS(PREFIX, NO_TARGET, 13) MICROS(PREFIX, NO_TARGET, 14)
#define ALL_NAMES(PREFIX)                                                                         \
    NAMES(PREFIX, 1), NAMES(PREFIX, 2), NAMES(PREFIX, 3), NAMES(PREFIX, 4), NAMES(PREFIX, 5),     \
    NAMES(PREFIX, 6), NAMES(PREFIX, 7), NAMES(PREFIX, 8), NAMES(PREFIX, 9), NAMES(PREFIX, 10),    \
    NAMES(PREFIX, 11), NAMES(PREFIX, 12), NAMES(PREFIX, 13), NAMES(PREFIX, 14)
#else
#define ALL_MICROS(PREFIX)                                                                        \
    MICROS(PREFIX, NO_TARGET, 1) MICROS(PREFIX, NO_TARGET, 2) MICROS(PREFIX, NO_TARGET, 3)        \
    MICROS(PREFIX, NO_TARGET, 4) MICROS(PREFIX, NO_TARGET, 5) MICROS(PREFIX, NO_TARGET, 6)
#define ALL_NAMES(PREFIX)                                                                         \
    NAMES(PREFIX, 1), NAMES(PREFIX, 2), NAMES(PREFIX, 3), NAMES(PREFIX, 4), NAMES(PREFIX, 5),     \
    NAMES(PREFIX, 6)
#endif
ALL_MICROS(FUSED) ALL_MICROS(FAR)
static micro_fn *const fused_micros[][2] = { ALL_NAMES(FUSED) };
static micro_fn *const far_micros[][2] = { ALL_NAMES(FAR) };

static micro_fn *const (*micros_in_use(bool far))[2] { return far ? far_micros : fused_micros; }
#endif

#define ELEMENTWISE _Pragma("GCC ivdep")

static inline f2b_bf16 rounded_sum(real beta, f2b_bf16 old, real value)
{
    return f2b_f32_to_bf16((float)((beta == 0 ? 0 : beta * (real)f2b_bf16_to_f32(old)) + value));
}

/* Contiguous rows are loops that vectorise, one for each case: an element of C needs none that was written
 * before it, which the compiler is told, because `from` may be C. Not inlined: in a loop over rows the cases would
 * share the registers of all their addresses. */
static __attribute__((noinline)) void write_rounded(const f2bi_block_out *o, int64_t row,
                                                    const real *restrict s, int64_t n)
{
    f2b_bf16 *c = (f2b_bf16 *)o->c + row * o->row;
    const f2b_bf16 *from = (const f2b_bf16 *)o->from + row * o->row;
    const real beta = o->beta, *restrict bias = o->bias;
    if (o->col != 1)
        for (int64_t j = 0; j < n; j++)
            c[j * o->col] = rounded_sum(beta, from[j * o->col], s[j] + (bias ? bias[j] : 0));
    else if (bias != NULL)
        ELEMENTWISE
        for (int64_t j = 0; j < n; j++) c[j] = rounded_sum(beta, from[j], s[j] + bias[j]);
    else if (beta == 0)
        ELEMENTWISE
        for (int64_t j = 0; j < n; j++) c[j] = f2b_f32_to_bf16((float)s[j]);
    else
        ELEMENTWISE
        for (int64_t j = 0; j < n; j++) c[j] = rounded_sum(beta, from[j], s[j]);
}

static inline void write_real(const f2bi_block_out *o, int64_t row, const real *restrict s, int64_t n)
{
    real *c = (real *)o->c + row * o->row;
    const real *from = (const real *)o->from + row * o->row;
    const real beta = o->beta, *restrict bias = o->bias;
    if (o->col != 1)
        for (int64_t j = 0; j < n; j++)
            c[j * o->col] = (beta == 0 ? 0 : beta * from[j * o->col]) + s[j] + (bias ? bias[j] : 0);
    else if (beta == 0)
        ELEMENTWISE
        for (int64_t j = 0; j < n; j++) c[j] = s[j] + (bias ? bias[j] : 0);
    else
        ELEMENTWISE
        for (int64_t j = 0; j < n; j++) c[j] = beta * from[j] + s[j] + (bias ? bias[j] : 0);
}

void KERNEL(f2bi_gemm_write)(const f2bi_block_out *o, const real *values, int64_t ld, int64_t m,
                             int64_t n)
{
    for (int64_t i = 0; i < m; i++)
        if (o->rounded) write_rounded(o, i, values + i * ld, n);
        else write_real(o, i, values + i * ld, n);
}

#if !defined(F2B_KERNEL_BF16) || defined(__x86_64__)
/* Sums of a group of rows that C does not hold as they are: written from `values`, rows NR apart. */
static inline void write_group(f2bi_block_out o, int64_t i, int64_t j, real *values, int64_t rows, int64_t n)
{
    o = f2bi_block_at(o, i, j);
#if defined(F2B_KERNEL_BF16)
    if (o.rounded && o.col == 1 && f2b_cpu_products() == F2B_PRODUCTS_AVX512_BF16) {
        f2bi_gemm_write_rounded(&o, values, 1, rows, n);
        return;
    }
#endif
    KERNEL(f2bi_gemm_write)(&o, values, NR, rows, n);
}

/* Rows are spread evenly over groups of as many as the kernels take: the first g groups have m * g / groups
 * of them (without dividing each time, which short products would notice). */
static void block(int64_t m, int64_t n, const f2bi_run *runs, int n_runs, f2bi_block_out o)
{
    real acc[MR * NR] __attribute__((aligned(64)));
    micro_fn *const (*micros)[2] = micros_in_use(n_runs > 0 && runs[0].far);
    const int64_t groups = (m + MR - 1) / MR, fewest = groups > 0 ? m / groups : 0;
    const int64_t rest = m - fewest * groups;
    const intptr_t from = (intptr_t)o.from - (intptr_t)o.c;
    /* Rows 4 KiB apart would be asked into the set of the first cache that holds those in use. */
    const bool may_ask = n_runs > 0 && runs[0].lda * (int64_t)sizeof(elem) % 4096 != 0;
    for (int64_t j = 0; j < n; j += NR) {
        const int64_t nj = n - j < NR ? n - j : NR;
        const bool in_place = !o.rounded && o.col == 1 && o.bias == NULL && nj % VL == 0;
        for (int64_t i = 0, rows, owed = 0; i < m; i += rows) {
            rows = fewest, owed += rest;
            if (owed >= groups) rows++, owed -= groups;
            micro_fn *micro = micros[rows - 1][nj > VL];
            if (o.early) f2bi_gemm_ask_for(&o, i, j, rows, nj);
            int ask = may_ask && j == 0 && i + rows < m ? NEXT_ROWS : NOTHING;
            if (j > 0 && i < 2 * fewest) ask = i == 0 ? NEXT_PANEL : NEXT_PANEL_REST;
            if (in_place) {
                micro(runs, n_runs, i, j / NR, (real *)o.c + i * o.row + j, o.row, o.beta, from, ask);
                continue;
            }
            micro(runs, n_runs, i, j / NR, acc, NR, 0, 0, ask);
            write_group(o, i, j, acc, rows, nj);
        }
    }
}

#else
static void block(int64_t m, int64_t n, const f2bi_run *runs, int n_runs, f2bi_block_out o)
{
    f2bi_gemm_widened_block(m, n, runs, n_runs, &o);
}
#endif

void KERNEL(f2bi_gemm_block_out)(int64_t m, int64_t n, const f2bi_run *runs, int n_runs,
                                 f2bi_block_out o)
{
#if defined(F2B_KERNEL_BF16)
    const f2b_products family = f2b_cpu_products();
    if (family == F2B_PRODUCTS_AMX_BF16) f2bi_gemm_amx_block(m, n, runs, n_runs, &o);
    else if (family == F2B_PRODUCTS_F32) f2bi_gemm_widened_block(m, n, runs, n_runs, &o);
    else
#endif
        block(m, n, runs, n_runs, o);
}

void KERNEL(f2bi_gemm_block)(int64_t M, int64_t N, int64_t k, real alpha, const elem *a,
                             int64_t lda, const elem *packed, int64_t packed_k, real beta, real *c,
                             int64_t ldc)
{
    const f2bi_run run = { .a = a, .b = packed, .lda = lda, .ldb = NR * STEP,
                           .b_panel = f2bi_whole_units(packed_k) * NR, .k = k, .alpha = alpha };
    KERNEL(f2bi_gemm_block_out)(M, N, &run, 1, (f2bi_block_out){ .c = c, .from = c, .row = ldc, .col = 1,
                                                                 .beta = beta });
}

int64_t KERNEL(f2bi_gemm_group)(void)
{
#if defined(F2B_KERNEL_BF16)
    if (f2b_cpu_products() == F2B_PRODUCTS_AMX_BF16) return 32;
    if (f2b_cpu_products() == F2B_PRODUCTS_F32) return MR_WIDENED;
#endif
    return MR;
}

void KERNEL(f2bi_gemm_done)(void)
{
#if defined(F2B_KERNEL_BF16)
    f2bi_gemm_amx_release();
#endif
}
