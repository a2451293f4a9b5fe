/*
 * A permutation that is computed, not stored: a Feistel network on 2*half_bits bits, walked until
 * it lands below n (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). The domain
 * is less than four times n, so that the walk takes a few steps on average.
 */
#include "autograd/core/rng.h"
#include "data/sampler/stream.h"

f2bi_permutation f2bi_permutation_new(int64_t n, uint64_t seed, int stream, int64_t epoch,
                                      int64_t round)
{
    f2bi_permutation p = { .n = (uint64_t)n };
    while (p.half_bits < 31 && (UINT64_C(1) << (2 * p.half_bits)) < p.n) p.half_bits++;
    f2b_rng rng = f2b_rng_new(seed, F2B_RNG_SAMPLER, (uint64_t)stream, (uint64_t)epoch,
                              (uint64_t)round);
    for (int r = 0; r < F2BI_FEISTEL_ROUNDS; r++) {
        p.key[r] = (uint64_t)f2b_rng_u32(&rng) << 32;
        p.key[r] |= f2b_rng_u32(&rng);
    }
    return p;
}

int64_t f2bi_permutation_at(const f2bi_permutation *p, int64_t i)
{
    const uint64_t mask = (UINT64_C(1) << p->half_bits) - 1;
    uint64_t x = (uint64_t)i;
    do {
        uint64_t left = x >> p->half_bits, right = x & mask;
        for (int r = 0; r < F2BI_FEISTEL_ROUNDS; r++) {
            const uint64_t mixed = f2b_hash_mix(right ^ p->key[r]) >> 33;
            const uint64_t next = left ^ (mixed & mask);
            left = right, right = next;
        }
        x = left << p->half_bits | right;
    } while (x >= p->n);
    return (int64_t)x;
}
