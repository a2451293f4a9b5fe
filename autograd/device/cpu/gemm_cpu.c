/*
 * The GEMM of gemm.h. Loops, outermost first: slabs of columns (B is packed once a slab, by all
 * threads), tiles of rows x columns (one task each), terms and blocks of KC along k, panels of NR
 * columns (in L1), groups of MR rows (in registers). A is read in place where its rows are
 * contiguous in the compute type, else packed row by row.
 */
#include "autograd/device/cpu/kernel.h"

#if !defined(F2B_KERNEL_BF16)       /* bf16 computes in f32: one compilation each for f32 and f64 */

#include <omp.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "autograd/device/cpu/gemm.h"
#include "autograd/device/cpu/threads.h"

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
enum { MR = 14 };                   /* 28 accumulators + 2 of B + 2 spare of 32 registers */
#else
#define VECTOR_BYTES 32
enum { MR = 6 };                    /* 12 + 2 + 2 of 16 */
#endif
typedef real vec __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));
enum {
    VL = VECTOR_BYTES / sizeof(real),
    NR = 2 * VL,
    KC = 256,                       /* fixed: it is part of what the result is */
    MC = 8 * MR,
    TILE_N = 512,
};
#define SLAB_BYTES ((int64_t)8 << 20)

/* Forces an address into a register of its own, so that 14 row streams need five registers. */
#define IN_REGISTER(p) __asm__ volatile("" : "+r"(p))

/* out[i*NR + j] = sum_k a[i*lda + k] * b[k*ldb + j] for i < mr, j < nv*VL. `mr` and `nv` are
 * constants at every call, so that the accumulators stay in registers. */
static inline __attribute__((always_inline)) void
micro(const int mr, const int nv, int64_t k, const real *a, int64_t lda, const real *b, int64_t ldb,
      real *out)
{
    vec c[MR][2];
    const vec zero = { 0 };
#pragma GCC unroll 14
    for (int i = 0; i < mr; i++) c[i][0] = c[i][1] = zero;
    const real *p[5];
#pragma GCC unroll 5
    for (int g = 0; g < 5; g++) p[g] = a + (3 * g < mr ? 3 * g * lda : 0);
    for (int64_t l = 0; l < k; l++, b += ldb) {
        const vec b0 = *(const vec *)b, b1 = nv == 2 ? *(const vec *)(b + VL) : zero;
#if defined(__x86_64__)
#pragma GCC unroll 5
        for (int g = 0; g < 5; g++)
            if (3 * g < mr) IN_REGISTER(p[g]);
#endif
#pragma GCC unroll 14
        for (int i = 0; i < mr; i++) {
            const vec x = p[i / 3][(i % 3) * lda] - zero;
            c[i][0] += x * b0;
            if (nv == 2) c[i][1] += x * b1;
        }
#pragma GCC unroll 5
        for (int g = 0; g < 5; g++) p[g]++;
    }
#pragma GCC unroll 14
    for (int i = 0; i < mr; i++) {
        *(vec *)(out + i * NR) = c[i][0];
        if (nv == 2) *(vec *)(out + i * NR + VL) = c[i][1];
    }
}

typedef void micro_fn(int64_t k, const real *a, int64_t lda, const real *b, int64_t ldb, real *out);

#define MICRO(mr)                                                                                 \
    static __attribute__((noinline)) void micro_##mr##_1(int64_t k, const real *a, int64_t lda,   \
                                       const real *b, int64_t ldb, real *out)                     \
    { micro(mr, 1, k, a, lda, b, ldb, out); }                                                     \
    static __attribute__((noinline)) void micro_##mr##_2(int64_t k, const real *a, int64_t lda,   \
                                       const real *b, int64_t ldb, real *out)                     \
    { micro(mr, 2, k, a, lda, b, ldb, out); }
#define ROW_OF(mr) { micro_##mr##_1, micro_##mr##_2 }

#if defined(__AVX512F__)
MICRO(1) MICRO(2) MICRO(3) MICRO(4) MICRO(5) MICRO(6) MICRO(7)
MICRO(8) MICRO(9) MICRO(10) MICRO(11) MICRO(12) MICRO(13) MICRO(14)
static micro_fn *const micros[MR][2] = {
    ROW_OF(1), ROW_OF(2), ROW_OF(3), ROW_OF(4), ROW_OF(5), ROW_OF(6), ROW_OF(7),
    ROW_OF(8), ROW_OF(9), ROW_OF(10), ROW_OF(11), ROW_OF(12), ROW_OF(13), ROW_OF(14),
};
#else
MICRO(1) MICRO(2) MICRO(3) MICRO(4) MICRO(5) MICRO(6)
static micro_fn *const micros[MR][2] = {
    ROW_OF(1), ROW_OF(2), ROW_OF(3), ROW_OF(4), ROW_OF(5), ROW_OF(6),
};
#endif

