/* dst += src: gradients that reach one tensor by two ways. */
#include "autograd/device/cuda/kernel.cuh"

static __global__ void add_into(T *dst, const T *src, int64_t n)
{
    const int64_t first = f2bi_first();
    if (first >= n) return;
    real v[WIDE];
    f2bi_read(v, src, first, n);
    f2bi_accumulate(dst, first, n, v, false);
}

f2b_status KERNEL(f2bi_add_into)(int index, void *dst, const void *src, int64_t n)
{
    if (n == 0) return F2B_OK;
    F2B_LAUNCH(add_into, f2bi_blocks(n), F2BI_BLOCK, 0, f2bi_cuda_stream(index), (T *)dst,
               (const T *)src, n);
    return f2bi_cuda_launched(index, "add_into");
}
