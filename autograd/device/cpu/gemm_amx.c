/*
 * Blocks of C by the tiles of Intel AMX. Of the eight tiles (16 rows of 64 bytes each) four hold sums,
 * 32 rows by a panel of 32 columns, two hold 32 rows of A and two a panel of B; a step is 32 elements
 * along k: four loads and four TDPBF16PS. A is read where it lies, panels as they are packed for
 * VDPBF16PS.
 *
 * A sum is a chain of steps. In a step the 16 products of even k and the 16 of odd k are two chains
 * from 0 (fused multiply-adds), which are added to each other and then to the sum; subnormal numbers count as 0.
 * Steps begin with the runs, and sums that wait in memory lose nothing, so how the work is cut below
 * changes no bit.
 */
#define F2B_KERNEL_BF16
#include "autograd/device/cpu/gemm_internal.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "autograd/core/status.h"

#define AMX_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16")))
#define AMX_INLINE AMX_TARGET static inline __attribute__((always_inline)) void

enum {
    SIDE = 16,                          /* rows of a tile */
    GROUP = 2 * SIDE, BAND = 4 * GROUP, /* rows summed at once; rows that share a panel in the cache */
    K = 32,                             /* elements of a step: 64 bytes */
    STEPS = 17,                         /* most steps of a panel at a time: 34 KiB, the first cache has 48 */
    PANEL_ROW = NR * STEP * (int)sizeof(elem),
};

/* A stretch of a run: whole steps. Where k is no multiple of 32, the rest is one of its own, whose rows
 * of A are copied and completed with zeros; packed panels end in zeros as it is. */
typedef struct stretch {
    const char *a;
    int64_t a_row, steps;               /* bytes from row to row */
    const elem *b;
    int64_t b_panel;
    float alpha;
} stretch;

typedef struct work {
    stretch s[2 * MAX_TERMS];
    int n;
    int64_t steps;                      /* of all */
    float alpha;                        /* of the last */
} work;

/* Where in a chain: a stretch and the steps of it that are done. */
typedef struct place { int t; int64_t done; } place;

static void lay_out(work *w, const f2bi_run *runs, int n_runs, int64_t m0, int64_t m,
                    elem (*rest)[BAND][K])
{
    w->n = 0, w->steps = 0;
    for (int r = 0; r < n_runs; r++) {
        const f2bi_run *run = &runs[r];
        const elem *a = run->a + m0 * run->lda;
        const int64_t whole = run->k / K, left = run->k % K;
        F2B_CHECK(run->ldb == NR * STEP);
        if (whole > 0)
            w->s[w->n++] = (stretch){ (const char *)a, run->lda * (int64_t)sizeof(elem), whole, run->b,
                                      run->b_panel, run->alpha };
        if (left > 0) {
            for (int64_t i = 0; i < m; i++) {
                memset(rest[r][i], 0, sizeof rest[r][i]);
                memcpy(rest[r][i], a + i * run->lda + whole * K, (size_t)left * sizeof(elem));
            }
            w->s[w->n++] = (stretch){ (const char *)rest[r], sizeof rest[r][0], 1,
                                      run->b + whole * K * NR, run->b_panel, run->alpha };
        }
        w->steps += whole + (left > 0);
        w->alpha = run->alpha;
    }
}

/* ---- Tiles: 0 to 3 sums (2*i + j: rows i, columns j), 4 and 5 rows of A, 6 and 7 columns of B ---- */

static _Thread_local int64_t rows_set;  /* of the thread's tiles; 0: they are free */

typedef struct tile_shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];                 /* of a row */
    uint8_t rows[16];
} tile_shapes;

/* Tiles for `rows` <= GROUP rows of A. */
AMX_TARGET static void set_rows(int64_t rows)
{
    if (rows_set == rows) return;
    const uint8_t first = (uint8_t)(rows < SIDE ? rows : SIDE);
    const uint8_t second = (uint8_t)(rows > SIDE ? rows - SIDE : SIDE);
    tile_shapes t __attribute__((aligned(64))) = {
        .palette = 1, .rows = { first, first, second, second, first, second, SIDE, SIDE } };
    for (int i = 0; i < 8; i++) t.bytes[i] = 64;
    __asm__ volatile("" : : "r"(&t) : "memory");    /* the intrinsic names 8 bytes of 64 */
    _tile_loadconfig(&t);
    rows_set = rows;
}

