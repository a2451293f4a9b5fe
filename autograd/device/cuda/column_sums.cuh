/*
 * Sums over rows, for gradients of parameters: chunks of rows first, then the chunks in their order.
 * Where chunks end is given by the number of rows alone. A kernel made of F2BI_COLUMN_PARTIALS is
 * launched by f2bi_column_grid on a block of F2BI_BLOCK; f2bi_add_partials finishes.
 */
#ifndef F2B_AUTOGRAD_DEVICE_CUDA_COLUMN_SUMS_CUH
#define F2B_AUTOGRAD_DEVICE_CUDA_COLUMN_SUMS_CUH

#include "autograd/device/cuda/kernel.cuh"

/* Rows a chunk, and how many chunks there are. */
static inline int64_t f2bi_chunk_rows(int64_t R) { return R > 64 * 64 ? (R + 63) / 64 : 64; }
static inline int64_t f2bi_chunks(int64_t R) { return (R + f2bi_chunk_rows(R) - 1) / f2bi_chunk_rows(R); }

static inline dim3 f2bi_column_grid(int64_t R, int64_t D)
{
    return dim3((unsigned)((D + F2BI_BLOCK - 1) / F2BI_BLOCK), (unsigned)f2bi_chunks(R));
}

/* The body of a kernel with parameters partial, R, D and chunk_rows: partial [chunks, D] is the sum
 * of `term`, an expression in r and c, over the rows r of a chunk. */
#define F2BI_COLUMN_PARTIALS(term)                                                                \
    const int64_t c = (int64_t)blockIdx.x * F2BI_BLOCK + threadIdx.x;                             \
    const int64_t from = blockIdx.y * chunk_rows;                                                 \
    const int64_t to = from + chunk_rows < R ? from + chunk_rows : R;                             \
    if (c >= D) return;                                                                           \
    real sum = 0;                                                                                 \
    for (int64_t r = from; r < to; r++) sum += (term);                                            \
    partial[blockIdx.y * D + c] = sum

static __global__ void f2bi_sum_partials(void *grad, f2b_dtype type, const real *partial,
                                         int64_t chunks, int64_t D)
{
    const int64_t c = (int64_t)blockIdx.x * F2BI_BLOCK + threadIdx.x;
    if (c >= D) return;
    double sum = 0;
    for (int64_t i = 0; i < chunks; i++) sum += (double)partial[i * D + c];
    f2bi_put(grad, type, c, (real)((double)f2bi_get(grad, type, c) + sum));
}

/** grad[c] += sum of the partials of R rows. */
static inline void f2bi_add_partials(const f2b_node *n, void *grad, f2b_dtype type,
                                     const real *partial, int64_t R, int64_t D)
{
    F2B_LAUNCH(f2bi_sum_partials, (unsigned)((D + F2BI_BLOCK - 1) / F2BI_BLOCK), F2BI_BLOCK, 0,
               f2bi_stream(n), grad, type, partial, f2bi_chunks(R), D);
}

#endif
