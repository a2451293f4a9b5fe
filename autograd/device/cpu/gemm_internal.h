/*
 * What the files of the GEMM share. Each is compiled three times (kernel.h). A product of bf16
 * numbers takes them two at a time along k: a step is a pair of elements, and packed operands hold
 * pairs; otherwise a step is one element.
 */
#ifndef F2B_AUTOGRAD_DEVICE_CPU_GEMM_INTERNAL_H
#define F2B_AUTOGRAD_DEVICE_CPU_GEMM_INTERNAL_H

#include "autograd/device/cpu/gemm.h"
#include "autograd/device/cpu/kernel.h"

/* elem is what operands are packed as, real what their products are summed in. */
typedef T elem;
#define F2B_ELEM_DTYPE F2B_KERNEL_DTYPE

#if defined(F2B_KERNEL_BF16) || defined(__AVX512F__)
#define F2BI_VECTOR_BYTES 64
#else
#define F2BI_VECTOR_BYTES 32
#endif
#if F2BI_VECTOR_BYTES == 64
enum { MR = 14 };                   /* 28 accumulators + 2 of B + 2 spare of 32 registers */
#else
enum { MR = 6 };                    /* 12 + 2 + 2 of 16 */
#endif
#if defined(F2B_KERNEL_BF16)
enum {
#if defined(__AVX512F__)
    WIDENED_BYTES = 64, MR_WIDENED = 12,    /* of a vector that pairs are widened to; 24 accumulators + 2 + 1 + a mask */
#else
    WIDENED_BYTES = 32, MR_WIDENED = 6,
#endif
};
#endif
enum {
#if defined(F2B_KERNEL_BF16)
    STEP = 2, UNIT = 32,            /* a tile's row is 32 elements (gemm_amx.c) */
#else
    STEP = 1, UNIT = 1,
#endif
    VL = F2BI_VECTOR_BYTES / sizeof(real),
    NR = 2 * VL,                    /* columns of a panel */
    MAX_TERMS = 4,
};

/* Packed operands are whole units along k, the last one completed with zeros. */
static inline int64_t f2bi_whole_units(int64_t k) { return (k + UNIT - 1) / UNIT * UNIT; }

/* ---- Packing (gemm_pack_cpu.c) ---- */

/* Panels of B: columns [first, first + n), NR a panel, and rows [l0, l0 + k), l0 a whole step:
 * dst[j/NR*panel + (i/STEP*NR + j%NR)*STEP + i%STEP] is B(l0 + i, first + j), zeros beyond n and beyond k. */
void KERNEL(f2bi_gemm_pack_panels)(elem *dst, int64_t panel, const f2b_gemm_term *t, int64_t first,
                                   int64_t n, int64_t l0, int64_t k);

/* Rows [m0, m0 + m) of A, k elements of each from l0 on: dst[i*ld + j], zeros in an unfinished step. */
void KERNEL(f2bi_gemm_pack_a)(elem *dst, int64_t ld, const f2b_gemm_term *t, int64_t m0, int64_t m,
                              int64_t l0, int64_t k);

/* ---- One block of C (gemm_block_cpu.c, gemm_widened_cpu.c, gemm_amx.c) ---- */

/* Forces an address into a register of its own, so that 14 row streams need five registers. */
#if defined(__x86_64__)
#define IN_REGISTER(p) __asm__ volatile("" : "+r"(p))
#else
#define IN_REGISTER(p) (void)(p)
#endif

/* A stretch along k: rows of A by panels of B. ldb is the distance from step to step, b_panel that
 * between panels, in elements. An unfinished step of A holds zeros. */
typedef struct f2bi_run {
    const elem *a, *b;
    int64_t lda, ldb, b_panel, k;
    real alpha;                     /* not 0 */
    bool far;                       /* B is not packed: it is read where it lies; of all runs of a block or none */
} f2bi_run;

typedef struct f2bi_block_out {
    void *c;
    const void *from;               /* what beta multiplies: c itself, or laid out like it and apart from it */
    bool rounded;                   /* c is bf16, else real */
    bool early;                     /* c lies in memory rather than in a cache: lines are asked for early */
    int64_t row, col;               /* strides */
    real beta;                      /* 0: `from` is not read */
    const real *bias;               /* of the block's first column, or NULL */
} f2bi_block_out;

/* The part of a block that begins at row i and column j. */
static inline f2bi_block_out f2bi_block_at(f2bi_block_out o, int64_t i, int64_t j)
{
    const int64_t at = (i * o.row + j * o.col) * (int64_t)(o.rounded ? sizeof(f2b_bf16) : sizeof(real));
    o.c = (char *)o.c + at, o.from = (const char *)o.from + at;
    if (o.bias != NULL) o.bias += j;
    return o;
}

/* Asks for what rows [i, i + rows) and columns [j, j + n) of a block are written to, and added to, before they are. */
static inline void f2bi_gemm_ask_for(const f2bi_block_out *o, int64_t i, int64_t j, int64_t rows, int64_t n)
{
    const int64_t size = o->rounded ? (int64_t)sizeof(f2b_bf16) : (int64_t)sizeof(real);
    const f2bi_block_out at = f2bi_block_at(*o, i, j);
    const bool reads = o->beta != 0 && o->from != o->c;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t b = 0; b < n * size; b += 64) {
            __builtin_prefetch((const char *)at.c + r * o->row * size + b, 1, 2);
            if (reads) __builtin_prefetch((const char *)at.from + r * o->row * size + b, 0, 2);
        }
}

/* C block [m,n] = beta * from + bias + the sum of the runs, which are one chain in registers: after a run
 * the sum so far is multiplied by its alpha over the next one's. */
void KERNEL(f2bi_gemm_block_out)(int64_t m, int64_t n, const f2bi_run *runs, int n_runs,
                                 f2bi_block_out o);

/* C block [m,n] = beta * from + bias + values [m,n] (rows ld apart). */
void KERNEL(f2bi_gemm_write)(const f2bi_block_out *o, const real *values, int64_t ld, int64_t m,
                             int64_t n);

#if defined(F2B_KERNEL_BF16)
/* block_out by AMX, where that is the family in use. The thread's tiles stay set up until `release`. */
void f2bi_gemm_amx_block(int64_t m, int64_t n, const f2bi_run *runs, int n_runs,
                         const f2bi_block_out *o);
void f2bi_gemm_amx_release(void);

/* block_out by f32 multiply-adds, on processors without products of bf16. */
void f2bi_gemm_widened_block(int64_t m, int64_t n, const f2bi_run *runs, int n_runs,
                             const f2bi_block_out *o);

/* C [rows, n] = beta * from + bias + alpha * sums [rows, NR], rounded by AVX512_BF16; rows of C are
 * contiguous, n <= NR, sums begin on a cache line. */
void f2bi_gemm_write_rounded(const f2bi_block_out *o, const float *sums, float alpha, int64_t rows,
                             int64_t n);
#endif

#endif
