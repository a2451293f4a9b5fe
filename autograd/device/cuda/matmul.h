/* Matrix products on a CUDA device, through cuBLASLt. */
#ifndef F2B_AUTOGRAD_DEVICE_CUDA_MATMUL_H
#define F2B_AUTOGRAD_DEVICE_CUDA_MATMUL_H

#include "autograd/core/dtype.h"
#include "autograd/core/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** C [M,N] = alpha * A [M,K] * B [K,N] + beta * from + bias, all row-major. */
typedef struct f2bi_matmul {
    int64_t M, N, K;
    f2b_dtype type;             /* of A and B: f32, bf16 or f16; fp8: codes of e4m3 */
    const void *a;
    int64_t lda;                /* elements from a row to the next */
    bool a_transposed;          /* A lies as [K,M] */
    const void *b;
    int64_t ldb;
    bool b_transposed;          /* B lies as [N,K], as weights do */
    void *c;
    int64_t ldc;
    f2b_dtype c_type;           /* f32, or `type`; bf16 with fp8 */
    float alpha, beta;          /* beta 0: `from` is not read */
    const void *from;           /* what beta multiplies, of C's type and ldc; NULL: C itself */
    const void *bias;           /* [N] of c_type, added to every row; or NULL */
    /* fp8 alone. A must lie as [M,K] and B as [N,K], K and N multiples of 16, places aligned to 16. */
    const float *a_scales;      /* [M]: row m of A is its codes times a_scales[m] */
    const float *b_scales;      /* [N]: likewise column n of B */
    bool fast;                  /* sums may stay in the tensor cores' own accumulators, of fewer bits */
} f2bi_matmul;

static inline const void *f2bi_matmul_from(const f2bi_matmul *m) { return m->from != NULL ? m->from : m->c; }

/**
 * The product, on the device's stream; sums are f32 (f32 operands are not rounded to TF32). The
 * same call gives the same bits: algorithms that add in order of arrival are ruled out. Which one
 * serves a shape is asked once and remembered.
 *
 * The scales of fp8 are applied by cuBLASLt where it can (sm_90 since CUDA 12.9, "outer vectors"), and
 * by a kernel after the product elsewhere; its bare sums are rounded to bf16 in between then.
 *
 * errors  F2B_ERR_DEVICE if cuBLASLt is not installed or refuses, naming the shape; F2B_ERR_MEMORY.
 */
f2b_status f2bi_cuda_matmul(int index, const f2bi_matmul *m) F2B_MUST_USE;

/** Whether cuBLASLt applies the scales of fp8 on this device, going by what it says of a small product. */
bool f2bi_cuda_scales_fp8(int index);

/* Between the files of this folder: C of an fp8 product from the codes' own [M,N], which may be C. */
f2b_status f2bi_scale_product_cuda_f32(int index, const f2bi_matmul *m, const void *bare, int64_t ld);
f2b_status f2bi_scale_product_cuda_bf16(int index, const f2bi_matmul *m, const void *bare, int64_t ld);

#ifdef __cplusplus
}
#endif
#endif
