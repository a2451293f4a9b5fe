/*
 * Packing of the GEMM's operands into the order in which the kernels read them. Lines come from
 * gemm_operand.h; here they are only laid out: as they are, or turned over through squares of 16.
 */
#include <stdbool.h>
#include <string.h>

#include "autograd/core/status.h"
#include "autograd/device/cpu/gemm_internal.h"
#include "autograd/device/cpu/gemm_operand.h"

enum {
    SIDE = 16, RUN = 64,            /* a square, and how much of a line is taken at a time */
    WIDE = 4 * NR, AHEAD = 16,      /* columns packed at a time, and for which row memory is asked early */
};

/* What is moved as a whole: one element, or a pair along k. */
#if defined(F2B_KERNEL_F64)
typedef elem unit;

static inline void turn_square(unit *dst, int64_t ld, const unit *src, int64_t src_ld)
{
    for (int i = 0; i < SIDE; i++)
#pragma GCC unroll 16
        for (int j = 0; j < SIDE; j++) dst[i * ld + j] = src[j * src_ld + i];
}
#else
typedef uint32_t unit __attribute__((may_alias));
typedef uint32_t units __attribute__((vector_size(64), aligned(2), may_alias));

/* dst[i*ld + j] = src[j*src_ld + i], 16 x 16 words: four rounds, each swaps blocks of one size. */
static inline void turn_square(unit *dst, int64_t ld, const unit *src, int64_t src_ld)
{
    units r[SIDE], s[SIDE];
#define SWAP(to, from, step, lo, hi)                                                              \
    _Pragma("GCC unroll 16")                                                                      \
    for (int i = 0; i < SIDE; i++)                                                                \
        if ((i & (step)) == 0) {                                                                  \
            to[i] = __builtin_shuffle(from[i], from[i + (step)], (units)lo);                      \
            to[i + (step)] = __builtin_shuffle(from[i], from[i + (step)], (units)hi);             \
        }
#define L(...) { __VA_ARGS__ }
#pragma GCC unroll 16
    for (int i = 0; i < SIDE; i++)
        r[i] = *(const units *)((const char *)src + (size_t)(i * src_ld) * sizeof *src);
    SWAP(s, r, 8, L(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
         L(8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
    SWAP(r, s, 4, L(0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27),
         L(4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
    SWAP(s, r, 2, L(0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29),
         L(2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
    SWAP(r, s, 1, L(0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30),
         L(1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31))
#pragma GCC unroll 16
    for (int i = 0; i < SIDE; i++) *(units *)(dst + i * ld) = r[i];
#undef L
#undef SWAP
}
#endif

#if defined(F2B_KERNEL_BF16)
typedef elem halves __attribute__((vector_size(64), aligned(2), may_alias));

/* Pairs of one line along k; a zero completes the last. */
static inline void copy_steps(unit *dst, const elem *line, int64_t n)
{
    memcpy(dst, line, (size_t)n * sizeof *line);
    if (n % 2 != 0) ((elem *)dst)[n] = 0;
}

/* Two lines that are neighbours along k, element by element; a second line that is not there is 0. */
static inline void zip(unit *dst, const elem *x, const elem *y, int64_t n)
{
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        const halves a = *(const halves *)(x + i), zero = { 0 };
        const halves b = y != NULL ? *(const halves *)(y + i) : zero;
        *(halves *)((elem *)dst + 2 * i) = __builtin_shuffle(a, b, (halves){
            0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39,
            8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47 });
        *(halves *)((elem *)dst + 2 * i + 32) = __builtin_shuffle(a, b, (halves){
            16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55,
            24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63 });
    }
    for (; i < n; i++) dst[i] = (unit)x[i] | (unit)(y != NULL ? y[i] : 0) << 16;
}

#else
static inline void copy_steps(unit *dst, const elem *line, int64_t n)
{
    memcpy(dst, line, (size_t)n * sizeof *line);
}

static inline void zip(unit *dst, const elem *x, const elem *y, int64_t n)
{
    (void)y;
    if (n == NR) memcpy(dst, x, NR * sizeof *x);        /* a size that is known costs no call */
    else memcpy(dst, x, (size_t)n * sizeof *x);
}
#endif

/* dst[i*ld + j] = src[j*src_ld + i] for i < n_i <= RUN, j < n_j <= SIDE; src has SIDE x RUN. */
static void turn(unit *dst, int64_t ld, const unit *src, int64_t src_ld, int64_t n_i, int64_t n_j)
{
    int64_t i = 0;
    if (n_j == SIDE)
        for (; i + SIDE <= n_i; i += SIDE) turn_square(dst + i * ld, ld, src + i, src_ld);
    for (; i < n_i; i++)
        for (int64_t j = 0; j < n_j; j++) dst[i * ld + j] = src[j * src_ld + i];
}

/* Lines along k become columns: dst[s*NR + j] is step s of line first + j, n <= NR lines of k from l0. */
static void turn_lines(unit *dst, const f2bi_operand *o, int64_t first, int64_t n, int64_t l0, int64_t k)
{
    unit tile[SIDE * RUN];
    elem space[STEP * RUN];
    for (int64_t l = 0; l < k; l += STEP * RUN) {
        const int64_t run = k - l < STEP * RUN ? k - l : STEP * RUN;
        for (int64_t j0 = 0; j0 < n; j0 += SIDE) {
            const int64_t nj = n - j0 < SIDE ? n - j0 : SIDE;
            unit *to = dst + l / STEP * NR + j0;
            if (o->type == F2B_ELEM_DTYPE && o->stride % STEP == 0 && run % STEP == 0) {
                const elem *line = f2bi_operand_line(o, first + j0, l0 + l, run, space);
                for (int64_t j = 0; j < nj && l + 2 * STEP * RUN <= k; j++)     /* what comes next */
                    for (int64_t i = 0; i < STEP * RUN; i += 64 / (int)sizeof(elem))
                        __builtin_prefetch(line + j * o->stride + STEP * RUN + i);
                turn(to, NR, (const unit *)line, o->stride / STEP, run / STEP, nj);
                continue;
            }
            for (int64_t j = 0; j < nj; j++)
                copy_steps(tile + j * RUN, f2bi_operand_line(o, first + j0 + j, l0 + l, run, space),
                           run);
            turn(to, NR, tile, RUN, (run + STEP - 1) / STEP, nj);
        }
    }
}

/* Lines along n: row by row over up to WIDE columns, so that memory is read in more than single cache lines. */
static void zip_lines(elem *dst, int64_t panel, const f2bi_operand *o, int64_t first, int64_t n, int64_t l0,
                      int64_t k)
{
    elem space[STEP][WIDE];
    const int64_t early = o->type == F2B_ELEM_DTYPE ? AHEAD * o->stride : 0;
    for (int64_t i = 0; i < k; i += STEP) {
        const bool pair = STEP == 2 && i + 1 < k;
        const elem *x = f2bi_operand_line(o, l0 + i, first, n, space[0]);
        const elem *y = pair ? f2bi_operand_line(o, l0 + i + 1, first, n, space[STEP - 1]) : NULL;
        for (int64_t j = 0; j < n; j += NR) {
            if (early > 0 && i + AHEAD + 1 < k) {
                __builtin_prefetch(x + j + early);
                if (pair) __builtin_prefetch(y + j + early);
            }
            zip((unit *)(dst + j / NR * panel + i * NR), x + j, pair ? y + j : NULL, n - j < NR ? n - j : NR);
        }
    }
}

void KERNEL(f2bi_gemm_pack_panels)(elem *dst, int64_t panel, const f2b_gemm_term *t, int64_t first,
                                   int64_t n, int64_t l0, int64_t k)
{
    const f2bi_operand o = f2bi_operand_b(t);
    const int64_t steps = (k + STEP - 1) / STEP * STEP;
    for (int64_t j = 0; j < n; j += NR) {
        elem *to = dst + j / NR * panel;
        const int64_t nj = n - j < NR ? n - j : NR, first_zero = nj < NR ? 0 : steps;
        memset(to + first_zero * NR, 0, (size_t)((f2bi_whole_units(k) - first_zero) * NR) * sizeof *to);
        if (t->b_col != 1) turn_lines((unit *)to, &o, first + j, nj, l0, k);
    }
    for (int64_t j = 0; j < n && t->b_col == 1; j += WIDE)
        zip_lines(dst + j / NR * panel, panel, &o, first + j, n - j < WIDE ? n - j : WIDE, l0, k);
}

/* Lines across k become rows: dst[i*ld + j] is element `first + i` of line l0 + j, i < m, j < k. */
static void turn_rows(elem *dst, int64_t ld, const f2bi_operand *o, int64_t first, int64_t m,
                      int64_t l0, int64_t k)
{
    unit tile[SIDE * RUN];
    elem space[STEP][RUN];
    for (int64_t i = 0; i < m; i += RUN) {
        const int64_t run = m - i < RUN ? m - i : RUN;
        for (int64_t j0 = 0; j0 < k; j0 += STEP * SIDE) {
            int64_t nj = 0;
            if (STEP == 1 && o->type == F2B_ELEM_DTYPE) {
                turn((unit *)(dst + i * ld + j0), ld,
                     (const unit *)f2bi_operand_line(o, l0 + j0, first + i, run, space[0]), o->stride, run,
                     k - j0 < SIDE ? k - j0 : SIDE);
                continue;
            }
            for (; nj < SIDE && j0 + nj * STEP < k; nj++) {
                const int64_t j = j0 + nj * STEP, l = l0 + j;
                const elem *x = f2bi_operand_line(o, l, first + i, run, space[0]);
                const elem *y = STEP == 2 && j + 1 < k
                              ? f2bi_operand_line(o, l + 1, first + i, run, space[STEP - 1]) : NULL;
                zip(tile + nj * RUN, x, y, run);
            }
            turn((unit *)(dst + i * ld + j0), ld / STEP, tile, RUN, run, nj);
        }
    }
}

void KERNEL(f2bi_gemm_pack_a)(elem *dst, int64_t ld, const f2b_gemm_term *t, int64_t m0, int64_t m,
                              int64_t l0, int64_t k)
{
    const f2bi_operand o = f2bi_operand_a(t);
    if (t->a_col != 1) {
        turn_rows(dst, ld, &o, m0, m, l0, k);
        return;
    }
    for (int64_t i = 0; i < m; i++, dst += ld) {
        const elem *line = f2bi_operand_line(&o, m0 + i, l0, k, dst);
        if (line != dst) memcpy(dst, line, (size_t)k * sizeof *dst);
        for (int64_t j = k; j < f2bi_whole_units(k); j++) dst[j] = 0;
    }
}

void KERNEL(f2bi_gemm_turn)(elem *dst, int64_t ld, const elem *src, int64_t src_ld, int64_t rows,
                            int64_t cols)
{
    F2B_CHECK(ld % STEP == 0);
    const f2bi_operand o = { src, F2B_ELEM_DTYPE, src_ld };
    turn_rows(dst, ld, &o, 0, cols, 0, rows);
}

void KERNEL(f2bi_gemm_pack)(elem *packed, const f2b_gemm_term *term, int64_t first, int64_t n)
{
    KERNEL(f2bi_gemm_pack_panels)(packed, f2bi_whole_units(term->k) * NR, term, first, n, 0, term->k);
}

int64_t KERNEL(f2bi_gemm_packed_elements)(int64_t k, int64_t N)
{
    return (N + NR - 1) / NR * NR * f2bi_whole_units(k);
}
