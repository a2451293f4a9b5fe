/*
 * The softmax of attention, forward and backward, on blocks of scores. Compiled as kernels are (kernel.h).
 * By AVX-512 if f32 is compiled for it, in bf16 if the products go by it (products.h); else plain loops.
 */
#ifndef F2B_AUTOGRAD_OPS_ATTENTION_ROWS_H
#define F2B_AUTOGRAD_OPS_ATTENTION_ROWS_H

#include "autograd/device/cpu/kernel.h"

/* Rows of scores are whole vectors, and whole units of packed operands (gemm.h). */
enum { F2BI_ATT_PAD = 64 / sizeof(T) };

/* Where T is real, P takes the place of S, and dS that of dP: p = s and ds = dp below. */
#if defined(F2B_KERNEL_BF16)
enum { F2BI_ATT_IN_PLACE = 0 };
#else
enum { F2BI_ATT_IN_PLACE = 1 };
#endif

/* One row of scores s, of which the first n count: p[j] = exp(scale*s[j] - largest) for j < n, 0 up to
 * `wide` (n <= wide, a multiple of F2BI_ATT_PAD; s is that long and may be changed). Returns the log of
 * the sum of exp(scale*s), and one over the sum of p. */
real KERNEL(f2bi_softmax_row)(real *s, T *p, int64_t n, int64_t wide, real scale, real *inverse);

/* Scores and dP of a block, transposed: [keys, wide], a column is a query row. */
typedef struct f2bi_softmax_block {
    int64_t first, keys, wide;  /* first key; wide: a multiple of F2BI_ATT_PAD */
    real scale;
    real *s, *dp;               /* changed */
    const real *lse, *delta;    /* [wide]: log sums; rowsum(dO * O) */
    const int32_t *limit;       /* [wide]: keys that the query row sees, 0 behind the last */
    T *p, *ds;                  /* [keys, wide]: P and P * (dP - delta), 0 where the key is not seen */
} f2bi_softmax_block;

void KERNEL(f2bi_softmax_backward)(const f2bi_softmax_block *b);

/* y[i*ld + c] = factor[i*step] * x[i*n + c] for i < rows and c < n, or added to y; step 0: one for all. */
void KERNEL(f2bi_scaled_rows)(T *y, int64_t ld, const real *x, int64_t rows, int64_t n, const real *factor,
                              int step, bool add);

#endif
