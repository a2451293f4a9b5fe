/*
 * Matrix products on the CPU: C = beta*C + bias + sum over terms of alpha * A * B; beta may multiply another
 * matrix instead of C.
 *
 * Several terms share one pass over C (a frozen weight plus its LoRA, or the input gradient of
 * projections that read the same rows). Operands may be transposed and of any float type; they are
 * converted while being packed.
 *
 * Every element of C is a chain over the k of all terms, cut into passes by their lengths alone: of
 * fused multiply-adds in f32 and f64, of pairs or of groups of 32 in bf16 (products.h). Neither the
 * number of rows, nor a row's place, nor the number of threads changes a bit of it; OpenBLAS and oneDNN
 * do not promise that, which is why this is our own (docs/benchmarks.md has the speeds).
 */
#ifndef F2B_AUTOGRAD_DEVICE_CPU_GEMM_H
#define F2B_AUTOGRAD_DEVICE_CPU_GEMM_H

#include <stdbool.h>
#include <stdint.h>

#include "autograd/core/dtype.h"
#include "autograd/core/status.h"

/** Writes rows [first, first + rows) of an A to `to`, in the type of the product and `ld` elements apart, a zero
 *  behind an odd k in bf16. Called by many threads, for each row once or, where B is large, a few times; before
 *  the same rows of other terms are read, which it may write, too. */
typedef void f2b_gemm_make(const void *user, int64_t first, int64_t rows, void *to, int64_t ld);

/** One product A [M,k] * B [k,N]. Element (m,i) of A is a[m*a_row + i*a_col], (i,n) of B likewise. */
typedef struct f2b_gemm_term {
    const void *a;
    f2b_dtype a_type;           /* f32, f64, bf16, f16 */
    int64_t a_row, a_col;       /* strides in elements; one of the two is 1 */
    const void *b;
    f2b_dtype b_type;           /* also int8, nf4 (quant.h), whole: its columns are the stride */
    int64_t b_row, b_col;
    int64_t k;
    double alpha;               /* 0: the term is left out */
    const void *packed;         /* B whole, as `pack` below lays it out, or NULL: packed on the way */
    f2b_gemm_make *make;        /* A's rows are made where they are multiplied (`a` is not read), or NULL */
    const void *user;           /* of make */
} f2b_gemm_term;

/** The left side: element (m,n) is c[m*c_row + n*c_col]. */
typedef struct f2b_gemm_out {
    void *c;
    f2b_dtype c_type;           /* the type of arithmetic (f32 for bf16), or bf16 unless that is f64 */
    int64_t c_row, c_col;
    double beta;                /* 0: C is written without being read */
    const void *bias;           /* [N] added to every row, or NULL */
    f2b_dtype bias_type;
    const void *from;           /* what beta multiplies, of C's type and strides and apart from it; NULL: C */
} f2b_gemm_out;

/** C [., N] row after row, without a bias. */
static inline f2b_gemm_out f2b_gemm_rows(void *c, f2b_dtype c_type, int64_t N, double beta)
{
    return (f2b_gemm_out){ .c = c, .c_type = c_type, .c_row = N, .c_col = 1, .beta = beta };
}

/**
 * The product, on all threads. f32 and f64 compute in their type; bf16 rounds every operand to bf16
 * and sums in f32. Call it outside parallel regions.
 * errors  F2B_ERR_MEMORY when there is no room for packing.
 */
f2b_status f2bi_gemm_f32(int64_t M, int64_t N, const f2b_gemm_term *terms, int n_terms,
                         f2b_gemm_out out);
f2b_status f2bi_gemm_f64(int64_t M, int64_t N, const f2b_gemm_term *terms, int n_terms,
                         f2b_gemm_out out);
f2b_status f2bi_gemm_bf16(int64_t M, int64_t N, const f2b_gemm_term *terms, int n_terms,
                          f2b_gemm_out out);

/** A product by operands of its own type, for its work space. */
typedef struct f2b_gemm_shape {
    int64_t M, N, k;
    int64_t packed;             /* B's first rows of k that are packed before */
    int64_t made;               /* of k: elements of A's rows that are made; 0, or all before a LoRA's */
    bool turned;                /* a sum over rows: A and B are rows [k,M], [k,N]; else A's rows by a weight [N,k] */
    f2b_dtype c_type;
} f2b_gemm_shape;

