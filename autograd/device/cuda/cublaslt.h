/* The functions of cuBLASLt that matmul.c calls, found when first needed. */
#ifndef F2B_AUTOGRAD_DEVICE_CUDA_CUBLASLT_H
#define F2B_AUTOGRAD_DEVICE_CUDA_CUBLASLT_H

#include <cublasLt.h>

#include "autograd/core/status.h"

#define F2BI_CUBLASLT_FUNCTIONS(X)                                                                \
    X(cublasLtCreate)                                                                             \
    X(cublasLtMatmulDescCreate)                                                                   \
    X(cublasLtMatmulDescDestroy)                                                                  \
    X(cublasLtMatmulDescSetAttribute)                                                             \
    X(cublasLtMatrixLayoutCreate)                                                                 \
    X(cublasLtMatrixLayoutDestroy)                                                                \
    X(cublasLtMatmulPreferenceCreate)                                                             \
    X(cublasLtMatmulPreferenceDestroy)                                                            \
    X(cublasLtMatmulPreferenceSetAttribute)                                                       \
    X(cublasLtMatmulAlgoGetHeuristic)                                                             \
    X(cublasLtMatmul)

typedef struct f2bi_cublaslt {
#define F2BI_X(name) __typeof__(name) *name;
    F2BI_CUBLASLT_FUNCTIONS(F2BI_X)
#undef F2BI_X
} f2bi_cublaslt;

/** Fill the table. F2B_ERR_DEVICE names what is missing and which package brings it. */
f2b_status f2bi_cublaslt_load(f2bi_cublaslt *functions);

#endif
