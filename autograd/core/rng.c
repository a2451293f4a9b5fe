/* Streams over Philox. See rng.h for the contract. */
#include "autograd/core/rng.h"

uint64_t f2b_hash_text(const char *text)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (; *text; text++) h = (h ^ (unsigned char)*text) * 0x100000001B3u;
    return h;
}

uint32_t f2b_rng_u32(f2b_rng *r) { return f2b_rng_at(r, r->next++); }

float f2b_rng_uniform(f2b_rng *r) { return f2b_uniform_from(f2b_rng_u32(r)); }

double f2b_rng_normal(f2b_rng *r)
{
    const uint32_t first = f2b_rng_u32(r);
    return f2b_normal_from(first, f2b_rng_u32(r));
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
