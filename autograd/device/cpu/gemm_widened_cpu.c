/*
 * Blocks of C on processors without products of bf16: f32 fused multiply-adds. Rows of A are widened once for all
 * columns of a block, into the second cache; panels stay pairs of bf16 in memory and are widened in registers, one
 * shift or mask for as many products as a group has rows. Widening both there would take as many of them as products.
 *
 * A sum is a chain over k, the odd one of a pair before the even one.
 */
#include "autograd/device/cpu/gemm_internal.h"

#if defined(F2B_KERNEL_BF16)
enum {
    LANES = WIDENED_BYTES / sizeof(float),
    COLUMNS = 2 * LANES,            /* of a group: a panel or half of one */
    ROOM = 32 << 10,                /* floats of A at a time */
    SPREAD = 16,                    /* beside k from row to row of them: rows begin in sets of the cache of their own */
    MOST_K = (ROOM / MR_WIDENED - SPREAD) / STEP * STEP,
};

typedef float wide __attribute__((vector_size(WIDENED_BYTES), aligned(4), may_alias));
typedef uint32_t pairs __attribute__((vector_size(WIDENED_BYTES), aligned(2), may_alias));
typedef uint16_t halves __attribute__((vector_size(WIDENED_BYTES / 2), aligned(2), may_alias));

/* Runs or parts of them, their rows of A side by side: run r begins at[r] behind a row's begin. */
typedef struct stretch {
    f2bi_run runs[MAX_TERMS];
    int64_t at[MAX_TERMS];
    int n_runs;
    float *a;
    int64_t lda;
} stretch;

/* out[i*ldo + c] = beta * what lies `from` bytes behind it + the sum of the runs, for rows i from `first` on and
 * columns c from j on of the block; what B has at column `next` is asked for. */
typedef void micro_fn(const stretch *s, int64_t first, int64_t j, int64_t next, float *out, int64_t ldo, float beta,
                      intptr_t from);

static inline const elem *column(const f2bi_run *r, int64_t j) { return r->b + j / NR * r->b_panel + j % NR * STEP; }

/* mr rows times nv vectors, for a half of each pair. */
#define MULTIPLY(half, WIDENED)                                                                   \
    do {                                                                                          \
        const wide b0 = (wide)(WIDENED(w[0])), b1 = nv == 2 ? (wide)(WIDENED(w[1])) : b0;         \
        _Pragma("GCC unroll 4")                                                                   \
        for (int g = 0; g < 4; g++)                                                               \
            if (3 * g < mr) IN_REGISTER(p[g]);                                                    \
        _Pragma("GCC unroll 12")                                                                  \
        for (int i = 0; i < mr; i++) {                                                            \
            const wide x = p[i / 3][i % 3 * lda + half] - zero;                                   \
            c[i][0] += x * b0;                                                                    \
            if (nv == 2) c[i][1] += x * b1;                                                       \
        }                                                                                         \
    } while (0)
#define ODD(w) (w) & 0xFFFF0000u
#define EVEN(w) (w) << 16

static inline __attribute__((always_inline)) void micro(const int mr, const int nv, const stretch *s, int64_t first,
                                                        int64_t j, int64_t next, float *out, int64_t ldo, float beta,
                                                        intptr_t from)
{
    wide c[MR_WIDENED][2];
    const wide zero = { 0 };
    const int64_t lda = s->lda;
    float alpha = 1;
#pragma GCC unroll 12
    for (int i = 0; i < mr; i++) c[i][0] = c[i][1] = zero;
    for (int r = 0; r < s->n_runs; r++) {
        const f2bi_run *run = &s->runs[r];
        if (r > 0 && run->alpha != alpha) {
            const float factor = alpha / run->alpha;
#pragma GCC unroll 12
            for (int i = 0; i < mr; i++) c[i][0] *= factor, c[i][1] *= factor;
        }
        alpha = run->alpha;
        const elem *b = column(run, j);
        const int64_t ahead = column(run, next) - b;
        const float *a = s->a + s->at[r] + first * lda, *p[4];
#pragma GCC unroll 4
        for (int g = 0; g < 4; g++) p[g] = a + (3 * g < mr ? 3 * g * lda : 0);
        for (int64_t l = 0; l < run->k; l += STEP, b += NR * STEP) {
            const pairs *w = (const pairs *)b;
            for (int line = 0; line < nv * WIDENED_BYTES; line += 64) __builtin_prefetch((const char *)(b + ahead) + line);
            MULTIPLY(1, ODD);
            MULTIPLY(0, EVEN);
#pragma GCC unroll 4
            for (int g = 0; g < 4; g++) p[g] += STEP;
        }
    }
    if (alpha != 1)
#pragma GCC unroll 12
        for (int i = 0; i < mr; i++) c[i][0] *= alpha, c[i][1] *= alpha;
#pragma GCC unroll 12
    for (int i = 0; i < mr; i++, out += ldo)
        for (int v = 0; v < nv; v++) {
            wide sum = c[i][v];
            if (beta != 0) sum += beta * *(const wide *)((const char *)(out + v * LANES) + from);
            *(wide *)(out + v * LANES) = sum;
        }
}

/* One function for each number of rows and vectors. */
#define MICRO(mr, nv)                                                                             \
    static __attribute__((noinline)) void micro_##mr##_##nv(const stretch *s, int64_t first, int64_t j, int64_t next, \
                                                            float *out, int64_t ldo, float beta, intptr_t from) \
    { micro(mr, nv, s, first, j, next, out, ldo, beta, from); }
