/* Scales of an fp8 product where cuBLASLt does not apply them (matmul.h). */
#include "autograd/device/cuda/kernel.cuh"
#include "autograd/device/cuda/matmul.h"

/* c[m,n] = alpha a_scales[m] b_scales[n] bare[m,n] + beta from[m,n] + bias[n]; bare or from may be c. A
 * thread has WIDE columns, the grid rows by parts of a row. */
static __global__ void scale_product(T *c, const T *from, int64_t ldc, const T *bare, int64_t ld, const float *a_scales,
                                     const float *b_scales, const T *bias, real alpha, real beta,
                                     int64_t N)
{
    const int64_t row = blockIdx.x;
    const int64_t first = ((int64_t)blockIdx.y * F2BI_BLOCK + threadIdx.x) * WIDE;
    if (first >= N) return;
    real v[WIDE], added[WIDE];
    const real scale = alpha * a_scales[row];
    f2bi_read(v, bare + row * ld, first, N);
    for (int i = 0; i < WIDE && first + i < N; i++) v[i] *= scale * b_scales[first + i];
    if (beta != 0) {
        f2bi_read(added, from + row * ldc, first, N);
        for (int i = 0; i < WIDE; i++) v[i] += beta * added[i];
    }
    if (bias != NULL) {
        f2bi_read(added, bias, first, N);
        for (int i = 0; i < WIDE; i++) v[i] += added[i];
    }
    f2bi_write(c + row * ldc, first, N, v);
}

f2b_status KERNEL(f2bi_scale_product)(int index, const f2bi_matmul *m, const void *bare, int64_t ld)
{
    const dim3 grid((unsigned)m->M, (unsigned)((m->N + WIDE * F2BI_BLOCK - 1) / (WIDE * F2BI_BLOCK)));
    F2B_LAUNCH(scale_product, grid, F2BI_BLOCK, 0, f2bi_cuda_stream(index), (T *)m->c,
               (const T *)f2bi_matmul_from(m), m->ldc, (const T *)bare, ld, m->a_scales, m->b_scales,
               (const T *)m->bias, m->alpha, m->beta, m->N);
    return f2bi_cuda_launched(index, "scale_product");
}
