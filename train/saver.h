/*
 * Saving beside training: the state is copied between two updates, and a thread writes the copy while
 * training goes on. One write at most is under way; who saves again waits for it first. A write that
 * failed is told by whichever of these functions comes next. All but the write itself is done by the
 * caller's thread.
 */
#ifndef F2B_TRAIN_SAVER_H
#define F2B_TRAIN_SAVER_H

#include "train/checkpoint.h"

typedef struct f2b_saver_events {
    /** Saved; an old checkpoint that cannot be removed. From any thread. */
    void (*note)(void *user, const char *text);
    /** The checkpoint of `step` is being written beside training; 0: no more. May be NULL. */
    void (*saving)(void *user, int64_t step);
    void *user;
} f2b_saver_events;

typedef struct f2b_saver f2b_saver;

/** All is borrowed; `snapshot` is nobody else's while the saver is there. NULL on error. */
f2b_saver *f2b_saver_new(f2b_snapshot *snapshot, const f2b_saver_events *events);

/** Wait for a write that is under way, whatever comes of it, and free. NULL is allowed. */
void f2b_saver_free(f2b_saver *saver);

/**
 * Save the state as it is now. `beside`: on return it is copied and being written; otherwise it is
 * written, without a copy where the host can read it.
 * errors  of the write before; F2B_ERR_MEMORY; not `beside`: those of f2b_state_save.
 */
f2b_status f2b_saver_save(f2b_saver *saver, const f2b_run_position *position, bool beside)
    F2B_MUST_USE;

/** What came of the write that is under way, if it has ended: to be asked after each step. */
f2b_status f2b_saver_check(f2b_saver *saver) F2B_MUST_USE;

/** What comes of it, waiting for its end. F2B_OK where there is none. */
f2b_status f2b_saver_wait(f2b_saver *saver) F2B_MUST_USE;

#endif