/* ---- Packing ---- */

static inline void convert_row(real *dst, const void *src, f2b_dtype type, int64_t first, int64_t n)
{
    if (type == F2B_REAL_DTYPE) memcpy(dst, (const real *)src + first, (size_t)n * sizeof(real));
    else f2b_convert(dst, F2B_REAL_DTYPE, (const char *)src + (size_t)first * f2b_dtype_size(type),
                     type, (size_t)n);
}

/* dst[i*dst_ld + j] = src(j*src_ld + first + i) for i < n_i, j < n_j: a transpose through a tile of
 * 16 source rows by 64 columns, so that both sides are touched in whole cache lines. */
static void transpose(real *dst, int64_t dst_ld, const void *src, f2b_dtype type, int64_t src_ld,
                      int64_t first, int64_t n_i, int64_t n_j)
{
    real tile[16][64];
    for (int64_t i0 = 0; i0 < n_i; i0 += 64) {
        const int64_t ni = n_i - i0 < 64 ? n_i - i0 : 64;
        for (int64_t j0 = 0; j0 < n_j; j0 += 16) {
            const int64_t nj = n_j - j0 < 16 ? n_j - j0 : 16;
            for (int64_t j = 0; j < nj; j++)
                convert_row(tile[j], src, type, (j0 + j) * src_ld + first + i0, ni);
            if (nj == 16) {
                for (int64_t i = 0; i < ni; i++)
#pragma GCC unroll 16
                    for (int j = 0; j < 16; j++) dst[(i0 + i) * dst_ld + j0 + j] = tile[j][i];
            } else {
                for (int64_t i = 0; i < ni; i++)
                    for (int64_t j = 0; j < nj; j++) dst[(i0 + i) * dst_ld + j0 + j] = tile[j][i];
            }
        }
    }
}

/* One panel: columns [first, first+n) of B, n <= NR, rows [0, k): dst[i*NR + j], zeros beyond n. */
static void pack_panel(real *dst, const f2b_gemm_term *t, int64_t first, int64_t n)
{
    if (n < NR) memset(dst, 0, (size_t)(t->k * NR) * sizeof(real));
    if (t->b_col == 1) {
        for (int64_t i = 0; i < t->k; i++)
            convert_row(dst + i * NR, t->b, t->b_type, i * t->b_row + first, n);
    } else {
        F2B_CHECK(t->b_row == 1);
        transpose(dst, NR, t->b, t->b_type, t->b_col, first * t->b_col, t->k, n);
    }
}

void KERNEL(f2bi_gemm_pack)(real *packed, const f2b_gemm_term *term, int64_t first, int64_t n)
{
    for (int64_t j = 0; j < n; j += NR)
        pack_panel(packed + j * term->k, term, first + j, n - j < NR ? n - j : NR);
}

#if defined(F2B_KERNEL_F32)
int64_t f2bi_gemm_packed_elements(f2b_dtype compute, int64_t k, int64_t N)
{
    const int64_t nr = compute == F2B_F64 ? NR / 2 : NR;
    return (N + nr - 1) / nr * nr * k;
}
#endif

/* ---- One block of C ---- */

typedef struct block_out {
    real *c;                    /* compute type */
    int64_t row, col;           /* strides */
    real alpha, beta;           /* beta 0: written without being read */
    const real *bias;           /* of the block's first column, or NULL */
} block_out;

static inline void add_to_c(const block_out *o, const real *acc, int64_t rows, int64_t n)
{
    for (int64_t i = 0; i < rows; i++) {
        real *c = o->c + i * o->row;
        const real *s = acc + i * NR;
        if (o->col != 1) {
            for (int64_t j = 0; j < n; j++)
                c[j * o->col] = (o->beta == 0 ? 0 : o->beta * c[j * o->col]) + o->alpha * s[j]
                                + (o->bias ? o->bias[j] : 0);
        } else if (o->beta == 0 && o->bias == NULL) {
            for (int64_t j = 0; j < n; j++) c[j] = o->alpha * s[j];
        } else if (o->beta == 0) {
            for (int64_t j = 0; j < n; j++) c[j] = o->bias[j] + o->alpha * s[j];
        } else {
            for (int64_t j = 0; j < n; j++)
                c[j] = o->beta * c[j] + o->alpha * s[j] + (o->bias ? o->bias[j] : 0);
        }
    }
}

