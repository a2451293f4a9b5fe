/* CUDA kernel of random_fill: a thread an element, one compilation for all storage types. */
#include "autograd/device/cuda/kernel.cuh"

#if defined(F2B_KERNEL_F32)

#include "autograd/ops/random_fill/random_fill_internal.h"

static __global__ void fill(void *x, f2b_dtype dtype, int64_t n, f2b_init_kind kind,
                            double value, const f2b_rng stream)
{
    const int64_t i = (int64_t)blockIdx.x * F2BI_BLOCK + threadIdx.x;
    if (i >= n) return;
    f2b_init init;
    init.kind = kind, init.value = value;
    const float v = f2bi_random_element(init, &stream, (uint64_t)i);
    if (dtype == F2B_F16) ((__half *)x)[i] = __float2half_rn(v);
    else f2bi_put(x, dtype, i, v);
}

f2b_status f2bi_random_fill_cuda(int index, void *x, f2b_dtype dtype, int64_t n, f2b_init init,
                                 const f2b_rng *stream)
{
    if (n == 0) return F2B_OK;
    F2B_LAUNCH(fill, (unsigned)((n + F2BI_BLOCK - 1) / F2BI_BLOCK), F2BI_BLOCK, 0,
               f2bi_cuda_stream(index), x, dtype, n, init.kind, init.value, *stream);
    return f2bi_cuda_launched(index, "random_fill");
}

#endif
