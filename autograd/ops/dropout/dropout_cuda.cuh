/*
 * The mask of dropout.h on a CUDA device, for dropout itself and for ops that drop on the way
 * (linear). The same bits as on the CPU: column c takes, of Philox block 16 (c / 128) + c % 16 of its
 * row's stream, the 16-bit half number (c / 16) % 8. A thread makes one block, which is the factors
 * of eight columns, 16 apart.
 */
#ifndef F2B_AUTOGRAD_OPS_DROPOUT_DROPOUT_CUDA_CUH
#define F2B_AUTOGRAD_OPS_DROPOUT_DROPOUT_CUDA_CUH

#include "autograd/core/rng.h"
#include "autograd/device/cuda/kernel.cuh"
#include "autograd/ops/dropout/dropout.h"

/* out[r,c] = in[r,c] * factor(r,c), or += where not fresh; in and out may be the same. Row r has the
 * factors of row picked[r], or its own where picked is NULL. */
static __global__ void f2bi_drop(T *out, bool fresh, const T *in, const uint64_t *row_keys,
                                 const int32_t *picked, uint64_t seed, uint64_t step, uint32_t place,
                                 real p, int64_t D)
{
    const int64_t row = blockIdx.x, blocks = (D + 127) / 128 * 16;
    const uint64_t key = row_keys[picked != NULL ? picked[row] : row];
    const f2b_rng stream = f2b_rng_new(seed, F2B_RNG_DROPOUT, step, key, place);
    const uint32_t threshold = (uint32_t)(p * 65536.0f + 0.5f);
    const real scale = 1.0f / (1.0f - p);
    for (int64_t b = threadIdx.x; b < blocks; b += blockDim.x) {
        const uint32_t counter[4] = { (uint32_t)b, (uint32_t)((uint64_t)b >> 32), stream.high[0],
                                      stream.high[1] };
        uint32_t words[4];
        f2b_philox(counter, stream.key, words);
        for (int q = 0; q < 8; q++) {
            const int64_t c = b / 16 * 128 + q * 16 + b % 16;
            if (c >= D) break;
            const real factor = (words[q / 2] >> (16 * (q % 2)) & 0xFFFFu) < threshold ? 0 : scale;
            const int64_t at = row * D + c;
            STORE(out[at], (fresh ? 0 : LOAD(out[at])) + LOAD(in[at]) * factor);
        }
    }
}

/** The same for all rows, launched for node n. */
static inline f2b_status f2bi_drop_rows(const f2b_node *n, const f2b_dropout *d, T *out, bool fresh,
                                        const T *in, const int32_t *picked, int64_t rows, int64_t D)
{
    if (rows * D == 0) return F2B_OK;
    F2B_LAUNCH(f2bi_drop, (unsigned)rows, F2BI_BLOCK, 0, f2bi_stream(n), out, fresh, in, d->row_keys,
               picked, d->seed, d->step, d->place, d->p, D);
    return F2B_OK;
}

#endif