/* C block [m,n] += alpha * A block [m,k] * panels of B; b_panel is the step between panels. Rows
 * are spread evenly over groups of at most MR. */
static void block(int64_t m, int64_t n, int64_t k, const real *a, int64_t lda, const real *b,
                  int64_t ldb, int64_t b_panel, block_out o)
{
    real acc[MR * NR] __attribute__((aligned(64)));
    const int64_t groups = (m + MR - 1) / MR;
    for (int64_t j = 0; j < n; j += NR) {
        const int64_t nj = n - j < NR ? n - j : NR;
        for (int64_t g = 0; g < groups; g++) {
            const int64_t i = g * m / groups, rows = (g + 1) * m / groups - i;
            micros[rows - 1][nj > VL](k, a + i * lda, lda, b + j / NR * b_panel, ldb, acc);
            block_out here = o;
            here.c += i * o.row + j * o.col;
            if (here.bias) here.bias += j;
            add_to_c(&here, acc, rows, nj);
        }
    }
}

void KERNEL(f2bi_gemm_block)(int64_t M, int64_t N, int64_t k, real alpha, const real *a, int64_t lda,
                             const real *packed, real beta, real *c, int64_t ldc)
{
    for (int64_t l = 0; l < k || l == 0; l += KC)
        block(M, N, k - l < KC ? k - l : KC, a + l, lda, packed + l * NR, NR, k * NR,
              (block_out){ c, ldc, 1, alpha, l == 0 ? beta : 1, NULL });
}

/* ---- The whole product ---- */

typedef struct gemm {
    int64_t M, N;
    const f2b_gemm_term *terms;
    int n_terms;
    f2b_gemm_out out;
    const real *bias;           /* converted */
    bool in_place;              /* B is read where it lies */
    bool direct;                /* C is of the compute type */
    int64_t tile_n;
    real *packed;               /* this slab's B: term after term */
} gemm;

static void write_tile(const gemm *g, const real *tile, int64_t m0, int64_t m, int64_t n0, int64_t n)
{
    f2b_bf16 *c = (f2b_bf16 *)g->out.c;
    const real beta = (real)g->out.beta;
    for (int64_t i = 0; i < m; i++) {
        f2b_bf16 *row = c + (m0 + i) * g->out.c_row + n0 * g->out.c_col;
        for (int64_t j = 0; j < n; j++) {
            f2b_bf16 *place = row + j * g->out.c_col;
            const real old = beta == 0 ? 0 : beta * (real)f2b_bf16_to_f32(*place);
            *place = f2b_f32_to_bf16((float)(old + tile[i * TILE_N + j]));
        }
    }
}

/* One task: rows [m0, m0+m), columns [n0, n0+n) of the slab that starts at column s0. */
static void tile_task(const gemm *g, int64_t m0, int64_t m, int64_t s0, int64_t slab, int64_t n0,
                      int64_t n, real *a_block, real *tile)
{
    const int64_t col = s0 + n0;
    bool first = true;
    const real *packed = g->packed;
    for (int t = 0; t < g->n_terms; t++) {
        const f2b_gemm_term *term = &g->terms[t];
        for (int64_t l = 0; l < term->k || (l == 0 && first); l += KC) {
            const int64_t k = term->k - l < KC ? term->k - l : KC;
            const real *a = (const real *)term->a + m0 * term->a_row + l;
            int64_t lda = term->a_row;
            if (term->a_col != 1) {
                transpose(a_block, KC, term->a, term->a_type, term->a_col,
                          m0 + l * term->a_col, m, k);
                a = a_block, lda = KC;
            } else if (term->a_type != F2B_REAL_DTYPE) {
                for (int64_t i = 0; i < m; i++)
                    convert_row(a_block + i * KC, term->a, term->a_type, (m0 + i) * term->a_row + l, k);
                a = a_block, lda = KC;
            }
            block_out o = { tile, TILE_N, 1, (real)term->alpha, first ? 0 : 1,
                            first && g->bias ? g->bias + col : NULL };
            if (g->direct) {
                o.c = (real *)g->out.c + m0 * g->out.c_row + col * g->out.c_col;
                o.row = g->out.c_row, o.col = g->out.c_col;
                o.beta = first ? (real)g->out.beta : 1;
            }
            if (g->in_place)
                block(m, n, k, a, lda, (const real *)term->b + l * term->b_row + col, term->b_row,
                      NR, o);
            else
                block(m, n, k, a, lda, packed + n0 * term->k + l * NR, NR, term->k * NR, o);
            first = false;
        }
        packed += (slab + NR - 1) / NR * NR * term->k;
    }
    if (!g->direct) write_tile(g, tile, m0, m, col, n);
}

