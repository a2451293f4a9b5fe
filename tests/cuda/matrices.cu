/* See matrices.h. Every kernel is one warp. */
#include "autograd/device/cuda/tensor_core.cuh"
#include "tests/cuda/matrices.h"

enum { ROW = 16, ROWS = 32 };           /* bytes of a row of 8; rows of four matrices */

static __global__ void multiply(float *c, const unsigned *a, const unsigned *b)
{
    const int l = (int)threadIdx.x;
    f2bi_mma(c + 4 * l, a + 4 * l, b + 2 * l);
}

static __global__ void load(unsigned *r, unsigned *turned, const uint16_t *x, int missing)
{
    const int l = (int)threadIdx.x;
    const unsigned at = f2bi_shared_base() + (unsigned)l * ROW;
    f2bi_copy_async(at, x + 8 * l, l < ROWS - missing);
    f2bi_copy_wait();
    __syncthreads();
    f2bi_load_matrices(r + 4 * l, at);
    f2bi_load_matrices_turned(turned + 4 * l, at);
}

static __global__ void numbers(float *y, unsigned *pairs, float *words, const float *x)
{
    F2BI_DYNAMIC_SHARED(float, space);
    const int l = (int)threadIdx.x;
    f2bi_copy_word_async(f2bi_shared_base() + 4 * (unsigned)l, x + l, true);
    f2bi_copy_wait();
    __syncthreads();
    words[l] = space[l];
    y[l] = f2bi_exp2(x[l]);
    pairs[l] = f2bi_pair(x[l], 2 * x[l]);
}

static __global__ void wrong(int mistake, float *out, const float *x)
{
    F2BI_DYNAMIC_SHARED(float, space);
    const int l = (int)threadIdx.x;
    const unsigned base = f2bi_shared_base();
    unsigned r[4] = { 0 }, b[2] = { 0 };
    float c[4] = { 0 };
    f2bi_copy_word_async(base + 4 * (unsigned)l, x + l, true);
    if (mistake == MATRICES_READ_TOO_EARLY) out[l] = space[l];
    if (mistake != MATRICES_NEVER_WAITED) f2bi_copy_wait();
    __syncthreads();
    if (mistake == MATRICES_READ_TOO_EARLY) return;
    if (mistake == MATRICES_LANE_MISSING && l == 9) return;
    if (mistake == MATRICES_TWO_PLACES && l < 16) f2bi_mma(c, r, b);
    else if (mistake <= MATRICES_TWO_PLACES) f2bi_mma(c, r, b);
    if (mistake == MATRICES_BEYOND_SHARED) f2bi_load_matrices(r, base + 16 * (unsigned)l);
    if (mistake == MATRICES_ODD_ADDRESS) f2bi_load_matrices(r, base + 8);
    out[l] = space[l] + (float)r[0] + c[0];
}

int f2b_matrices_multiply(float *c, const uint32_t *a, const uint32_t *b)
{
    F2B_LAUNCH(multiply, 1, F2BI_WARP, 0, f2bi_cuda_stream(0), c, a, b);
    return (int)cudaGetLastError();
}

int f2b_matrices_load(uint32_t *r, uint32_t *turned, const uint16_t *x, int missing)
{
    F2B_LAUNCH(load, 1, F2BI_WARP, ROWS * ROW, f2bi_cuda_stream(0), r, turned, x, missing);
    return (int)cudaGetLastError();
}

int f2b_matrices_numbers(float *y, uint32_t *pairs, float *words, const float *x)
{
    F2B_LAUNCH(numbers, 1, F2BI_WARP, F2BI_WARP * sizeof(float), f2bi_cuda_stream(0), y, pairs, words, x);
    return (int)cudaGetLastError();
}

int f2b_matrices_wrong(f2b_matrices_mistake mistake, float *out, const float *x)
{
    F2B_LAUNCH(wrong, 1, F2BI_WARP, F2BI_WARP * sizeof(float), f2bi_cuda_stream(0), (int)mistake, out, x);
    return (int)cudaGetLastError();
}
