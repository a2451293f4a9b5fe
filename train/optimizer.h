/*
 * AdamW over the registry of parameters: moments, a count of updates for each tensor, clipping and
 * the learning rate of each step (DESIGN section 8 "Optimiser").
 */
#ifndef F2B_TRAIN_OPTIMIZER_H
#define F2B_TRAIN_OPTIMIZER_H

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
} f2b_update;

/**
 * Update s (from 0) of `steps`: clip by the norm over all gradients, AdamW on each tensor that has
 * a gradient; weight decay on those marked for it; log_temperature is kept at ln 0.01 or above.
 * Gradients stay as they are.
 */
f2b_status f2b_optimizer_update(f2b_optimizer *optimizer, const f2b_config *config, int64_t s,
                                int64_t steps, f2b_update *out) F2B_MUST_USE;

#endif
