/*
 * Matrix products on the CPU: C = beta*C + bias + sum over terms of alpha * A * B.
 *
 * Several terms share one pass over C (a frozen weight plus its LoRA, or the input gradient of
 * projections that read the same rows). Operands may be transposed and of any float type; they are
 * converted while being packed.
 *
 * Every element of C is one chain of fused multiply-adds over k, in blocks of fixed length. Neither
 * the number of rows, nor a row's place, nor the number of threads changes a bit of it; OpenBLAS
 * promises none of these, which is why this is our own (docs/benchmarks.md has the speeds).
 */
#ifndef F2B_AUTOGRAD_DEVICE_CPU_GEMM_H
#define F2B_AUTOGRAD_DEVICE_CPU_GEMM_H

#include <stdint.h>

#include "autograd/core/dtype.h"
#include "autograd/core/status.h"

/** One product A [M,k] * B [k,N]. Element (m,i) of A is a[m*a_row + i*a_col], (i,n) of B likewise. */
typedef struct f2b_gemm_term {
    const void *a;
    f2b_dtype a_type;           /* f32, f64, bf16, f16 */
    int64_t a_row, a_col;       /* strides in elements; one of the two is 1 */
    const void *b;
    f2b_dtype b_type;
    int64_t b_row, b_col;
    int64_t k;
    double alpha;
} f2b_gemm_term;

/** The left side: element (m,n) is c[m*c_row + n*c_col]. */
typedef struct f2b_gemm_out {
    void *c;
    f2b_dtype c_type;           /* the compute type, or bf16 in a f32 computation */
    int64_t c_row, c_col;
    double beta;                /* 0: C is written without being read */
    const void *bias;           /* [N] added to every row, or NULL */
    f2b_dtype bias_type;
} f2b_gemm_out;

/**
 * The product, on all threads; computes in f32 or f64. Call it outside parallel regions.
 * errors  F2B_ERR_MEMORY when there is no room for packing.
 */
f2b_status f2bi_gemm_f32(int64_t M, int64_t N, const f2b_gemm_term *terms, int n_terms,
                         f2b_gemm_out out);
f2b_status f2bi_gemm_f64(int64_t M, int64_t N, const f2b_gemm_term *terms, int n_terms,
                         f2b_gemm_out out);

/** As above, picked by the compute type of `dtype` (bf16 computes in f32). */
static inline f2b_status f2bi_gemm(f2b_dtype dtype, int64_t M, int64_t N,
                                   const f2b_gemm_term *terms, int n_terms, f2b_gemm_out out)
{
    return dtype == F2B_F64 ? f2bi_gemm_f64(M, N, terms, n_terms, out)
                            : f2bi_gemm_f32(M, N, terms, n_terms, out);
}

/* The building blocks, for kernels that run small products inside their own parallel loop
 * (attention). A packed B is panels of F2B_GEMM_NR columns, each [k][NR], edges zero-filled. */
int64_t f2bi_gemm_packed_elements(f2b_dtype compute, int64_t k, int64_t N);
void f2bi_gemm_pack_f32(float *packed, const f2b_gemm_term *term, int64_t first_col, int64_t n);
void f2bi_gemm_pack_f64(double *packed, const f2b_gemm_term *term, int64_t first_col, int64_t n);
/** c[m*ldc+n] = beta*c + alpha * sum_i a[m*lda+i] * B(i,n), one thread, a and c in compute type. */
void f2bi_gemm_block_f32(int64_t M, int64_t N, int64_t k, float alpha, const float *a, int64_t lda,
                         const float *packed, float beta, float *c, int64_t ldc);
void f2bi_gemm_block_f64(int64_t M, int64_t N, int64_t k, double alpha, const double *a, int64_t lda,
                         const double *packed, double beta, double *c, int64_t ldc);

#endif
