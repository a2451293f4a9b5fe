#ifndef F2B_AUTOGRAD_OPS_RANDOM_FILL_INTERNAL_H
#define F2B_AUTOGRAD_OPS_RANDOM_FILL_INTERNAL_H

#include "autograd/ops/random_fill/random_fill.h"

/** Element i. */
static inline F2B_ANYWHERE float f2bi_random_element(f2b_init init, const f2b_rng *stream, uint64_t i)
{
    if (init.kind == F2B_INIT_NORMAL)
        return (float)(init.value * f2b_normal_from(f2b_rng_at(stream, 2 * i),
                                                    f2b_rng_at(stream, 2 * i + 1)));
    if (init.kind == F2B_INIT_UNIFORM)
        return (float)(init.value * (2.0 * (double)f2b_uniform_from(f2b_rng_at(stream, i)) - 1.0));
    return (float)init.value;
}

/** n elements of an open device's memory; index is its number. */
#ifdef __cplusplus
extern "C" f2b_status f2bi_random_fill_cuda(int index, void *x, f2b_dtype dtype, int64_t n, f2b_init init,
                                            const f2b_rng *stream);
#else
f2b_status f2bi_random_fill_cuda(int index, void *x, f2b_dtype dtype, int64_t n, f2b_init init,
                                 const f2b_rng *stream) F2B_WEAK;
#endif

#endif
