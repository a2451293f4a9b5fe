/*
 * What a run will need, by kind of memory, before it starts; and what there is.
 */
#ifndef F2B_TRAIN_MEMORY_PLAN_H
#define F2B_TRAIN_MEMORY_PLAN_H

#include "nn/model.h"
#include "train/config.h"

/** Estimated bytes at the worst moment of a step. */
typedef struct f2b_memory_plan {
    int64_t mapped;             /* base weights used straight from their files */
    int64_t weights;            /* base weights held in memory */
    int64_t parameters, gradients, optimizer;
    int64_t activations;        /* kept for backward, with what one layer needs while it runs */
    int64_t scratch;
    int64_t total;              /* all but mapped */
    bool checkpoint_layers;     /* whether layers are computed again in backward */
} f2b_memory_plan;

/** The plan for a built model; auto checkpointing is decided by `available` bytes. */
f2b_memory_plan f2b_memory_plan_make(const f2b_model *model, const f2b_config *config,
                                     int64_t available);

/** Bytes that this process may still take: free and reclaimable memory, or less where a control
 *  group limits it. */
int64_t f2b_memory_available(void);

#endif
