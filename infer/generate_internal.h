/* Choosing the next id of an answer. */
#ifndef F2B_INFER_GENERATE_INTERNAL_H
#define F2B_INFER_GENERATE_INTERNAL_H

#include "infer/generate.h"

/**
 * The id that row `row` of the logits [rows, vocab] chooses, into *id.
 * key, place  name the draw: the prompt's key, and how many ids of its answer came before.
 * errors      F2B_ERR_NUMBERS: logits that are not finite; F2B_ERR_MEMORY.
 */
f2b_status f2bi_choose_id(const f2b_tensor *logits, int64_t row, const f2b_sampling *sampling,
                          uint64_t key, int64_t place, int32_t *id) F2B_MUST_USE;

#endif
