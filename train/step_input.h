/*
 * What a step sees of a batch.
 */
#ifndef F2B_TRAIN_STEP_INPUT_H
#define F2B_TRAIN_STEP_INPUT_H

#include "data/batch.h"
#include "nn/step.h"
#include "train/config.h"

/** [batch->n] samples that borrow from the batch; f2b_free. NULL without memory. */
f2b_step_sample *f2b_step_samples(const f2b_config *config, const f2b_batch *batch);

/** The input of its step but for the callbacks. */
f2b_step_input f2b_step_input_of(const f2b_config *config, const f2b_batch *batch,
                                 const f2b_step_sample *samples, int64_t checkpoint_layers);

#endif
