/* What the files of the step share. */
#ifndef F2B_NN_STEP_INTERNAL_H
#define F2B_NN_STEP_INTERNAL_H

#include "nn/step.h"

/*
 * Rows of n images as f2b_pass_images gives them, with the tower's rows loaded where they are at hand,
 * made and stored where not (f2b_step_input). samples [n]: where each image is taken from. rehearse: as
 * in f2b_step_rehearse.
 */
f2b_tensor *f2bi_step_features(f2b_tape *tape, const f2b_model *model, const f2b_step_input *in,
                               const int64_t *samples, int64_t n, bool rehearse,
                               f2b_pass_frame *frame);

#endif
