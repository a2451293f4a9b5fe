/* CUDA kernel of the gradient norm: a block a chunk, sums in f64. */
#include "autograd/device/cuda/kernel.cuh"

#if defined(F2B_KERNEL_F32)

#include "autograd/ops/grad_norm/grad_norm_internal.h"

static __global__ void squares(double *sums, const real *x, int64_t n)
{
    __shared__ double part[F2BI_BLOCK];
    const int64_t from = (int64_t)blockIdx.x * F2BI_GRAD_NORM_CHUNK;
    const int64_t to = from + F2BI_GRAD_NORM_CHUNK < n ? from + F2BI_GRAD_NORM_CHUNK : n;
    double sum = 0;
    for (int64_t i = from + threadIdx.x; i < to; i += F2BI_BLOCK) sum += (double)x[i] * (double)x[i];
    part[threadIdx.x] = sum;
    for (unsigned half = F2BI_BLOCK / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
    }
    if (threadIdx.x == 0) sums[blockIdx.x] = part[0];
}

f2b_status f2bi_grad_norm_cuda_f32(int index, const void *x, int64_t n, double *sums)
{
    if (n == 0) return F2B_OK;
    F2B_LAUNCH(squares, (unsigned)((n + F2BI_GRAD_NORM_CHUNK - 1) / F2BI_GRAD_NORM_CHUNK),
               F2BI_BLOCK, 0, f2bi_cuda_stream(index), sums, (const real *)x, n);
    return f2bi_cuda_launched(index, "grad_norm");
}

#endif
