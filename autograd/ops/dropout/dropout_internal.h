/*
 * The mask of dropout.h for kernels of other ops that drop on the fly (linear's LoRA input).
 *
 * Columns come in groups of 128: sixteen Philox blocks side by side, one a vector lane. Column c
 * takes, of block 16 * (c / 128) + c % 16, the 16-bit half number (c / 16) % 8 (low half first).
 */
#ifndef F2B_AUTOGRAD_OPS_DROPOUT_DROPOUT_INTERNAL_H
#define F2B_AUTOGRAD_OPS_DROPOUT_DROPOUT_INTERNAL_H

#include <stdbool.h>

#include "autograd/core/rng.h"
#include "autograd/ops/dropout/dropout.h"

enum { F2BI_DROPOUT_GROUP = 128, F2BI_DROPOUT_LANES = 16 };
typedef uint64_t f2bi_words __attribute__((vector_size(64)));

/** The random stream of one row. */
static inline f2b_rng f2bi_dropout_stream(const f2b_dropout *d, int64_t row)
{
    return f2b_rng_new(d->seed, F2B_RNG_DROPOUT, d->step, d->row_keys[row], d->place);
}

/* Eight blocks of f2b_philox from block `first` on, into lanes [lane, lane + 8) of `words`. The
 * words sit in 64-bit lanes, because compilers turn those products into one instruction each; left
 * to itself the vectoriser takes fifteen times as long. */
static inline void f2bi_dropout_blocks(const f2b_rng *stream, uint64_t first, uint64_t lane,
                                       uint32_t words[4][F2BI_DROPOUT_LANES])
{
    const f2bi_words zero = { 0 }, low = zero + 0xFFFFFFFFu;
    const f2bi_words block = (f2bi_words){ 0, 1, 2, 3, 4, 5, 6, 7 } + first;
    f2bi_words c0 = block & low, c1 = block >> 32;
    f2bi_words c2 = zero + stream->high[0], c3 = zero + stream->high[1];
    uint32_t k0 = stream->key[0], k1 = stream->key[1];
    for (int round = 0; round < 10; round++) {
        const f2bi_words p0 = c0 * 0xD2511F53u, p1 = c2 * 0xCD9E8D57u;
        c0 = (p1 >> 32) ^ c1 ^ k0, c1 = p1 & low;
        c2 = (p0 >> 32) ^ c3 ^ k1, c3 = p0 & low;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    for (uint64_t i = 0; i < 8; i++) {
        words[0][lane + i] = (uint32_t)c0[i], words[1][lane + i] = (uint32_t)c1[i];
        words[2][lane + i] = (uint32_t)c2[i], words[3][lane + i] = (uint32_t)c3[i];
    }
}

/** Words of 16 columns in a row's mask: whole groups. */
static inline int64_t f2bi_dropout_words(int64_t n)
{
    return (n + F2BI_DROPOUT_GROUP - 1) / F2BI_DROPOUT_GROUP * (F2BI_DROPOUT_GROUP / 16);
}

#if defined(F2B_KERNEL_DTYPE)
/* In CPU kernels (dropout_rows_cpu.c). Column c stays if bit c % 16 of stays[c / 16] is set, and is multiplied with
 * 1 / (1 - p) then; n columns. */

/** The mask of a row, f2bi_dropout_words(n) of it. */
void KERNEL(f2bi_dropout_mask)(const f2b_dropout *d, int64_t row, int64_t n, uint16_t *stays);

/** out = in by the mask; they may be the same. */
void KERNEL(f2bi_dropout_row)(const f2b_dropout *d, const uint16_t *stays, int64_t n, const T *in, T *out);

/** The gradient of that: dx (+)= dy by the mask; `fresh` writes. */
void KERNEL(f2bi_dropout_row_backward)(const f2b_dropout *d, const uint16_t *stays, int64_t n, const T *dy, T *dx,
                                       bool fresh);
#endif

#endif
