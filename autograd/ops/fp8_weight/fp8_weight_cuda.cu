/*
 * CUDA kernels of fp8_weight: rows as rows of activations become fp8 (device/cuda/fp8.cuh), then the
 * columns' largest, the turned copy by tiles, and the columns' scales. One compilation for all types of the source.
 */
#include "autograd/device/cuda/fp8.cuh"

#if defined(F2B_KERNEL_F32)

#include "autograd/ops/fp8_weight/fp8_weight_internal.h"

enum { TILE = 32, TILE_ROWS = 8 };

/* Each column's largest, a thread a column. */
static __global__ void column_mosts(float *mosts, const void *x, f2b_dtype type, int64_t rows,
                                    int64_t cols)
{
    const int64_t c = (int64_t)blockIdx.x * F2BI_BLOCK + threadIdx.x;
    if (c >= cols) return;
    real most = 0;
    for (int64_t r = 0; r < rows; r++) most = fmaxf(most, f2bi_fp8_size(f2bi_get(x, type, r * cols + c)));
    mosts[c] = most;
}

/* codes [cols,rows] of x [rows,cols], a tile a block: read along rows, written along columns. */
static __global__ void turn(unsigned char *codes, const float *mosts, const void *x, f2b_dtype type,
                            int64_t rows, int64_t cols)
{
    __shared__ real tile[TILE][TILE + 1];
    const int64_t c0 = (int64_t)blockIdx.x * TILE, r0 = (int64_t)blockIdx.y * TILE;
    const int i = (int)threadIdx.x;
    for (int j = (int)threadIdx.y; j < TILE; j += TILE_ROWS)
        if (r0 + j < rows && c0 + i < cols) tile[j][i] = f2bi_get(x, type, (r0 + j) * cols + c0 + i);
    __syncthreads();
    for (int j = (int)threadIdx.y; j < TILE; j += TILE_ROWS)
        if (c0 + j < cols && r0 + i < rows) {
            const real v = tile[i][j] * f2bi_fp8_inverse(mosts[c0 + j]);
            codes[(c0 + j) * rows + r0 + i] =
                (unsigned char)__nv_cvt_float2_to_fp8x2(make_float2(v, 0), __NV_SATFINITE, __NV_E4M3);
        }
}

static __global__ void mosts_to_scales(float *x, int64_t n)
{
    const int64_t i = (int64_t)blockIdx.x * F2BI_BLOCK + threadIdx.x;
    if (i < n) x[i] = f2bi_fp8_scale(x[i]);
}

f2b_status f2bi_fp8_weight_cuda(int index, const f2b_quant *q, const void *src, f2b_dtype type, void *dst)
{
    char *base = (char *)dst;
    const cudaStream_t stream = f2bi_cuda_stream(index);
    const unsigned columns = (unsigned)((q->cols + F2BI_BLOCK - 1) / F2BI_BLOCK);
    const dim3 tiles((unsigned)((q->cols + TILE - 1) / TILE), (unsigned)((q->rows + TILE - 1) / TILE));
    float *turned_scales = (float *)(base + q->turned_scales);
    f2bi_fp8_launch(stream, (unsigned char *)base + q->codes, (float *)(base + q->scales), src, type,
                    q->rows, q->cols);
    F2B_LAUNCH(column_mosts, columns, F2BI_BLOCK, 0, stream, turned_scales, src, type, q->rows, q->cols);
    F2B_LAUNCH(turn, tiles, dim3(TILE, TILE_ROWS), 0, stream, (unsigned char *)base + q->turned_codes,
               turned_scales, src, type, q->rows, q->cols);
    F2B_LAUNCH(mosts_to_scales, columns, F2BI_BLOCK, 0, stream, turned_scales, q->cols);
    return f2bi_cuda_launched(index, "fp8_weight");
}

#endif
