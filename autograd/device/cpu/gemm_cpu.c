/*
 * The GEMM of gemm.h. Loops, outermost first: slabs of columns (B is packed once a slab, by all
 * threads), tiles of rows x columns (one task each), terms and blocks of KC along k, panels of NR
 * columns (in L1), groups of MR rows (in registers). A is read in place where its rows are
 * contiguous in the type of packed operands, else packed row by row. Where one tile has all rows (an
 * answer's next token has one), each task packs a panel of its own and reads it out of its cache.
 */
#include <omp.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "autograd/device/cpu/gemm_internal.h"
#include "autograd/device/cpu/threads.h"

enum { MC = 8 * MR, TILE_N = 512 };
#define SLAB_BYTES ((int64_t)8 << 20)

typedef struct gemm {
    int64_t M, N;
    const f2b_gemm_term *terms;
    int n_terms;
    f2b_gemm_out out;
    const real *bias;           /* converted */
    bool in_place;              /* B is read where it lies */
    bool direct;                /* C is of the compute type */
    bool one_tile;              /* has all rows, and A is read in place */
    int64_t tile_n;
    elem *packed;               /* this slab's B: term after term; not with one_tile */
} gemm;

static inline f2b_bf16 sum_bf16(real beta, f2b_bf16 old, real value)
{
    return f2b_f32_to_bf16((float)((beta == 0 ? 0 : beta * (real)f2b_bf16_to_f32(old)) + value));
}

/* A tile of a C that is bf16. */
static void write_tile(const gemm *g, const real *tile, int64_t m0, int64_t m, int64_t n0, int64_t n)
{
    const real beta = (real)g->out.beta;
    const int64_t step = g->out.c_col;
    for (int64_t i = 0; i < m; i++) {
        f2b_bf16 *restrict c = (f2b_bf16 *)g->out.c + (m0 + i) * g->out.c_row + n0 * step;
        const real *restrict value = tile + i * TILE_N;
        if (step != 1)
            for (int64_t j = 0; j < n; j++) c[j * step] = sum_bf16(beta, c[j * step], value[j]);
        else if (beta == 0)
            for (int64_t j = 0; j < n; j++) c[j] = f2b_f32_to_bf16((float)value[j]);
        else
            for (int64_t j = 0; j < n; j++) c[j] = sum_bf16(beta, c[j], value[j]);
    }
}

/* One task: rows [m0, m0+m), columns [n0, n0+n) of the slab that starts at column s0. */
static void tile_task(const gemm *g, int64_t m0, int64_t m, int64_t s0, int64_t slab, int64_t n0,
                      int64_t n, const elem *packed, elem *a_block, real *tile)
{
    const int64_t col = s0 + n0;
    bool first = true;
    for (int t = 0; t < g->n_terms; t++) {
        const f2b_gemm_term *term = &g->terms[t];
        const int64_t whole = f2bi_whole_steps(term->k);
        for (int64_t l = 0; l < term->k || (l == 0 && first); l += KC) {
            const int64_t k = term->k - l < KC ? term->k - l : KC;
            const elem *a = (const elem *)term->a + m0 * term->a_row + l;
            int64_t lda = term->a_row;
            if (term->a_col != 1 || term->a_type != F2B_KERNEL_DTYPE || k % STEP != 0) {
                KERNEL(f2bi_gemm_pack_a)(a_block, term, m0, m, l, k);
                a = a_block, lda = KC;
            }
            f2bi_block_out o = { tile, TILE_N, 1, (real)term->alpha, first ? 0 : 1,
                                 first && g->bias ? g->bias + col : NULL };
            if (g->direct) {
                o.c = (real *)g->out.c + m0 * g->out.c_row + col * g->out.c_col;
                o.row = g->out.c_row, o.col = g->out.c_col;
                o.beta = first ? (real)g->out.beta : 1;
            }
            const elem *b = g->in_place ? (const elem *)term->b + l * term->b_row + col
                                        : packed + n0 * whole + l * NR;
            KERNEL(f2bi_gemm_block_out)(m, n, k, a, lda, b, g->in_place ? term->b_row : NR * STEP,
                                        g->in_place ? NR : whole * NR, o);
            first = false;
        }
        packed += (slab + NR - 1) / NR * NR * whole;
    }
    if (!g->direct) write_tile(g, tile, m0, m, col, n);
}

