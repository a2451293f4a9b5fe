/*
 * AdamW over the registry of parameters: moments, a count of updates for each tensor, clipping and
 * the learning rate of each step (DESIGN section 8 "Optimiser").
 */
#ifndef F2B_TRAIN_OPTIMIZER_H
#define F2B_TRAIN_OPTIMIZER_H

#include "autograd/device/readings.h"
#include "nn/parameters.h"
#include "train/config.h"

typedef struct f2b_optimizer {
    const f2b_parameters *parameters;   /* borrowed */
    f2b_tensor **m, **v;                /* [n] moments, f32, shaped as the parameters */
    int64_t *updates;                   /* [n] updates that each tensor has had */
} f2b_optimizer;

/** Zero moments for every parameter. NULL on error. */
f2b_optimizer *f2b_optimizer_new(const f2b_parameters *parameters);
void f2b_optimizer_free(f2b_optimizer *optimizer);

/** Forget all gradients: a tensor that gets none in a step is left alone by the update. */
void f2b_optimizer_clear_gradients(const f2b_parameters *parameters);

/**
 * The factor of the peak learning rate at update s (from 0) of T: linear from 0 over
 * ceil(warmup_ratio * T) updates, then cosine or linear to 0 at s = T, or constant.
 */
double f2b_learning_rate_factor(f2b_lr_scheduler scheduler, double warmup_ratio, int64_t s,
                                int64_t T);

/** What one update did. */
typedef struct f2b_update {
    double learning_rate;       /* of all but the projector */
    double grad_norm;           /* over all gradients, before clipping */
    bool finite;                /* false: the norm is not finite and nothing was changed */
    int64_t number;             /* of the norm among the readings */
} f2b_update;

/**
 * Update s (from 0) of `steps`: clip by the norm over all gradients, AdamW on each tensor that has
 * a gradient; weight decay on those marked for it; log_temperature is kept at ln 0.01 or above.
 * Nothing is changed where the norm or one of the numbers that `readings` holds (the step's losses) is
 * not finite. Gradients stay as they are.
 *
 * The work is asked for, and nothing waited for: the norm is put aside in `readings`. Once they have
 * been fetched, f2b_optimizer_settle completes *out and counts the update; before that no other.
 */
f2b_status f2b_optimizer_begin(f2b_optimizer *optimizer, const f2b_config *config, int64_t s,
                               int64_t steps, f2b_readings *readings, f2b_update *out) F2B_MUST_USE;
void f2b_optimizer_settle(f2b_optimizer *optimizer, const f2b_readings *readings, f2b_update *out);

/** Both, with the wait between them; no losses are looked at. */
f2b_status f2b_optimizer_update(f2b_optimizer *optimizer, const f2b_config *config, int64_t s,
                                int64_t steps, f2b_update *out) F2B_MUST_USE;

#endif
