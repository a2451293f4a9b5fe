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
enum {
#if defined(F2B_KERNEL_BF16)
    STEP = 2,
    KC = 512,                       /* fixed: it is part of what the result is */
#else
    STEP = 1,
    KC = 256,
#endif
    VL = F2BI_VECTOR_BYTES / sizeof(real),
    NR = 2 * VL,                    /* columns of a panel */
};

static inline int64_t f2bi_whole_steps(int64_t k) { return (k + STEP - 1) / STEP * STEP; }

/* ---- Packing (gemm_pack_cpu.c) ---- */

/* One panel of B: columns [first, first + n), n <= NR: dst[(i/STEP*NR + j)*STEP + i%STEP] is B(i,
 * first + j), zeros beyond n and in an unfinished step. */
void KERNEL(f2bi_gemm_pack_panel)(elem *dst, const f2b_gemm_term *t, int64_t first, int64_t n);

/* Rows [m0, m0 + m) of A, k elements of each from l0 on: dst[i*KC + j], zeros in an unfinished step. */
void KERNEL(f2bi_gemm_pack_a)(elem *dst, const f2b_gemm_term *t, int64_t m0, int64_t m, int64_t l0,
                              int64_t k);

/* ---- One block of C (gemm_block_cpu.c) ---- */

typedef struct f2bi_block_out {
    real *c;
    int64_t row, col;               /* strides */
    real alpha, beta;               /* beta 0: written without being read */
    const real *bias;               /* of the block's first column, or NULL */
} f2bi_block_out;

/* C block [m,n] = beta * C + bias + alpha * A block [m,k] * panels of B; ldb is the distance from step
 * to step, b_panel that between panels, in elements; k <= KC. An unfinished step of A holds zeros. */
void KERNEL(f2bi_gemm_block_out)(int64_t m, int64_t n, int64_t k, const elem *a, int64_t lda,
                                 const elem *b, int64_t ldb, int64_t b_panel, f2bi_block_out o);

#endif
