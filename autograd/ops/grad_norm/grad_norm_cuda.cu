/* CUDA kernels of the gradient norm: a block a chunk, sums in f64; then one block for all of them. */
#include <math.h>

#include "autograd/device/cuda/kernel.cuh"

#if defined(F2B_KERNEL_F32)

#include "autograd/ops/grad_norm/grad_norm_internal.h"

/* The threads' shares in a fixed tree; the result in part[0] of every thread. */
F2BI_ON_DEVICE void add_parts(double part[F2BI_BLOCK])
{
    for (unsigned half = F2BI_BLOCK / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
    }
}

static __global__ void squares(double *sums, const real *x, int64_t n)
{
    __shared__ double part[F2BI_BLOCK];
    const int64_t from = (int64_t)blockIdx.x * F2BI_GRAD_NORM_CHUNK;
    const int64_t to = from + F2BI_GRAD_NORM_CHUNK < n ? from + F2BI_GRAD_NORM_CHUNK : n;
    double sum = 0;
    for (int64_t i = from + threadIdx.x; i < to; i += F2BI_BLOCK) sum += (double)x[i] * (double)x[i];
    part[threadIdx.x] = sum;
    add_parts(part);
    if (threadIdx.x == 0) sums[blockIdx.x] = part[0];
}

/* Of one block. x - x is 0 where x is finite, and NaN elsewhere. */
static __global__ void finish(double *norm, const double *sums, int64_t chunks, const double *watched,
                              int64_t n_watched, f2bi_fault fault)
{
    __shared__ double part[F2BI_BLOCK];
    double sum = 0;
    for (int64_t i = threadIdx.x; i < chunks; i += F2BI_BLOCK) sum += sums[i];
    for (int64_t i = threadIdx.x; i < n_watched; i += F2BI_BLOCK) sum += watched[i] - watched[i];
    part[threadIdx.x] = sum;
    add_parts(part);
    if (threadIdx.x == 0) *norm = f2bi_any_fault(fault) ? (double)NAN : sqrt(part[0]);
}

f2b_status f2bi_grad_norm_finish_cuda(int index, const double *sums, int64_t chunks,
                                      const double *watched, int64_t n_watched, double *norm)
{
    F2B_LAUNCH(finish, 1, F2BI_BLOCK, 0, f2bi_cuda_stream(index), norm, sums, chunks, watched, n_watched,
               f2bi_cuda_fault(index, "grad_norm"));
    return f2bi_cuda_launched(index, "grad_norm");
}

f2b_status f2bi_grad_norm_cuda_f32(int index, const void *x, int64_t n, double *sums)
{
    if (n == 0) return F2B_OK;
    F2B_LAUNCH(squares, (unsigned)((n + F2BI_GRAD_NORM_CHUNK - 1) / F2BI_GRAD_NORM_CHUNK),
               F2BI_BLOCK, 0, f2bi_cuda_stream(index), sums, (const real *)x, n);
    return f2bi_cuda_launched(index, "grad_norm");
}

#endif
