/*
 * The GEMM of gemm.h. Loops, outermost first: slabs of columns (B is packed once a slab, by all
 * threads), tiles of rows x columns (one task each), passes along k over all terms, panels of NR
 * columns, groups of MR rows (sums in registers for the whole pass). A is read in place where its rows
 * are contiguous in the type of packed operands and do not collide in the cache, else packed tile by tile.
 * Where rows are few for the size of B (an answer's next token, one conversation through a large model), a
 * task has all rows and some columns: A is packed whole if at all, and each task packs panels of its own,
 * pass by pass, and reads them out of its cache, so that one thread waits for memory while another
 * multiplies. Where they are fewer still (a LoRA's gradients), B is not packed if its rows are contiguous.
 * A B that was packed before (packed_weight.h) is read as it is by all of these. Rows of A that are made where
 * they are multiplied lie in their thread's cache then: a task has all columns of the slab. Where there are too
 * few rows for that they are made by all threads before.
 */
#include <omp.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "autograd/device/cpu/cache.h"
#include "autograd/device/cpu/gemm_internal.h"
#include "autograd/device/cpu/products.h"
#include "autograd/device/cpu/threads.h"

enum {
    MC = 8 * MR, AMX_MC = 128, TILE_N = 512, NARROW = 4 * NR, FEWEST_ROWS = 8,
    PASS = 2816 / sizeof(elem),     /* the most of k in a pass: it is part of what the result is */
    LINE = 64 / sizeof(elem),
};
#define SLAB_BYTES ((int64_t)8 << 20)
/* So few rows, over so many bytes of B (as packed), take work space for parts of B alone. */
enum { FEW_ROWS = 1024, LARGE_B = 2 << 20 };

typedef struct gemm {
    int64_t M, N;
    f2b_gemm_term terms[MAX_TERMS];
    int n_terms;
    int64_t mc;                 /* rows of a tile, at most */
    int64_t pass;               /* of k at a time */
    f2b_gemm_out out;
    const real *bias;           /* converted */
    bool in_place;              /* B is read where it lies */
    bool tiled;                 /* sums of several passes go through a tile: C is bf16 */
    bool all_rows;              /* in one task, which packs its own part of B */
    int64_t tile_n;
    elem *packed;               /* this slab's B: term after term; not with all_rows */
    elem *a_whole[MAX_TERMS];   /* with all_rows: A [M, a_step], NULL where it is read in place */
    int made;                   /* the term whose A is made, or NONE */
} gemm;

enum { NONE = -1 };

/* What a thread has for itself. */
typedef struct room {
    real *tile;                 /* [rows of a task, tile_n] if tiled */
    elem *made;                 /* [rows of a task, a_step] if a term's A is made, not with all_rows */
    elem *a, *b;                /* [mc, pass]; with all_rows [tile_n / NR, pass, NR] */
} room;

static inline bool reads_a(const gemm *g, const f2b_gemm_term *t)
{
    const bool collide = g->M > FEWEST_ROWS && f2b_rows_collide(t->a_row * (int64_t)sizeof(elem));
    return t->make == NULL && t->a_col == 1 && t->a_type == F2B_KERNEL_DTYPE && t->k % STEP == 0 && !collide;
}

/* Rows of a packed whole A do not all begin in the same set of a cache. */
static inline int64_t a_step(const f2b_gemm_term *t) { return (t->k + LINE - 1) / LINE * LINE + LINE; }

/* Elements of k, as packed, in the terms before term t (all terms: t = n_terms). */
static int64_t k_before(const f2b_gemm_term *terms, int t)
{
    int64_t k = 0;
    for (int i = 0; i < t; i++) k += f2bi_whole_units(terms[i].k);
    return k;
}

/* Of those, what this product packs. */
static int64_t k_to_pack(const f2b_gemm_term *terms, int t)
{
    int64_t k = 0;
    for (int i = 0; i < t; i++) k += terms[i].packed == NULL ? f2bi_whole_units(terms[i].k) : 0;
    return k;
}

