#ifndef F2B_AUTOGRAD_OPS_ROWS_STORE_INTERNAL_H
#define F2B_AUTOGRAD_OPS_ROWS_STORE_INTERNAL_H

#include "autograd/core/tensor.h"

/** What f2b_rows_store does after its checks, on a CUDA device. */
#ifdef __cplusplus
extern "C" f2b_status f2bi_rows_store_cuda(f2b_tensor *dst, const f2b_tensor *index,
                                           const f2b_tensor *x);
#else
f2b_status f2bi_rows_store_cuda(f2b_tensor *dst, const f2b_tensor *index, const f2b_tensor *x)
    F2B_WEAK;
#endif

#endif
