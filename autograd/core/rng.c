/* Streams over Philox. See rng.h for the contract. */
#include "autograd/core/rng.h"

#include <math.h>

uint64_t f2b_hash_text(const char *text)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (; *text; text++) h = (h ^ (unsigned char)*text) * 0x100000001B3u;
    return h;
}

static void block_at(const f2b_rng *r, uint64_t block, uint32_t out[4])
{
    const uint32_t counter[4] = { (uint32_t)block, (uint32_t)(block >> 32), r->high[0], r->high[1] };
    f2b_philox(counter, r->key, out);
}

uint32_t f2b_rng_at(const f2b_rng *r, uint64_t index)
{
    uint32_t out[4];
    block_at(r, index / 4, out);
    return out[index % 4];
}

uint32_t f2b_rng_u32(f2b_rng *r) { return f2b_rng_at(r, r->next++); }

float f2b_rng_uniform(f2b_rng *r) { return (float)(f2b_rng_u32(r) >> 8) * 0x1p-24f; }

/* Box-Muller, one value a pair: simple, and used for initial values only. */
double f2b_rng_normal(f2b_rng *r)
{
    const double u = ((double)f2b_rng_u32(r) + 1.0) * 0x1p-32;      /* (0, 1] */
    const double v = (double)f2b_rng_u32(r) * 0x1p-32;
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586476925 * v);
}

/* Lemire's multiply-and-reject on 64-bit words. */
__extension__ typedef unsigned __int128 uint128;

uint64_t f2b_rng_below(f2b_rng *r, uint64_t n)
{
    for (;;) {
        const uint64_t lo = f2b_rng_u32(r), x = (uint64_t)f2b_rng_u32(r) << 32 | lo;
        const uint128 m = (uint128)x * n;
        if ((uint64_t)m >= -n % n) return (uint64_t)(m >> 64);
    }
}
