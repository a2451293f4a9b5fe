/* Matrix products on a CUDA device, through cuBLASLt. */
#ifndef F2B_AUTOGRAD_DEVICE_CUDA_MATMUL_H
#define F2B_AUTOGRAD_DEVICE_CUDA_MATMUL_H

#include "autograd/core/dtype.h"
#include "autograd/core/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** C [M,N] = alpha * A [M,K] * B [K,N] + beta * C + bias, all row-major. */
typedef struct f2bi_matmul {
    int64_t M, N, K;
    f2b_dtype type;             /* of A and B: f32, bf16 or f16 */
    const void *a;
    int64_t lda;                /* elements from a row to the next */
    bool a_transposed;          /* A lies as [K,M] */
    const void *b;
    int64_t ldb;
    bool b_transposed;          /* B lies as [N,K], as weights do */
    void *c;
    int64_t ldc;
    f2b_dtype c_type;           /* f32, or `type` */
    float alpha, beta;          /* beta 0: C is written without being read */
    const void *bias;           /* [N] of c_type, added to every row; or NULL */
} f2bi_matmul;

/**
 * The product, on the device's stream; sums are f32 (f32 operands are not rounded to TF32). The
 * same call gives the same bits: algorithms that add in order of arrival are ruled out. Which one
 * serves a shape is asked once and remembered.
 *
 * errors  F2B_ERR_DEVICE if cuBLASLt is not installed or refuses, naming the shape; F2B_ERR_MEMORY.
 */
f2b_status f2bi_cuda_matmul(int index, const f2bi_matmul *m) F2B_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