#define MICROS(mr) MICRO(mr, 1) MICRO(mr, 2)
#define NAMES(mr) { micro_##mr##_1, micro_##mr##_2 }
MICROS(1) MICROS(2) MICROS(3) MICROS(4) MICROS(5) MICROS(6)
#if defined(__AVX512F__)
MICROS(7) MICROS(8) MICROS(9) MICROS(10) MICROS(11) MICROS(12)
#endif
static micro_fn *const micros[MR_WIDENED][2] = {
    NAMES(1), NAMES(2), NAMES(3), NAMES(4), NAMES(5), NAMES(6),
#if defined(__AVX512F__)
    NAMES(7), NAMES(8), NAMES(9), NAMES(10), NAMES(11), NAMES(12),
#endif
};

/* C [rows, COLUMNS] = beta * from + bias + sums, rounded as f2b_f32_to_bf16 does; rows of C are contiguous. */
static void write_rounded(const f2bi_block_out *o, const float *sums, int64_t rows)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < COLUMNS; j += LANES) {
            const int64_t at = i * o->row + j;
            wide x = *(const wide *)(sums + i * COLUMNS + j);
            if (o->bias != NULL) x += *(const wide *)(o->bias + j);
            if (o->beta != 0) {
                const halves old = *(const halves *)((const elem *)o->from + at);
                x += o->beta * (wide)(__builtin_convertvector(old, pairs) << 16);
            }
            const pairs bits = (pairs)x, is_nan = (pairs)(x != x);
            const pairs nearest = (bits + 0x7FFFu + (bits >> 16 & 1u)) & ~is_nan, quiet = (bits | 0x400000u) & is_nan;
            *(halves *)((elem *)o->c + at) = __builtin_convertvector((nearest | quiet) >> 16, halves);
        }
}

/* m rows by n columns from j on, n <= COLUMNS; rows are spread evenly over groups. */
static void columns(const stretch *s, int64_t m, int64_t j, int64_t n, int64_t next, f2bi_block_out o)
{
    float sums[MR_WIDENED * COLUMNS] __attribute__((aligned(64)));
    const int64_t groups = (m + MR_WIDENED - 1) / MR_WIDENED;
    const bool in_place = !o.rounded && o.col == 1 && o.bias == NULL && n % LANES == 0;
    const intptr_t from = (intptr_t)o.from - (intptr_t)o.c;
    o = f2bi_block_at(o, 0, j);
    for (int64_t g = 0, i = 0; g < groups; g++) {
        const int64_t rows = (g + 1) * m / groups - i, asked = g == 0 ? next : j;
        if (o.early) f2bi_gemm_ask_for(&o, 0, 0, rows, n);
        if (in_place) {
            micros[rows - 1][n > LANES](s, i, j, asked, (float *)o.c, o.row, o.beta, from);
        } else {
            micros[rows - 1][n > LANES](s, i, j, asked, sums, COLUMNS, 0, 0);
            if (o.rounded && o.col == 1 && n == COLUMNS) write_rounded(&o, sums, rows);
            else f2bi_gemm_write_bf16(&o, sums, COLUMNS, rows, n);
        }
        o = f2bi_block_at(o, rows, 0), i += rows;
    }
}

/* The next MOST_K of the runs from l of run r on, in whole steps. */
static void cut(stretch *s, const f2bi_run *runs, int n_runs, int *r, int64_t *l)
{
    s->n_runs = 0, s->lda = SPREAD;
    for (; *r < n_runs && s->lda < MOST_K + SPREAD; s->n_runs++) {
        f2bi_run part = runs[*r];
        const int64_t left = (part.k - *l + STEP - 1) / STEP * STEP, room = MOST_K + SPREAD - s->lda;
        F2B_CHECK(part.ldb == NR * STEP);
        part.a += *l, part.b += *l * NR, part.k = left < room ? left : room;
        s->at[s->n_runs] = s->lda - SPREAD, s->runs[s->n_runs] = part;
        s->lda += part.k, *l += part.k;
        if (part.k == left) (*r)++, *l = 0;
    }
}

static void widen(const stretch *s, int64_t first, int64_t rows)
{
    for (int r = 0; r < s->n_runs; r++)
        for (int64_t i = 0; i < rows; i++) {
            const elem *from = s->runs[r].a + (first + i) * s->runs[r].lda;
            float *to = s->a + s->at[r] + i * s->lda;
            for (int64_t l = 0; l < s->runs[r].k; l++) to[l] = f2b_bf16_to_f32(from[l]);
        }
}

void f2bi_gemm_widened_block(int64_t m, int64_t n, const f2bi_run *runs, int n_runs, const f2bi_block_out *out)
{
    float room[ROOM] __attribute__((aligned(64)));
    stretch s = { .a = room };
    f2bi_block_out o = *out;
    int r = 0;
    int64_t l = 0;
    do {
        cut(&s, runs, n_runs, &r, &l);
        F2B_CHECK(r == n_runs || !o.rounded);       /* sums wait in C, which must not round them */
        const int64_t most = ROOM / s.lda / MR_WIDENED * MR_WIDENED;
        for (int64_t i = 0; i < m; i += most) {
            const int64_t rows = m - i < most ? m - i : most;
            widen(&s, i, rows);
            for (int64_t j = 0; j < n; j += COLUMNS)
                columns(&s, rows, j, n - j < COLUMNS ? n - j : COLUMNS, j + COLUMNS < n ? j + COLUMNS : j,
                        f2bi_block_at(o, i, 0));
        }
        o.from = o.c, o.beta = 1, o.bias = NULL;
    } while (r < n_runs);
}
#endif
