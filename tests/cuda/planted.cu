/* See planted.h. 64 threads turn 64 numbers round through shared memory. */
#include "autograd/device/cuda/kernel.cuh"
#include "tests/cuda/planted.h"

enum { N = 64 };

static __global__ void reverse(int mistake, float *out, const float *in)
{
    __shared__ float turned[N];
    const int t = (int)threadIdx.x;
    float x = in[mistake == PLANTED_OUT_OF_BOUNDS ? t + N : t];
    if (mistake == PLANTED_BARRIER_NOT_REACHED && t == 5) return;
    if (mistake == PLANTED_SHUFFLE_WITHOUT_LANE && t == 5) return;
    if (mistake == PLANTED_SHUFFLE_WITHOUT_LANE) x = __shfl_xor_sync(0xFFFFFFFFu, x, 1);
    if (mistake != PLANTED_UNSET_SHARED || t != 7) turned[N - 1 - t] = x;
    if (mistake == PLANTED_TWO_BARRIERS && t < 32) {
        __syncthreads();
    } else if (mistake != PLANTED_MISSING_BARRIER) {
        __syncthreads();
    }
    out[t] = turned[t];
}

int f2b_planted_reverse(f2b_planted mistake, float *out, const float *in)
{
    const unsigned blocks = mistake == PLANTED_NO_BLOCKS ? 0 : 1;
    const unsigned threads = mistake == PLANTED_TOO_MANY_THREADS ? 1025 : N;
    F2B_LAUNCH(reverse, blocks, threads, 0, f2bi_cuda_stream(0), (int)mistake, out, in);
    return (int)cudaGetLastError();
}
