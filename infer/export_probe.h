/* What models make of fixed inputs, compared: how exports are proven to do something. */
#ifndef F2B_INFER_EXPORT_PROBE_H
#define F2B_INFER_EXPORT_PROBE_H

#include "nn/model.h"

/**
 * |a - b| / |b| of what two models make of a fixed input; NaN where something is not finite.
 * hidden  states of a stage's pass over text: pass 1 or pass 2; of pass 1 under `single`, which is
 *         the tower's, the image rows of a fixed picture.
 * images  image rows of a fixed picture without summary tokens.
 */
f2b_status f2bi_probe_hidden(const f2b_model *a, const f2b_model *b, f2b_stage stage,
                             double *out) F2B_MUST_USE;
f2b_status f2bi_probe_images(const f2b_model *a, const f2b_model *b, double *out) F2B_MUST_USE;

/** The same of the logits after a fixed text, each model with the adapters of a stage. */
f2b_status f2bi_probe_logits(const f2b_model *a, f2b_stage stage_a, const f2b_model *b,
                             f2b_stage stage_b, double *out) F2B_MUST_USE;

#endif
