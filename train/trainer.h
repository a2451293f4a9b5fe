/*
 * A training run: everything that a configuration names is opened, then step after step: batch,
 * loss and gradients, update, log, checkpoint. It never prints; it reports through callbacks.
 */
#ifndef F2B_TRAIN_TRAINER_H
#define F2B_TRAIN_TRAINER_H

#include "data/loader/loader.h"
#include "nn/step.h"
#include "train/fault_list.h"
#include "train/feature_cache.h"
#include "train/checkpoint.h"
#include "train/memory_plan.h"
#include "train/metrics.h"
#include "train/model_setup.h"

/** What a run tells whoever runs it. All functions but progress and saving are required. */
typedef struct f2b_trainer_events {
    /** Something worth a line: resumed, saved, a damaged checkpoint passed over, a bad record. From
     *  any thread. */
    void (*note)(void *user, const char *text);
    /** After each step: its row of the metrics, and of how many steps it is. */
    void (*step)(void *user, const f2b_metrics_row *row, int64_t steps);
    /** Asked between micro-batches; true saves the state and ends with F2B_ERR_STOPPED. */
    bool (*stop)(void *user);
    void *user;
    /** At each layer within a step: the step's number (from 1), and where it is. */
    void (*progress)(void *user, int64_t step, int64_t steps, const f2b_step_progress *progress);
    /** The checkpoint of `step` is being written while training goes on; 0: no more. */
    void (*saving)(void *user, int64_t step);
} f2b_trainer_events;

typedef enum f2b_resume { F2B_RESUME_AUTO, F2B_RESUME_NONE, F2B_RESUME_PATH } f2b_resume;

/** Model, data and settings of a run, opened but not started: what --check looks at. */
typedef struct f2b_session {
    f2b_config *config;             /* owned; train.steps is resolved */
    f2b_model_folder *folder;
    f2b_dataset *dataset;
    f2b_fault_list *bad;
    f2b_model *model;
    f2b_feature_cache *features;    /* NULL without data.feature_cache */
    f2b_memory_plan memory;
    int64_t steps;
} f2b_session;

/** Open all that the configuration names (ownership passes, also on error). `note` is told of each
 *  bad record, from any thread but one at a time, of a base without a projector, and of what
 *  train.precision: fp8 could take. NULL on error. */
f2b_session *f2b_session_open(f2b_config *config, f2b_device device,
                              void (*note)(void *user, const char *text), void *user);
void f2b_session_close(f2b_session *session);

/** Load the values of trainable.start_from, if it is set: what a run does that is not resumed.
 *  `note` hears of damaged checkpoints that were passed over, and of another base model than this.
 *  errors  those of f2b_trained_open and f2b_trained_load. */
f2b_status f2b_session_start_from(f2b_session *session, void (*note)(void *user, const char *text),
                                  void *user) F2B_MUST_USE;

/**
 * Train to the end of the run, or until asked to stop, or until an error. Checkpoints on the way are
 * written while training goes on (saver.h) where the memory plan has room for it; a write that fails
 * ends the run after the step that is under way. The run folder is created
 * and locked; with F2B_RESUME_AUTO the newest sound checkpoint in it is continued, with
 * F2B_RESUME_NONE what is there is moved aside (into before-<N>) and the run starts anew, with
 * F2B_RESUME_PATH `path` (a checkpoint or a run) is continued; where that is not of the run folder
 * itself, a run in it is moved aside.
 * errors  F2B_ERR_STOPPED after a stop with the state saved; F2B_ERR_NUMBERS after ten steps in a
 *         row with non-finite loss or gradients (the state is saved); F2B_ERR_DATA for unusable
 *         data and F2B_ERR_MEMORY (the state is saved where that can be); F2B_ERR_BUSY; those of
 *         the parts.
 */
f2b_status f2b_train_run(f2b_session *session, f2b_resume resume, const char *path,
                         const f2b_trainer_events *events) F2B_MUST_USE;

/** Whom a step asks and tells; either function may be NULL. */
typedef struct f2b_step_events {
    bool (*stop)(void *user);           /* between micro-batches; true: F2B_ERR_STOPPED */
    void (*progress)(void *user, const f2b_step_progress *progress);
    void *user;
} f2b_step_events;

/** Loss of a batch on the model as it is; shared by training and evaluation. events may be NULL;
 *  readings as in f2b_step_input. */
f2b_status f2b_session_step(f2b_session *session, const f2b_batch *batch, bool train,
                            const f2b_step_events *events, f2b_readings *readings,
                            f2b_step_result *result) F2B_MUST_USE;

#endif
