/* CUDA kernel of rows_store: a block an entry; bytes are copied, so one compilation serves all types. */
#include "autograd/device/cuda/kernel.cuh"

#if defined(F2B_KERNEL_F32)

#include "autograd/ops/rows_store/rows_store_internal.h"

/* Of equal entries the last wins: the others find it and write nothing. units of 2 bytes a row. */
static __global__ void store_rows(uint16_t *dst, const int *index, const uint16_t *x, int64_t n,
                                  int64_t R, int64_t units, f2bi_fault fault)
{
    __shared__ int overtaken;
    const int64_t i = blockIdx.x, row = index[i];
    if (threadIdx.x == 0) overtaken = 0;
    __syncthreads();
    for (int64_t j = i + 1 + threadIdx.x; j < n; j += blockDim.x)
        if (index[j] == row) overtaken = 1;
    __syncthreads();
    if (row < 0 || row >= R) {
        if (threadIdx.x == 0) f2bi_report(fault, i);
        return;
    }
    if (overtaken) return;
    for (int64_t u = threadIdx.x; u < units; u += blockDim.x)
        dst[row * units + u] = x[i * units + u];
}

f2b_status f2bi_rows_store_cuda(f2b_tensor *dst, const f2b_tensor *index, const f2b_tensor *x)
{
    const int64_t n = f2b_dim(x, 0), units = f2b_dim(x, 1) * (int64_t)f2b_dtype_size(x->dtype) / 2;
    const int device = dst->device.index;
    if (n * units == 0) return F2B_OK;
    F2B_LAUNCH(store_rows, (unsigned)n, F2BI_BLOCK, 0, f2bi_cuda_stream(device),
               (uint16_t *)dst->data, (const int *)index->data, (const uint16_t *)x->data, n,
               f2b_dim(dst, 0), units,
               f2bi_cuda_fault(device, "rows_store"));
    return f2bi_cuda_launched(device, "rows_store");
}

#endif
