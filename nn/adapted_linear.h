/*
 * A linear layer of the base model with the LoRA adapters that the method puts beside it, one a
 * stage. There is no global "active adapter": a pass says which stage it is.
 */
#ifndef F2B_NN_ADAPTED_LINEAR_H
#define F2B_NN_ADAPTED_LINEAR_H

#include "autograd/ops/linear/linear.h"
#include "nn/method.h"
#include "nn/weights.h"

/** The stages of the method. Where one adapter serves both, both entries are the same tensors.
 *  F2B_STAGE_NONE is the base model alone: no adapter applies. */
typedef enum f2b_stage {
    F2B_STAGE_COMPRESSION, F2B_STAGE_GENERATION, F2B_STAGES, F2B_STAGE_NONE = F2B_STAGES
} f2b_stage;

typedef struct f2b_adapted_linear {
    f2b_tensor *weight, *bias;              /* bias may be NULL */
    struct { f2b_tensor *a, *b; } lora[F2B_STAGES];     /* NULL where a stage has none */
} f2b_adapted_linear;

/** Which stages of a linear get an adapter, and how. */
typedef struct f2b_lora_plan {
    bool stage[F2B_STAGES];
    bool shared;                /* one adapter for both, named "shared" */
    int64_t r;
} f2b_lora_plan;

/** Add the adapters that the plan asks for; `module` is the name of the linear without ".weight".
 *  A starts as U(-1/sqrt(in), 1/sqrt(in)), B as zeros (peft's init_lora_weights=True). */
f2b_status f2b_adapted_linear_add_lora(f2b_adapted_linear *l, f2b_weight_builder *w, const char *module,
                                       const f2b_lora_plan *plan) F2B_MUST_USE;

/** The projection of one stage, for f2b_linear_group. */
f2b_projection f2b_adapted_linear_at(const f2b_adapted_linear *l, f2b_stage stage);

#endif
