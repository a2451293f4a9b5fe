/*
 * What a run will need, by kind of memory, before it starts; what there is; and how many layers are
 * computed again in backward so that the one fits in the other. The first batches of each kind are
 * rehearsed (nn/step.h): all of a step but its arithmetic.
 */
#ifndef F2B_TRAIN_MEMORY_PLAN_H
#define F2B_TRAIN_MEMORY_PLAN_H

#include "data/loader/dataset.h"
#include "nn/model.h"
#include "nn/step.h"
#include "train/config.h"

typedef struct f2b_memory_plan {
    f2b_device_kind kind;       /* whose memory it is, unless said otherwise: that of the model's device */
    /** Peak of each tag, as f2b_bytes_peak_of will tell; the last: of all of them together. */
    int64_t peak[F2B_TAG_COUNT + 1];
    int64_t host;               /* the last of them on the host, where the model is on another device */
    int64_t most;               /* the last of them, had a micro-batch the most rows that it may have */
    int64_t packed;             /* weights laid out once for products (nn/packed_weights.h), where there is room; else 0 */
    int64_t mapped;             /* weights that are read where they are mapped from their files */
    int64_t available;          /* train.memory_limit, or what there is */
    bool limited;               /* by train.memory_limit */
    int64_t layers, checkpoint_layers;  /* of the language model; computed again in backward */
    int64_t rows, most_rows;    /* computed in the largest micro-batch seen; of the largest that may be */
    int64_t steps;              /* how many were rehearsed */
    int64_t state;              /* what a checkpoint holds */
    bool saves;                 /* there are checkpoints before the end of the run, */
    bool saves_beside;          /* and room for a copy from which they are written beside training */
} f2b_memory_plan;

/**
 * The plan of a run of `steps` steps for a built model. A batch that cannot be made is left out: the
 * run will say so.
 * errors  those of the dataset and of f2b_step_rehearse. That a run does not fit is none.
 */
f2b_status f2b_memory_plan_make(f2b_model *model, f2b_dataset *dataset, const f2b_config *config,
                                int64_t steps, f2b_memory_plan *plan) F2B_MUST_USE;

/** F2B_ERR_MEMORY with what is needed, what there is and what to change, where the run cannot do. */
f2b_status f2b_memory_plan_check(const f2b_memory_plan *plan) F2B_MUST_USE;

/** What the process will hold at most beside mapped files: `bytes` in use of that kind of memory, with
 *  what its allocator keeps for reuse. */
int64_t f2b_memory_held(f2b_device_kind kind, int64_t bytes);

/** Bytes that this process may still take: free and reclaimable memory, or less where a control
 *  group limits it. */
int64_t f2b_memory_available(void);

#endif
