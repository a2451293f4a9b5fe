/*
 * The registry of what is trained: one list of named f32 tensors that the optimiser, checkpoints,
 * export and reports all read. Names are those of DESIGN section 2 (docs/method.md).
 */
#ifndef F2B_NN_PARAMETERS_H
#define F2B_NN_PARAMETERS_H

#include "autograd/core/tensor.h"

/** What a parameter belongs to: decides its learning rate, and where an export puts it. */
typedef enum f2b_parameter_group {
    F2B_GROUP_LORA,             /* *.lora_A, *.lora_B */
    F2B_GROUP_SUMMARY,          /* summary_tokens */
    F2B_GROUP_TEMPERATURE,      /* log_temperature */
    F2B_GROUP_LANGUAGE_MODEL,   /* trainable.language_model: full */
    F2B_GROUP_PROJECTOR,        /* the only group with a learning rate of its own */
    F2B_GROUP_VISION_TOWER,
} f2b_parameter_group;

typedef struct f2b_parameter {
    f2b_tensor *tensor;         /* value and gradient; its name is the parameter's; owned */
    f2b_parameter_group group;
    bool decay;                 /* weight decay applies: matrices, but not summary_tokens */
} f2b_parameter;

typedef struct f2b_parameters {
    f2b_parameter *items;
    int64_t n, capacity;
} f2b_parameters;

/** Add a tensor (ownership passes to the list, also on error) under a copy of `name`. */
f2b_status f2b_parameters_add(f2b_parameters *list, f2b_tensor *tensor, const char *name,
                              f2b_parameter_group group, bool decay) F2B_MUST_USE;

/** The parameter of that name, or NULL (no error is set). */
const f2b_parameter *f2b_parameters_find(const f2b_parameters *list, const char *name);

/** Free all tensors and the list. */
void f2b_parameters_clear(f2b_parameters *list);

#endif