AMX_TARGET void f2bi_gemm_amx_release(void)
{
    if (rows_set == 0) return;
    _tile_release();
    rows_set = 0;
}

AMX_INLINE zero_sums(void)
{
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
}

AMX_INLINE load_sums(const bool two_rows, const bool two_cols, const float *c, int64_t bytes)
{
    const char *low = (const char *)c + SIDE * bytes;
    _tile_loadd(0, c, bytes);
    if (two_cols) _tile_loadd(1, c + SIDE, bytes);
    if (two_rows) _tile_loadd(2, low, bytes);
    if (two_rows && two_cols) _tile_loadd(3, low + 64, bytes);
}

AMX_INLINE store_sums(const bool two_rows, const bool two_cols, float *c, int64_t bytes)
{
    char *low = (char *)c + SIDE * bytes;
    _tile_stored(0, c, bytes);
    if (two_cols) _tile_stored(1, c + SIDE, bytes);
    if (two_rows) _tile_stored(2, low, bytes);
    if (two_rows && two_cols) _tile_stored(3, low + 64, bytes);
}

AMX_INLINE multiply(const bool two_rows, const bool two_cols, const char *a, int64_t a_row,
                    const elem *b, int64_t steps)
{
    const char *low = a + SIDE * a_row;
    for (int64_t l = 0; l < steps; l++, a += 64, low += 64, b += K * NR) {
        _tile_loadd(6, b, PANEL_ROW);
        _tile_loadd(4, a, a_row);
        _tile_dpbf16ps(0, 4, 6);
        if (two_cols) _tile_loadd(7, b + K, PANEL_ROW);
        if (two_cols) _tile_dpbf16ps(1, 4, 7);
        if (two_rows) _tile_loadd(5, low, a_row);
        if (two_rows) _tile_dpbf16ps(2, 5, 6);
        if (two_rows && two_cols) _tile_dpbf16ps(3, 5, 7);
    }
}

/* Sums are in units of a stretch's alpha: change to those of the next. */
AMX_INLINE change_alpha(const bool two_rows, const bool two_cols, float factor)
{
    float c[GROUP][NR] __attribute__((aligned(64)));
    store_sums(two_rows, two_cols, c[0], sizeof c[0]);
    for (int i = 0; i < GROUP; i++)
        for (int j = 0; j < NR; j++)
            if ((two_rows || i < SIDE) && (two_cols || j < SIDE)) c[i][j] *= factor;
    __asm__ volatile("" : : : "memory");
    load_sums(two_rows, two_cols, c[0], sizeof c[0]);
}

/* Goes `steps` on from p, for the rows from `row` on. */
AMX_INLINE go_on(const bool two_rows, const bool two_cols, const work *w, place *p, int64_t steps,
                 int64_t row, int64_t panel)
{
    while (steps > 0) {
        const stretch *s = &w->s[p->t];
        const int64_t left = s->steps - p->done, n = left < steps ? left : steps;
        if (p->done == 0 && p->t > 0 && s[-1].alpha != s->alpha)
            change_alpha(two_rows, two_cols, s[-1].alpha / s->alpha);
        multiply(two_rows, two_cols, s->a + row * s->a_row + p->done * 64, s->a_row,
                 s->b + panel * s->b_panel + p->done * K * NR, n);
        steps -= n, p->done += n;
        if (p->done == s->steps) p->t++, p->done = 0;
    }
}

/* How a part of a chain begins and ends: NULL is with zeros. */
typedef struct ends { const float *from; float *to; int64_t from_bytes, to_bytes; } ends;

