/* One number as f64: what the host will read after a step. */
#include "autograd/device/cuda/kernel.cuh"

#if defined(F2B_KERNEL_F32)

static __global__ void widen(double *dst, const real *src) { *dst = (double)*src; }

f2b_status f2bi_cuda_widen_f32(int index, double *dst, const void *src)
{
    F2B_LAUNCH(widen, 1, 1, 0, f2bi_cuda_stream(index), dst, (const real *)src);
    return f2bi_cuda_launched(index, "widen");
}

#endif
