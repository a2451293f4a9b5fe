/*
 * Evaluation during a run (run.eval_every): the losses, without dropout and gradients, on the same
 * samples each time: the first batch of each kind that the run's steps do not reach, so that within
 * one epoch they are samples it does not train on. Written to evaluations.jsonl and TensorBoard.
 */
#ifndef F2B_TRAIN_EVALUATION_H
#define F2B_TRAIN_EVALUATION_H

#include "train/tensorboard.h"
#include "train/trainer.h"

typedef struct f2b_evaluation f2b_evaluation;

/** Load the batches; the log keeps its lines up to `step`. NULL on error. */
f2b_evaluation *f2b_evaluation_open(f2b_session *session, int64_t step);
void f2b_evaluation_close(f2b_evaluation *evaluation);

/**
 * Evaluate after `step` updates, unless the log has that step already: a line {"step", "loss_ar",
 * "loss_disc"} (null where the run has no such loss) and the scalars eval/loss_ar, eval/loss_disc.
 * `stop` is asked between micro-batches: F2B_ERR_STOPPED, and nothing was written.
 */
f2b_status f2b_evaluation_run(f2b_evaluation *evaluation, int64_t step, f2b_tensorboard *board,
                              bool (*stop)(void *user), void *user) F2B_MUST_USE;

#endif