int64_t f2bi_gemm_space_f32(const f2b_gemm_shape *shape);
int64_t f2bi_gemm_space_f64(const f2b_gemm_shape *shape);
int64_t f2bi_gemm_space_bf16(const f2b_gemm_shape *shape);

/** Bytes that the product takes from the allocator. */
static inline int64_t f2bi_gemm_space(f2b_dtype dtype, const f2b_gemm_shape *shape)
{
    return dtype == F2B_F64 ? f2bi_gemm_space_f64(shape)
         : dtype == F2B_BF16 ? f2bi_gemm_space_bf16(shape) : f2bi_gemm_space_f32(shape);
}

/** As above, picked by the compute type `dtype`. */
static inline f2b_status f2bi_gemm(f2b_dtype dtype, int64_t M, int64_t N,
                                   const f2b_gemm_term *terms, int n_terms, f2b_gemm_out out)
{
    return dtype == F2B_F64 ? f2bi_gemm_f64(M, N, terms, n_terms, out)
         : dtype == F2B_BF16 ? f2bi_gemm_bf16(M, N, terms, n_terms, out)
                             : f2bi_gemm_f32(M, N, terms, n_terms, out);
}

/*
 * The building blocks, for kernels that run small products inside their own parallel loop
 * (attention), one thread each, and for weights that are packed once (packed_weight.h).
 *
 * packed_elements  the room of B [k,N] when packed.
 * pack   takes columns [first, first + n) of a term's B; whole panels of them (packed_elements(1, n) = n) follow
 *        each other.
 * block  c[m*ldc+n] = beta*c + alpha * sum over i < k of a[m*lda+i] * B(i,n), where B was packed with
 *        packed_k >= k rows; c is in the type of arithmetic. In bf16 a row of `a` holds an even
 *        number of elements: where k is odd, a[m*lda+k] is 0. Packed rows end in zeros up to a multiple
 *        of 32 in bf16: k may go so far, over zeros of `a`.
 * group  rows whose sums are held in registers or tiles at once: 14, 12 or 6; 32 in tiles.
 * done   after a thread's last block: hands back what the processor holds for it (AMX tiles).
 * turn   dst[c*ld + r] = src[r*src_ld + c] for r < rows, c < cols; in bf16 dst[c*ld + rows] = 0 where
 *        rows is odd.
 */
int64_t f2bi_gemm_packed_elements_f32(int64_t k, int64_t N);
int64_t f2bi_gemm_packed_elements_f64(int64_t k, int64_t N);
int64_t f2bi_gemm_packed_elements_bf16(int64_t k, int64_t N);
void f2bi_gemm_pack_f32(float *packed, const f2b_gemm_term *term, int64_t first_col, int64_t n);
void f2bi_gemm_pack_f64(double *packed, const f2b_gemm_term *term, int64_t first_col, int64_t n);
void f2bi_gemm_pack_bf16(f2b_bf16 *packed, const f2b_gemm_term *term, int64_t first_col, int64_t n);
void f2bi_gemm_block_f32(int64_t M, int64_t N, int64_t k, float alpha, const float *a,
                         int64_t lda, const float *packed, int64_t packed_k, float beta, float *c,
                         int64_t ldc);
void f2bi_gemm_block_f64(int64_t M, int64_t N, int64_t k, double alpha, const double *a,
                         int64_t lda, const double *packed, int64_t packed_k, double beta, double *c,
                         int64_t ldc);
void f2bi_gemm_block_bf16(int64_t M, int64_t N, int64_t k, float alpha, const f2b_bf16 *a,
                          int64_t lda, const f2b_bf16 *packed, int64_t packed_k, float beta, float *c,
                          int64_t ldc);
int64_t f2bi_gemm_group_f32(void);
int64_t f2bi_gemm_group_f64(void);
int64_t f2bi_gemm_group_bf16(void);
void f2bi_gemm_done_f32(void);
void f2bi_gemm_done_f64(void);
void f2bi_gemm_done_bf16(void);
void f2bi_gemm_turn_f32(float *dst, int64_t ld, const float *src, int64_t src_ld, int64_t rows,
                        int64_t cols);
void f2bi_gemm_turn_f64(double *dst, int64_t ld, const double *src, int64_t src_ld, int64_t rows,
                        int64_t cols);
void f2bi_gemm_turn_bf16(f2b_bf16 *dst, int64_t ld, const f2b_bf16 *src, int64_t src_ld, int64_t rows,
                         int64_t cols);

#endif