/* One group: its sums, as far as `steps` go. */
typedef place part_fn(const work *w, place p, int64_t steps, int64_t row, int64_t panel, ends e);
#define PART(name, two_rows, two_cols)                                                            \
    AMX_TARGET static place name(const work *w, place p, int64_t steps, int64_t row, int64_t panel, \
                                 ends e)                                                          \
    {                                                                                             \
        if (e.from != NULL) load_sums(two_rows, two_cols, e.from, e.from_bytes);                  \
        else zero_sums();                                                                         \
        go_on(two_rows, two_cols, w, &p, steps, row, panel);                                      \
        store_sums(two_rows, two_cols, e.to, e.to_bytes);                                         \
        return p;                                                                                 \
    }
PART(part_1_1, false, false)
PART(part_1_2, false, true)
PART(part_2_1, true, false)
PART(part_2_2, true, true)
static part_fn *const parts[2][2] = { { part_1_1, part_1_2 }, { part_2_1, part_2_2 } };

static void write_sums(const f2bi_block_out *o, float *sums, float alpha, int64_t rows, int64_t n)
{
    if (o->rounded && o->col == 1) {
        f2bi_gemm_write_rounded(o, sums, alpha, rows, n);
        return;
    }
    for (int64_t j = 0; j < rows * NR && alpha != 1; j++) sums[j] *= alpha;
    f2bi_gemm_write_bf16(o, sums, NR, rows, n);
}

/* Up to BAND rows: whole groups, or one that is not, by one panel. The panel goes through the first
 * cache in stretches of a few steps; sums that are not done wait in `sums`. */
static void panel_of_band(const work *w, int64_t m, int64_t n, int64_t panel, const f2bi_block_out *o)
{
    float sums[BAND / GROUP][GROUP * NR] __attribute__((aligned(64)));     /* [GROUP, NR] a group */
    const int64_t group = m < GROUP ? m : GROUP, sums_row = NR * (int64_t)sizeof(float);
    const int64_t passes = w->steps > STEPS ? (w->steps + STEPS - 1) / STEPS : 1;
    const bool in_place = !o->rounded && o->col == 1 && o->bias == NULL && w->alpha == 1
                          && (o->beta == 0 || o->beta == 1) && n % SIDE == 0;
    part_fn *part = parts[group > SIDE][n > SIDE];
    place p = { 0, 0 };
    for (int64_t pass = 0; pass < passes; pass++) {
        const int64_t steps = (pass + 1) * w->steps / passes - pass * w->steps / passes;
        place next = p;
        for (int64_t i = 0; i < m; i += group) {
            const f2bi_block_out here = f2bi_block_at(*o, i, 0);
            float *own = sums[i / GROUP];
            const int64_t c_row = o->row * (int64_t)sizeof(float);
            ends e = { own, own, sums_row, sums_row };
            if (pass == 0) e.from = NULL;
            if (pass == 0 && in_place && o->beta != 0) e.from = here.from, e.from_bytes = c_row;
            if (pass == passes - 1 && in_place) e.to = here.c, e.to_bytes = c_row;
            next = part(w, p, steps, i, panel, e);
            if (pass == passes - 1 && !in_place) write_sums(&here, own, w->alpha, group, n);
        }
        p = next;
    }
}

void f2bi_gemm_amx_block(int64_t m, int64_t n, const f2bi_run *runs, int n_runs,
                         const f2bi_block_out *o)
{
    elem rest[MAX_TERMS][BAND][K] __attribute__((aligned(64)));
    for (int64_t m0 = 0, rows; m0 < m; m0 += rows) {
        const int64_t left = m - m0;
        rows = left >= BAND ? BAND : left >= GROUP ? left / GROUP * GROUP : left;
        work w = { .alpha = 1 };
        lay_out(&w, runs, n_runs, m0, rows, rest);
        set_rows(rows < GROUP ? rows : GROUP);
        for (int64_t j = 0; j < n; j += NR) {
            const f2bi_block_out here = f2bi_block_at(*o, m0, j);
            panel_of_band(&w, rows, n - j < NR ? n - j : NR, j / NR, &here);
        }
    }
}

#else

void f2bi_gemm_amx_block(int64_t m, int64_t n, const f2bi_run *runs, int n_runs,
                         const f2bi_block_out *o)
{
    (void)m, (void)n, (void)runs, (void)n_runs, (void)o;
    F2B_CHECK(!"AMX on a processor of another kind");
}

void f2bi_gemm_amx_release(void) {}
#endif