static void run_slab(const gemm *g, int64_t s0, int64_t slab, char *thread_space, int64_t per_thread)
{
    const int64_t tiles_m = (g->M + MC - 1) / MC, tiles_n = (slab + g->tile_n - 1) / g->tile_n;
    const int64_t panels = g->in_place ? 0 : (slab + NR - 1) / NR;
    const int64_t work = g->M * slab * (g->terms[0].k + 1);
#pragma omp parallel if (work > 200000 && !omp_in_parallel())
    {
        real *tile = (real *)(thread_space + omp_get_thread_num() * per_thread);
        elem *a_block = (elem *)(g->direct ? tile : tile + MC * TILE_N);
        elem *packed = g->packed;
        for (int t = 0; t < g->n_terms && panels > 0; t++) {
            const int64_t panel = f2bi_whole_steps(g->terms[t].k) * NR;
#pragma omp for schedule(static) nowait
            for (int64_t p = 0; p < panels; p++)
                KERNEL(f2bi_gemm_pack_panel)(packed + p * panel, &g->terms[t], s0 + p * NR,
                                             slab - p * NR < NR ? slab - p * NR : NR);
            packed += panels * panel;
        }
#pragma omp barrier
#pragma omp for schedule(dynamic, 1) nowait
        for (int64_t task = 0; task < tiles_m * tiles_n; task++) {
            const int64_t m0 = task / tiles_n * MC, n0 = task % tiles_n * g->tile_n;
            tile_task(g, m0, g->M - m0 < MC ? g->M - m0 : MC, s0, slab, n0,
                      slab - n0 < g->tile_n ? slab - n0 : g->tile_n, g->packed, a_block, tile);
        }
    }
}

/* All rows of columns [n0, n0+n), n <= NR, packed here. */
static void panel_task(const gemm *g, int64_t n0, int64_t n, elem *packed, elem *a_block, real *tile)
{
    elem *next = packed;
    for (int t = 0; t < g->n_terms; t++) {
        KERNEL(f2bi_gemm_pack_panel)(next, &g->terms[t], n0, n);
        next += f2bi_whole_steps(g->terms[t].k) * NR;
    }
    tile_task(g, 0, g->M, n0, n, 0, n, packed, a_block, tile);
}

static void run_panels(const gemm *g, char *thread_space, int64_t per_thread)
{
    const int64_t work = g->M * g->N * (g->terms[0].k + 1);
#pragma omp parallel if (work > 200000 && !omp_in_parallel())
    {
        real *tile = (real *)(thread_space + omp_get_thread_num() * per_thread);
        elem *a_block = (elem *)(g->direct ? tile : tile + MC * TILE_N);
#pragma omp for schedule(static)
        for (int64_t n0 = 0; n0 < g->N; n0 += NR)
            panel_task(g, n0, g->N - n0 < NR ? g->N - n0 : NR, a_block + MC * KC, a_block, tile);
    }
}

/* Few rows, and B's rows contiguous: packing would cost more than it saves. */
static bool reads_in_place(int64_t M, const f2b_gemm_term *terms, int n_terms, int64_t N)
{
    if (STEP != 1) return false;
    for (int t = 0; t < n_terms; t++)
        if (terms[t].b_col != 1 || terms[t].b_type != F2B_KERNEL_DTYPE) return false;
    return M <= 2 * MR && N % VL == 0;
}

/* All rows in one tile, and no packing of A that each task would do again. */
static bool has_one_tile(int64_t M, const f2b_gemm_term *terms, int n_terms, int64_t k_sum)
{
    for (int t = 0; t < n_terms; t++)
        if (terms[t].a_col != 1 || terms[t].a_type != F2B_KERNEL_DTYPE || terms[t].k % STEP != 0)
            return false;
    return M <= MC && NR * k_sum * (int64_t)sizeof(elem) <= SLAB_BYTES / 4;
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
    for (int t = 0; t < n_terms; t++) k_sum += f2bi_whole_steps(terms[t].k);
    const int64_t fit = SLAB_BYTES / (int64_t)sizeof(elem) / (k_sum > 0 ? k_sum : 1) / NR * NR;
    int64_t slab = fit < 4 * NR ? 4 * NR : fit;
    const int64_t rows_tasks = (M + MC - 1) / MC, threads = f2b_threads();
    g.tile_n = rows_tasks >= 4 * threads ? TILE_N : 4 * NR;     /* few rows: share the columns out */

    g.one_tile = !g.in_place && has_one_tile(M, terms, n_terms, k_sum);
    if (g.in_place || g.one_tile || slab > N) slab = N;
    const int64_t packed = (g.in_place || g.one_tile ? 0 : (slab + NR - 1) / NR * NR * k_sum)
                           * (int64_t)sizeof(elem);
    const int64_t per_thread = (g.direct ? 0 : MC * TILE_N) * (int64_t)sizeof(real)
                               + (MC * KC + (g.one_tile ? NR * k_sum : 0)) * (int64_t)sizeof(elem);
    const int64_t bias = N * (int64_t)sizeof(real);
    char *space = f2b_alloc_host((size_t)(packed + threads * per_thread + bias), F2B_TAG_SCRATCH);
    if (space == NULL) return F2B_ERR_MEMORY;
    g.packed = (elem *)space;
    char *thread_space = space + packed;
    if (out.bias != NULL) {
        real *values = (real *)(thread_space + threads * per_thread);
        f2b_convert(values, F2B_REAL_DTYPE, out.bias, out.bias_type, (size_t)N);
        g.bias = values;
    }
    if (g.one_tile) run_panels(&g, thread_space, per_thread);
    for (int64_t s0 = 0; s0 < N && !g.one_tile; s0 += slab)
        run_slab(&g, s0, N - s0 < slab ? N - s0 : slab, thread_space, per_thread);
    f2b_free(space);
    return F2B_OK;
}
