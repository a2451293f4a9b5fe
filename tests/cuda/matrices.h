/* What the instructions of tensor_core.cuh do with one warp's registers, for their test. */
#ifndef F2B_TESTS_CUDA_MATRICES_H
#define F2B_TESTS_CUDA_MATRICES_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Registers as lanes hold them, lane after lane; all are on the device. What cudaGetLastError says. */

/** c [32][4] += a [32][4] b [32][2]. */
int f2b_matrices_multiply(float *c, const uint32_t *a, const uint32_t *b);
/** r [32][4], turned [32][4]: four matrices of x [4][8][8], copied to shared memory by cp.async; of
 *  the last `missing` rows zeros. */
int f2b_matrices_load(uint32_t *r, uint32_t *turned, const uint16_t *x, int missing);
/** y [32] = 2^x, pairs [32] = x rounded and 2 x rounded, words [32] = x by way of shared memory. */
int f2b_matrices_numbers(float *y, uint32_t *pairs, float *words, const float *x);

typedef enum f2b_matrices_mistake {
    MATRICES_LANE_MISSING, MATRICES_TWO_PLACES, MATRICES_BEYOND_SHARED, MATRICES_ODD_ADDRESS,
    MATRICES_NEVER_WAITED, MATRICES_READ_TOO_EARLY
} f2b_matrices_mistake;
/** out [32]: x [32] by way of shared memory, with one mistake. */
int f2b_matrices_wrong(f2b_matrices_mistake mistake, float *out, const float *x);

#ifdef __cplusplus
}
#endif
#endif
