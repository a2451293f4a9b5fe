/*
 * The state of a run between two updates, to and from disk: parameters, moments, counts, where the
 * run is, and what it needs to be sure that it goes on with the same run.
 */
#ifndef F2B_TRAIN_CHECKPOINT_H
#define F2B_TRAIN_CHECKPOINT_H

#include "checkpoints/state.h"
#include "train/optimizer.h"

/** Where a run is. Everything else follows from the configuration (random numbers and batches are
 *  pure functions of seed and step). */
typedef struct f2b_run_position {
    int64_t step;               /* updates done, skipped ones too */
    int64_t skipped;            /* of them skipped for bad numbers */
    int64_t skipped_in_a_row;
} f2b_run_position;

/** Save under the run's folder, keep the newest config->run.keep. `base` is the base model's
 *  fingerprint. Errors: those of f2b_state_save. */
f2b_status f2b_checkpoint_save(const f2b_config *config, const char *base,
                               const f2b_parameters *parameters, const f2b_optimizer *optimizer,
                               const f2b_run_position *position, f2b_state_notify *notify,
                               void *user) F2B_MUST_USE;

/**
 * Go on from an opened checkpoint: the saved configuration may differ only where that is harmless,
 * the base model must be the same, every tensor must be there once.
 * errors  F2B_ERR_CONFIG naming what differs; F2B_ERR_FORMAT naming file and tensor.
 */
f2b_status f2b_checkpoint_resume(f2b_state_file *file, const f2b_config *config, const char *base,
                                 const f2b_parameters *parameters, f2b_optimizer *optimizer,
                                 f2b_run_position *position) F2B_MUST_USE;

/**
 * How the saved run computed products of bf16 (autograd/device/cpu/products.h), if that is not how this
 * one does: the rest of the run may then differ in the last bits. Borrowed from `file`; NULL where it
 * is the same, or not known.
 */
const char *f2b_checkpoint_other_products(const f2b_state_file *file, const f2b_config *config,
                                          const f2b_parameters *parameters);

#endif
