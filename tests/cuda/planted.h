/* Mistakes that CUDA programs make, one a kernel, for the test of what finds them. */
#ifndef F2B_TESTS_CUDA_PLANTED_H
#define F2B_TESTS_CUDA_PLANTED_H

#ifdef __cplusplus
extern "C" {
#endif

typedef enum f2b_planted {
    PLANTED_NOTHING, PLANTED_MISSING_BARRIER, PLANTED_BARRIER_NOT_REACHED, PLANTED_TWO_BARRIERS,
    PLANTED_SHUFFLE_WITHOUT_LANE, PLANTED_OUT_OF_BOUNDS, PLANTED_NO_BLOCKS, PLANTED_TOO_MANY_THREADS,
    PLANTED_UNSET_SHARED
} f2b_planted;

/** out [64] = in [64] backwards, on the device, with one mistake. What cudaGetLastError says. */
int f2b_planted_reverse(f2b_planted mistake, float *out, const float *in);

#ifdef __cplusplus
}
#endif
#endif
