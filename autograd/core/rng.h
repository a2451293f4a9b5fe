/*
 * Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011).
 *
 * A number is a pure function of (seed, stream, index): no state travels, so replay, resume and
 * another number of threads give the same bits. A stream is named by what it is for plus up to
 * three coordinates (step, sample, place).
 */
#ifndef F2B_AUTOGRAD_CORE_RNG_H
#define F2B_AUTOGRAD_CORE_RNG_H

#include <math.h>
#include <stdint.h>

#include "autograd/device/anywhere.h"

#ifdef __cplusplus
extern "C" {
#endif

/** One Philox4x32-10 block: 128-bit counter, 64-bit key -> four uniform 32-bit words. */
static inline F2B_ANYWHERE void f2b_philox(const uint32_t counter[4], const uint32_t key[2],
                                           uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        const uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1, c3 = (uint32_t)p0, c0 = n0, c2 = n2;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/** What a stream is for; part of the key, so that no two uses ever share numbers. */
typedef enum f2b_rng_use {
    F2B_RNG_INIT = 1,       /* initial values; a = hash of the parameter's name */
    F2B_RNG_DROPOUT = 2,    /* a = step, b = sample, c = place in the model */
    F2B_RNG_SAMPLER = 3,    /* a = source, b = epoch */
    F2B_RNG_CAPTION = 4,    /* which caption of an image; a = source, b = epoch, c = record */
    F2B_RNG_GENERATE = 5,   /* sampling of answers */
    F2B_RNG_TOY = 6,        /* the toy world */
    F2B_RNG_TEST = 7,
} f2b_rng_use;

/** A stream: value type, cheap to make and to copy. */
typedef struct f2b_rng {
    uint32_t key[2];        /* mixed from seed, use and a */
    uint32_t high[2];       /* upper counter words: mixed from b and c */
    uint64_t next;          /* index of the next word, for the sequential calls */
} f2b_rng;

/** SplitMix64's finaliser, for mixing numbers. */
static inline F2B_ANYWHERE uint64_t f2b_hash_mix(uint64_t x)
{
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

static inline F2B_ANYWHERE f2b_rng f2b_rng_new(uint64_t seed, f2b_rng_use use, uint64_t a,
                                               uint64_t b, uint64_t c)
{
    const uint64_t key = f2b_hash_mix(f2b_hash_mix(seed ^ f2b_hash_mix((uint64_t)use)) ^ a);
    const uint64_t high = f2b_hash_mix(f2b_hash_mix(b) ^ c);
    f2b_rng r;
    r.key[0] = (uint32_t)key, r.key[1] = (uint32_t)(key >> 32);
    r.high[0] = (uint32_t)high, r.high[1] = (uint32_t)(high >> 32);
    r.next = 0;
    return r;
}

/** The 32-bit word at `index` of the stream (pure). */
static inline F2B_ANYWHERE uint32_t f2b_rng_at(const f2b_rng *r, uint64_t index)
{
    const uint64_t block = index / 4;
    const uint32_t counter[4] = { (uint32_t)block, (uint32_t)(block >> 32), r->high[0], r->high[1] };
    uint32_t out[4];
    f2b_philox(counter, r->key, out);
    return out[index % 4];
}

/** Uniform in [0, 1) with 24 bits from a word; standard normal from two (Box-Muller, one value a pair:
 *  simple, and used for initial values only). */
static inline F2B_ANYWHERE float f2b_uniform_from(uint32_t word)
{
    return (float)(word >> 8) * 5.9604644775390625e-8f;                 /* 2^-24 */
}
static inline F2B_ANYWHERE double f2b_normal_from(uint32_t first, uint32_t second)
{
    const double u = ((double)first + 1.0) * 2.3283064365386962890625e-10;      /* (0, 1], 2^-32 */
    const double v = (double)second * 2.3283064365386962890625e-10;
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586476925 * v);
}

/** The next word (advances r->next). */
uint32_t f2b_rng_u32(f2b_rng *r);

/** Next value: uniform in [0, 1) with 24 bits; standard normal; integer in [0, n), n > 0, unbiased. */
float f2b_rng_uniform(f2b_rng *r);
double f2b_rng_normal(f2b_rng *r);
uint64_t f2b_rng_below(f2b_rng *r, uint64_t n);

/** FNV-1a of a text, for streams keyed by a name. */
uint64_t f2b_hash_text(const char *text);

#ifdef __cplusplus
}
#endif
#endif
