/*
 * What cuBLASLt needs to know of a product beside the operands' places: descriptors and an algorithm,
 * made when a shape first comes and remembered, so that a product costs the host a look-up and the
 * launch. A step repeats its shapes once a layer.
 */
#ifndef F2B_AUTOGRAD_DEVICE_CUDA_MATMUL_PLAN_H
#define F2B_AUTOGRAD_DEVICE_CUDA_MATMUL_PLAN_H

#include "autograd/device/cuda/cublaslt.h"
#include "autograd/device/cuda/matmul.h"

/** All that decides which algorithm serves. No padding: hashed and compared as words. */
typedef struct f2bi_shape {
    int64_t M, N, K, lda, ldb, ldc;
    uint32_t type, c_type, a_transposed, b_transposed, adds, has_bias;
    uint32_t outer, fast;                               /* fp8: scales by cuBLASLt; see matmul.h */
    uint32_t align_a, align_b, align_c, align_bias;
} f2bi_shape;

typedef struct f2bi_plan {
    f2bi_shape of;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c;                     /* of our A, B and C */
    cublasLtMatmulAlgo_t algo;
    size_t workspace;
    bool there, refused;                /* refused: an `outer` that cuBLASLt does not take */
} f2bi_plan;

/** A device's plans, and cuBLASLt's handle there. */
typedef struct f2bi_plans f2bi_plans;
f2b_status f2bi_plans_open(int index, const f2bi_matmul *m, f2bi_plans **plans) F2B_MUST_USE;
cublasLtHandle_t f2bi_plans_handle(const f2bi_plans *plans);
/** The functions of cuBLASLt, after the first opening. */
extern f2bi_cublaslt f2bi_lt;

/**
 * The plan for m, its descriptor pointing to m's bias and scales; valid until the next call. outer: the
 * scales of fp8 are to be cuBLASLt's work; the plan may then be a refused one. The caller holds a lock.
 */
f2b_status f2bi_plan_of(f2bi_plans *plans, const f2bi_matmul *m, bool outer, f2bi_plan **plan)
    F2B_MUST_USE;

/** F2B_ERR_DEVICE: the call `what` for product m failed. */
f2b_status f2bi_matmul_refused(const f2bi_matmul *m, const char *what, cublasStatus_t status);

#endif