/* A stretch [l, l + k) of term t, and where its A is read for rows [m0, m0 + m); `space` is for packing it. */
static f2bi_run run_of(const gemm *g, int t, int64_t l, int64_t k, int64_t m0, int64_t m, const room *own,
                       elem *space)
{
    const f2b_gemm_term *term = &g->terms[t];
    f2bi_run r = { .k = k, .alpha = (real)term->alpha };
    if (reads_a(g, term)) {
        r.a = (const elem *)term->a + m0 * term->a_row + l, r.lda = term->a_row;
    } else if (g->all_rows) {
        r.a = g->a_whole[t] + m0 * a_step(term) + l, r.lda = a_step(term);
    } else if (t == g->made) {
        r.a = own->made + l, r.lda = a_step(term);
    } else {
        KERNEL(f2bi_gemm_pack_a)(space, g->pass, term, m0, m, l, k);
        r.a = space, r.lda = g->pass;
    }
    return r;
}

/* So many rows at a time that their part of A stays in the cache while panels go by. */
static void bands(const gemm *g, int64_t m, int64_t n, f2bi_run *runs, int n_runs, f2bi_block_out o)
{
    for (int64_t i = 0; i < m; i += g->mc) {
        KERNEL(f2bi_gemm_block_out)(m - i < g->mc ? m - i : g->mc, n, runs, n_runs, o);
        o = f2bi_block_at(o, g->mc, 0);
        for (int r = 0; r < n_runs; r++) runs[r].a += g->mc * runs[r].lda;
    }
}

/* One task: rows [m0, m0+m), columns [n0, n0+n) of the slab that starts at column s0. */
static void tile_task(const gemm *g, int64_t m0, int64_t m, int64_t s0, int64_t slab, int64_t n0,
                      int64_t n, const room *own)
{
    const int64_t col = s0 + n0, panels = (slab + NR - 1) / NR, k_sum = k_before(g->terms, g->n_terms);
    const f2bi_block_out whole_c = {
        .c = g->out.c, .from = g->out.from != NULL ? g->out.from : g->out.c,
        .rounded = g->out.c_type != F2B_REAL_DTYPE, .early = g->out.c_col == 1,
        .row = g->out.c_row, .col = g->out.c_col, .beta = (real)g->out.beta, .bias = g->bias };
    const f2bi_block_out end = f2bi_block_at(whole_c, m0, col);
    f2bi_block_out o = end;
    if (g->tiled) o = (f2bi_block_out){ .c = own->tile, .from = own->tile, .row = g->tile_n, .col = 1 };
    int t = 0;
    int64_t l = 0;
    for (int64_t done = 0; done < k_sum || done == 0;) {
        f2bi_run runs[MAX_TERMS];
        int n_runs = 0;
        int64_t filled = 0;             /* of this pass */
        for (; t < g->n_terms && filled < g->pass; n_runs++) {
            const f2b_gemm_term *term = &g->terms[t];
            const int64_t whole = f2bi_whole_units(term->k), left = term->k - l;
            const int64_t k = left < g->pass - filled ? left : g->pass - filled;
            f2bi_run r = run_of(g, t, l, k, m0, m, own, own->a + filled);
            r.ldb = NR * STEP, r.b_panel = whole * NR;
            if (term->packed != NULL) {
                r.b = (const elem *)term->packed + col * whole + l * NR;
            } else if (g->in_place) {
                r.b = (const elem *)term->b + l * term->b_row + col;
                r.ldb = term->b_row * STEP, r.b_panel = NR, r.far = true;
            } else if (g->all_rows) {
                r.b = own->b + filled * NR, r.b_panel = g->pass * NR;
                KERNEL(f2bi_gemm_pack_panels)(own->b + filled * NR, g->pass * NR, term, col, n, l, k);
            } else {
                r.b = g->packed + panels * NR * k_to_pack(g->terms, t) + n0 * whole + l * NR;
            }
            runs[n_runs] = r;
            filled += f2bi_whole_units(k), l += k;
            if (l == term->k) t++, l = 0;
        }
        bands(g, m, n, runs, n_runs, o);
        o.from = o.c, o.beta = 1, o.bias = NULL;
        done += filled > 0 ? filled : 1;
    }
    if (g->tiled) KERNEL(f2bi_gemm_write)(&end, own->tile, g->tile_n, m, n);
}

/* Rows of a task, at most. */
static int64_t task_rows(const gemm *g) { return g->all_rows || g->M < g->mc ? g->M : g->mc; }

static int64_t tile_bytes(const gemm *g)
{
    return g->tiled ? task_rows(g) * g->tile_n * (int64_t)sizeof(real) : 0;
}

