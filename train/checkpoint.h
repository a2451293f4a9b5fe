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

/** What a run saves, as it was at one moment, for its folder. */
typedef struct f2b_snapshot f2b_snapshot;

/** An empty one, to be taken again and again. All but the texts' contents are borrowed; `base` is the
 *  base model's fingerprint. NULL on error. */
f2b_snapshot *f2b_snapshot_new(const f2b_config *config, const char *base,
                               const f2b_parameters *parameters, const f2b_optimizer *optimizer);
void f2b_snapshot_free(f2b_snapshot *snapshot);

/** Bytes that a copy takes, on the host: each parameter with its moments. */
int64_t f2b_snapshot_bytes(const f2b_parameters *parameters);

/**
 * Take the state as it is now. `apart`: copied, so that training may go on while it is written; the
 * copy's memory (F2B_TAG_SNAPSHOT) stays for the next time. A device copies beside its work, and is
 * waited for when the snapshot is written. Without `apart` the tensors are read when it is written, if
 * the host can read them, and must not change before.
 */
f2b_status f2b_snapshot_take(f2b_snapshot *snapshot, const f2b_run_position *position, bool apart)
    F2B_MUST_USE;

/** Write what was taken under the run's folder, keep the newest config->run.keep. From any thread.
 *  Errors: those of f2b_state_save. */
f2b_status f2b_snapshot_write(const f2b_snapshot *snapshot, f2b_state_notify *notify, void *user)
    F2B_MUST_USE;

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
