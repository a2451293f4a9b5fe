#ifndef F2B_AUTOGRAD_OPS_DROPOUT_DROPOUT_H
#define F2B_AUTOGRAD_OPS_DROPOUT_DROPOUT_H

#include "autograd/core/tape.h"

/**
 * Which elements are dropped: a pure function of (seed, step, place, row key, column), so that a
 * replay, a resumed run, another number of threads and another place in the pack drop the same.
 * Column c of a row is dropped if 16 bits of Philox are below round(65536 p); the others are
 * multiplied by 1 / (1 - p).
 */
typedef struct f2b_dropout {
    float p;                        /* 0 <= p < 1; 0 is the identity */
    uint64_t seed, step;
    uint32_t place;                 /* where in the model: no two dropouts of a step share one */
    const uint64_t *row_keys;       /* one a row, on the device of x; borrowed until backward has run */
} f2b_dropout;

/**
 * y[t,c] = x[t,c] * factor(t,c), factor being 0 or 1 / (1 - p).
 *
 * x       [..., D] (f32, f64, bf16); borrowed. Its rows are what row_keys counts.
 * d       copied; what row_keys points to must stay until backward.
 * return  shape and type of x; borrowed from the tape (x itself if p is 0). NULL on error, or if x
 *         is NULL.
 * errors  F2B_ERR_INVALID if p is outside [0, 1) or row_keys is NULL.
 * saves   on the CPU a bit an element; elsewhere nothing: backward computes the factors again.
 */
f2b_tensor *f2b_dropout_apply(f2b_tape *tape, f2b_tensor *x, const f2b_dropout *d);

#endif