static int64_t made_elements(const gemm *g)
{
    return g->made == NONE || g->all_rows ? 0 : task_rows(g) * a_step(&g->terms[g->made]);
}

static room room_of(const gemm *g, char *thread_space, int64_t per_thread)
{
    char *at = thread_space + omp_get_thread_num() * per_thread;
    room r = { .tile = (real *)at };
    r.made = (elem *)(at + tile_bytes(g));
    r.a = r.made + made_elements(g);
    r.b = r.a;                          /* with all_rows A is never packed by the tile */
    return r;
}

static bool is_work(const gemm *g, int64_t columns)
{
    return g->M * columns * (k_before(g->terms, g->n_terms) + 1) > 200000 && !omp_in_parallel();
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Rows [m0, m0 + m) of columns [n0, n0 + width) of the slab, as far as it goes, tile by tile. */
static void slab_task(const gemm *g, int64_t m0, int64_t m, int64_t s0, int64_t slab, int64_t n0, int64_t width,
                      const room *own)
{
    const int64_t end = least(n0 + width, slab);
    if (g->made != NONE) {
        const f2b_gemm_term *term = &g->terms[g->made];
        term->make(term->user, m0, m, own->made, a_step(term));
    }
    for (; n0 < end; n0 += g->tile_n)
        tile_task(g, m0, m, s0, slab, n0, least(end - n0, g->tile_n), own);
}

/* Rows [from, to) as tasks of `rows` by `width` columns; for a thread of the team. */
static void share_tasks(const gemm *g, int64_t from, int64_t to, int64_t rows, int64_t s0, int64_t slab,
                        int64_t width, const room *own)
{
    const int64_t across = (slab + width - 1) / width, down = (to - from + rows - 1) / rows;
#pragma omp for schedule(dynamic, 1) nowait
    for (int64_t task = 0; task < down * across; task++) {
        const int64_t m0 = from + task / across * rows;
        slab_task(g, m0, least(to - m0, rows), s0, slab, task % across * width, width, own);
    }
}

static void run_slab(const gemm *g, int64_t s0, int64_t slab, char *thread_space, int64_t per_thread)
{
    const int64_t tiles_m = (g->M + g->mc - 1) / g->mc;
    const int64_t panels = g->in_place ? 0 : (slab + NR - 1) / NR;
    /* The last rows' tasks are small ones, so that threads end together. */
    const int64_t in_parts = tiles_m >= 4 * f2b_threads() ? f2b_threads() : 0;
    const int64_t whole = in_parts > 0 ? (tiles_m - in_parts) * g->mc : g->M;
    const bool made = g->made != NONE;
#pragma omp parallel if (is_work(g, slab))
    {
        const room own = room_of(g, thread_space, per_thread);
        elem *packed = g->packed;
        for (int t = 0; t < g->n_terms && panels > 0; t++) {
            if (g->terms[t].packed != NULL) continue;
            const int64_t k = g->terms[t].k, panel = f2bi_whole_units(k) * NR;
#pragma omp for schedule(static) nowait
            for (int64_t n = 0; n < slab; n += NARROW)
                KERNEL(f2bi_gemm_pack_panels)(packed + n / NR * panel, panel, &g->terms[t], s0 + n,
                                              slab - n < NARROW ? slab - n : NARROW, 0, k);
            packed += panels * panel;
        }
#pragma omp barrier
        share_tasks(g, 0, whole, g->mc, s0, slab, made ? slab : g->tile_n, &own);
        share_tasks(g, whole, g->M, made ? (g->mc + 3) / 4 : g->mc, s0, slab, made ? slab : NARROW, &own);
        KERNEL(f2bi_gemm_done)();
    }
}

/* A task has all rows and tile_n columns. */
static void run_columns(const gemm *g, char *thread_space, int64_t per_thread)
{
    enum { PART = 256 };                /* of k, of an A that is packed */
#pragma omp parallel if (is_work(g, g->N))
    {
        const room own = room_of(g, thread_space, per_thread);
        if (g->made != NONE) {
            const f2b_gemm_term *term = &g->terms[g->made];
            const int64_t step = a_step(term);
#pragma omp for schedule(static)
            for (int64_t m = 0; m < g->M; m += MR)
                term->make(term->user, m, least(g->M - m, MR), g->a_whole[g->made] + m * step, step);
        }
        for (int t = 0; t < g->n_terms; t++) {
            if (t == g->made || reads_a(g, &g->terms[t])) continue;
            const int64_t k = g->terms[t].k;
#pragma omp for schedule(static) nowait
            for (int64_t l = 0; l < k; l += PART)
                KERNEL(f2bi_gemm_pack_a)(g->a_whole[t] + l, a_step(&g->terms[t]), &g->terms[t], 0, g->M,
                                         l, k - l < PART ? k - l : PART);
        }
#pragma omp barrier
#pragma omp for schedule(dynamic, 1) nowait
        for (int64_t n0 = 0; n0 < g->N; n0 += g->tile_n)
            tile_task(g, 0, g->M, n0, g->tile_n, 0, g->N - n0 < g->tile_n ? g->N - n0 : g->tile_n, &own);
        KERNEL(f2bi_gemm_done)();
    }
}

/* Few rows, and B's rows contiguous: packing would cost more than it saves. */
static bool reads_in_place(const gemm *g)
{
    if (k_to_pack(g->terms, g->n_terms) < k_before(g->terms, g->n_terms)) return false;
    if (STEP != 1 && f2b_cpu_products() != F2B_PRODUCTS_AVX512_BF16) return false;
    for (int t = 0; t < g->n_terms; t++) {
        const f2b_gemm_term *term = &g->terms[t];
        if (term->b_col != 1 || term->b_type != F2B_KERNEL_DTYPE) return false;
        if (f2b_rows_collide(term->b_row * (int64_t)sizeof(elem))) return false;
    }
    return g->M <= 4 * MR && g->N % (STEP == 1 ? VL : NR) == 0;
}

/* Tasks of rows: as many for each thread, and all alike, so that no thread waits for the last. */
static int64_t share_rows(gemm *g)
{
    const int64_t threads = f2b_threads(), fewest = (g->M + g->mc - 1) / g->mc;
#if defined(F2B_KERNEL_BF16)
    if (f2b_cpu_products() == F2B_PRODUCTS_AMX_BF16) return fewest;     /* its groups of rows are whole */
#endif
    if (g->all_rows || fewest < threads) return fewest;
    const int64_t tasks = (fewest + threads - 1) / threads * threads;
    g->mc = (g->M + tasks - 1) / tasks;
    return tasks;
}

/* Terms that add something, how k is cut into equal passes, and how the work is shared out. */
static gemm plan(int64_t M, int64_t N, const f2b_gemm_term *terms, int n_terms, f2b_gemm_out out)
{
    gemm g = { .M = M, .N = N, .out = out, .mc = MC, .made = NONE };
    F2B_CHECK(n_terms <= MAX_TERMS && (out.c_type == F2B_REAL_DTYPE || out.c_type == F2B_BF16));
#if defined(F2B_KERNEL_BF16)
    if (f2b_cpu_products() == F2B_PRODUCTS_AMX_BF16) g.mc = AMX_MC;
#endif
    for (int t = 0; t < n_terms; t++)
        if (terms[t].alpha != 0 && terms[t].k > 0) {
            F2B_CHECK(terms[t].make == NULL || g.made == NONE);
            if (terms[t].make != NULL) g.made = g.n_terms;
            g.terms[g.n_terms++] = terms[t];
        }
    const int64_t k_sum = k_before(g.terms, g.n_terms), passes = (k_sum + PASS - 1) / PASS;
    g.pass = passes > 0 ? ((k_sum + passes - 1) / passes + LINE - 1) / LINE * LINE : LINE;
    g.tiled = out.c_type != F2B_REAL_DTYPE && k_sum > g.pass;
    g.in_place = reads_in_place(&g);
    const bool large_b = k_sum * N * (int64_t)sizeof(elem) > LARGE_B && M <= FEW_ROWS;
    g.all_rows = M <= g.mc || (!g.in_place && large_b);
    if (g.made != NONE && M < 4 * f2b_threads() * g.mc) g.in_place = false, g.all_rows = true;
    const int64_t rows_tasks = share_rows(&g);
    const bool share = N < NARROW * 2 * f2b_threads();          /* few columns: share them out */
    if (g.all_rows) g.tile_n = M <= g.mc && share ? NR : NARROW;
    else g.tile_n = rows_tasks >= 4 * f2b_threads() ? TILE_N : NARROW;
    return g;
}

/* Bytes of work space: what is packed for all threads, and what each has for itself. */
typedef struct space {
    int64_t slab;               /* columns at a time */
    int64_t packed, per_thread, bias;
} space;

static int64_t space_bytes(const space *s) { return s->packed + f2b_threads() * s->per_thread + s->bias; }

static space space_of(const gemm *g)
{
    const int64_t k_sum = k_to_pack(g->terms, g->n_terms), size = (int64_t)sizeof(elem);
    const int64_t fit = SLAB_BYTES / size / (k_sum > 0 ? k_sum : 1) / NR * NR;
    space s = { .slab = fit < NARROW ? NARROW : fit, .bias = g->N * (int64_t)sizeof(real) };
    if (g->in_place || g->all_rows || s.slab > g->N) s.slab = g->N;
    int64_t packed = g->in_place || g->all_rows ? 0 : (s.slab + NR - 1) / NR * NR * k_sum;
    for (int t = 0; g->all_rows && t < g->n_terms; t++)
        if (!reads_a(g, &g->terms[t])) packed += g->M * a_step(&g->terms[t]);
    bool packs_a = false;               /* a task, for itself */
    for (int t = 0; t < g->n_terms; t++)
        packs_a |= t != g->made && !g->all_rows && !reads_a(g, &g->terms[t]);
    s.packed = (packed + LINE - 1) / LINE * LINE * size;
    const int64_t own = g->all_rows ? (k_sum > 0 ? g->tile_n : 0) : packs_a ? task_rows(g) : 0;
    s.per_thread = tile_bytes(g) + (made_elements(g) + own * g->pass) * size;
    return s;
}

static void make_nothing(const void *user, int64_t first, int64_t rows, void *to, int64_t ld)
{
    (void)user, (void)first, (void)rows, (void)to, (void)ld;
}

int64_t KERNEL(f2bi_gemm_space)(const f2b_gemm_shape *z)
{
    static const elem somewhere;
    f2b_gemm_term terms[2] = { { .a_type = F2B_KERNEL_DTYPE, .a_row = z->turned ? 1 : z->k,
                                 .a_col = z->turned ? z->M : 1, .b_type = F2B_KERNEL_DTYPE,
                                 .b_row = z->turned ? z->N : 1, .b_col = z->turned ? 1 : z->k, .alpha = 1 } };
    terms[1] = terms[0];
    if (z->made > 0) terms[0].make = make_nothing;
    if (z->packed > 0) terms[0].packed = &somewhere;
    terms[0].k = z->made > 0 ? z->made : z->packed, terms[1].k = z->k - terms[0].k;
    const gemm g = plan(z->M, z->N, terms, 2, (f2b_gemm_out){ .c_type = z->c_type, .c_row = z->N, .c_col = 1 });
    const space s = space_of(&g);
    return space_bytes(&s);
}

f2b_status KERNEL(f2bi_gemm)(int64_t M, int64_t N, const f2b_gemm_term *terms, int n_terms,
                             f2b_gemm_out out)
{
    if (M == 0 || N == 0) return F2B_OK;
    gemm g = plan(M, N, terms, n_terms, out);
    const space s = space_of(&g);
    char *all = f2b_alloc_host((size_t)space_bytes(&s), F2B_TAG_SCRATCH);
    if (all == NULL) return F2B_ERR_MEMORY;
    g.packed = (elem *)all;
    elem *a_next = g.packed;
    for (int t = 0; g.all_rows && t < g.n_terms; t++)
        if (!reads_a(&g, &g.terms[t])) g.a_whole[t] = a_next, a_next += M * a_step(&g.terms[t]);
    char *thread_space = all + s.packed;
    if (out.bias != NULL) {
        real *values = (real *)(thread_space + f2b_threads() * s.per_thread);
        f2b_convert(values, F2B_REAL_DTYPE, out.bias, out.bias_type, (size_t)N);
        g.bias = values;
    }
    if (g.all_rows) run_columns(&g, thread_space, s.per_thread);
    for (int64_t s0 = 0; s0 < N && !g.all_rows; s0 += s.slab)
        run_slab(&g, s0, N - s0 < s.slab ? N - s0 : s.slab, thread_space, s.per_thread);
    f2b_free(all);
    return F2B_OK;
}