static void run_slab(const gemm *g, int64_t s0, int64_t slab, real *thread_space, int64_t per_thread)
{
    const int64_t tiles_m = (g->M + MC - 1) / MC, tiles_n = (slab + g->tile_n - 1) / g->tile_n;
    const int64_t panels = g->in_place ? 0 : (slab + NR - 1) / NR;
    const int64_t work = g->M * slab * (g->terms[0].k + 1);
#pragma omp parallel if (work > 200000 && !omp_in_parallel())
    {
        real *a_block = thread_space + omp_get_thread_num() * per_thread;
        real *tile = a_block + MC * KC;
        real *packed = g->packed;
        for (int t = 0; t < g->n_terms && panels > 0; t++) {
#pragma omp for schedule(static) nowait
            for (int64_t p = 0; p < panels; p++)
                pack_panel(packed + p * NR * g->terms[t].k, &g->terms[t], s0 + p * NR,
                           slab - p * NR < NR ? slab - p * NR : NR);
            packed += panels * NR * g->terms[t].k;
        }
#pragma omp barrier
#pragma omp for schedule(dynamic, 1) nowait
        for (int64_t task = 0; task < tiles_m * tiles_n; task++) {
            const int64_t m0 = task / tiles_n * MC, n0 = task % tiles_n * g->tile_n;
            tile_task(g, m0, g->M - m0 < MC ? g->M - m0 : MC, s0, slab, n0,
                      slab - n0 < g->tile_n ? slab - n0 : g->tile_n, a_block, tile);
        }
    }
}

/* Few rows, and B's rows contiguous: packing would cost more than it saves. */
static bool reads_in_place(int64_t M, const f2b_gemm_term *terms, int n_terms, int64_t N)
{
    for (int t = 0; t < n_terms; t++)
        if (terms[t].b_col != 1 || terms[t].b_type != F2B_REAL_DTYPE) return false;
    return M <= 2 * MR && N % VL == 0;
}

f2b_status KERNEL(f2bi_gemm)(int64_t M, int64_t N, const f2b_gemm_term *terms, int n_terms,
                             f2b_gemm_out out)
{
    if (M == 0 || N == 0) return F2B_OK;
    gemm g = { .M = M, .N = N, .terms = terms, .n_terms = n_terms, .out = out };
    g.direct = out.c_type == F2B_REAL_DTYPE;
    F2B_CHECK(g.direct || out.c_type == F2B_BF16);
    g.in_place = reads_in_place(M, terms, n_terms, N);

    int64_t k_sum = 0;
    for (int t = 0; t < n_terms; t++) k_sum += terms[t].k;
    const int64_t fit = SLAB_BYTES / (int64_t)sizeof(real) / (k_sum > 0 ? k_sum : 1) / NR * NR;
    int64_t slab = fit < 4 * NR ? 4 * NR : fit;
    if (g.in_place || slab > N) slab = N;
    const int64_t rows_tasks = (M + MC - 1) / MC, threads = f2b_threads();
    g.tile_n = rows_tasks >= 4 * threads ? TILE_N : 4 * NR;     /* few rows: share the columns out */

    const int64_t packed = g.in_place ? 0 : (slab + NR - 1) / NR * NR * k_sum;
    const int64_t per_thread = MC * KC + (g.direct ? 0 : MC * TILE_N);
    real *space = f2b_alloc_host((size_t)(packed + threads * per_thread + N) * sizeof(real),
                                 F2B_TAG_SCRATCH);
    if (space == NULL) return F2B_ERR_MEMORY;
    g.packed = space;
    real *thread_space = space + packed;
    if (out.bias != NULL) {
        real *bias = thread_space + threads * per_thread;
        convert_row(bias, out.bias, out.bias_type, 0, N);
        g.bias = bias;
    }
    for (int64_t s0 = 0; s0 < N; s0 += slab)
        run_slab(&g, s0, N - s0 < slab ? N - s0 : slab, thread_space, per_thread);
    f2b_free(space);
    return F2B_OK;
}

#else
typedef int gemm_is_compiled_for_f32_and_f64_only;
#endif
