/*
 * What f2b-train shows: the progress line, notes, the report of --check, the table of --profile.
 */
#ifndef F2B_CLI_TRAIN_REPORT_H
#define F2B_CLI_TRAIN_REPORT_H

#include <pthread.h>
#include <stdio.h>

#include "cli/progress.h"
#include "train/trainer.h"

/** What the callbacks of a run share; the user of f2b_trainer_events. */
typedef struct f2b_train_view {
    f2b_progress *progress;
    pthread_mutex_t lock;       /* the data's threads have notes too */
    int64_t first_step;         /* of this session: what the ETA counts from; 0: none yet */
    double loss_ar, loss_disc;  /* the last of each kind; 0: none yet */
    int64_t saving;             /* step of the checkpoint that is being written; 0: none */
} f2b_train_view;

/** The callbacks of a run. */
void f2b_train_note(void *view, const char *text);
void f2b_train_step(void *view, const f2b_metrics_row *row, int64_t steps);
void f2b_train_progress(void *view, int64_t step, int64_t steps, const f2b_step_progress *at);
void f2b_train_saving(void *view, int64_t step);

/** Before the first step: model, data and steps in a few lines; after the last, if there was one:
 *  peaks of memory, and where things are. */
void f2b_train_opening(f2b_progress *progress, const f2b_session *session);
void f2b_train_summary(const f2b_train_view *view, const f2b_session *session, f2b_status status);

/** --check: resolved configuration, counts of data, memory by tag, preview of the first batch of
 *  each kind, on stdout; trainable.start_from is opened and fitted. */
f2b_status f2b_train_check(f2b_session *session, f2b_train_view *view) F2B_MUST_USE;

/** --profile: a row per op and direction. */
void f2b_train_profile(FILE *out);

/** Memory (train_memory.c): the plan as --check prints it; what it says is worth a warning, false
 *  where nothing is; what it was in the end. */
void f2b_train_print_memory(const f2b_session *session);
bool f2b_train_memory_warning(const f2b_session *session, char *text, size_t size);
void f2b_train_memory_fact(f2b_progress *progress);

#endif
