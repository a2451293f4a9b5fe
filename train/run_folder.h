/*
 * The folder of a run: made, locked for one process, and given its resolved configuration. What
 * else lies in it (metrics.h, tensorboard.h, checkpoints/state.h) is written by its own module.
 */
#ifndef F2B_TRAIN_RUN_FOLDER_H
#define F2B_TRAIN_RUN_FOLDER_H

#include "autograd/core/status.h"
#include "train/config.h"

typedef struct f2b_run_folder f2b_run_folder;

/**
 * Make the folder (and those above it) if it is not there, and lock it: the lock is the process's
 * and ends with it, however it ends. Close it with f2b_run_folder_close.
 * NULL with F2B_ERR_BUSY (who holds it is named), F2B_ERR_IO, F2B_ERR_MEMORY.
 */
f2b_run_folder *f2b_run_folder_open(const char *path);

/** Give the lock back. NULL is allowed. */
void f2b_run_folder_close(f2b_run_folder *folder);

/**
 * Move what a run left in the folder (checkpoints, logs, configuration, event files; the lock
 * stays) into a new folder before-<N> in it, which is a run folder of its own: nothing is deleted.
 * Cut short, it leaves the checkpoints where they were, for they go last.
 * moved   the new folder's path, for f2b_free; NULL where there was nothing to move.
 * errors  F2B_ERR_IO, F2B_ERR_MEMORY.
 */
F2B_MUST_USE f2b_status f2b_run_folder_set_aside(const f2b_run_folder *folder, char **moved);

/** Its path, as it was given. */
const char *f2b_run_folder_path(const f2b_run_folder *folder);

/** Write config.yaml, in place of an earlier one. train.steps must be given: F2B_ERR_INVALID. */
F2B_MUST_USE f2b_status f2b_run_folder_write_config(const f2b_run_folder *folder,
                                                    const f2b_config *config);

#endif
