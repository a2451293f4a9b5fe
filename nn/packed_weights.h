/*
 * The language model's frozen matrices as the CPU's products read them, laid out once
 * (autograd/device/cpu/packed_weight.h): faster steps for more memory, and the same bits. The vision tower is not
 * packed: its passes have so many rows that it would not show.
 */
#ifndef F2B_NN_PACKED_WEIGHTS_H
#define F2B_NN_PACKED_WEIGHTS_H

#include "nn/model.h"

/** Bytes that it takes: twice what is packed; 0 where there is nothing to pack (a device, small weights, full
 *  fine-tuning). */
int64_t f2b_model_packed_weight_bytes(const f2b_model *model);

/** Pack. errors: F2B_ERR_MEMORY; nothing stays packed then. */
f2b_status f2b_model_pack_weights(f2b_model *model) F2B_MUST_USE;

/** As if it were packed, for rehearsals of a step. */
f2b_status f2b_model_plan_packed_weights(f2b_model *model) F2B_MUST_USE;

void f2b_model_unpack_weights(f2b_model *model);

#endif
