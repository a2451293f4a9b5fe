/*
 * metrics.jsonl: what each optimiser step did, one JSON object a line, in the order of the table
 * below. Written line by line, so that a killed run loses at most the line in hand; a run that goes
 * on from a checkpoint first cuts off the steps after it, so that no step is there twice.
 */
#ifndef F2B_TRAIN_METRICS_H
#define F2B_TRAIN_METRICS_H

#include <stdint.h>

#include "autograd/core/status.h"
#include "data/batch.h"

/* X(member, kind, what it is). COUNT int64_t; REAL double, null in the file where it is not finite
 * (a loss that does not apply is NAN). `kind` is written by itself, after `step`. */
#define F2B_METRICS_LIST(X)                                                                        \
    X(loss, REAL, "sum of the losses that apply")                                                  \
    X(loss_ar, REAL, "next-token loss, mean over the labelled tokens of the step")                 \
    X(loss_disc, REAL, "contrastive loss")                                                         \
    X(lr, REAL, "learning rate of this update")                                                    \
    X(grad_norm, REAL, "norm of all gradients, before clipping")                                   \
    X(samples, COUNT, "samples of the batch")                                                      \
    X(tokens, COUNT, "rows of the sequences of both passes")                                       \
    X(labelled_tokens, COUNT, "tokens under the next-token loss")                                  \
    X(seconds, REAL, "wall time of the step")                                                      \
    X(tokens_per_second, REAL, "tokens / seconds")                                                 \
    X(data_wait_seconds, REAL, "time in which the step waited for its batch")                      \
    X(peak_bytes, COUNT, "most bytes in use so far")                                               \
    X(skipped, COUNT, "steps so far that were skipped for bad numbers")

typedef struct f2b_metrics_row {
    int64_t step; /* updates done, from 1 */
    f2b_batch_kind kind;
#define F2B_METRICS_COUNT(name) int64_t name;
#define F2B_METRICS_REAL(name) double name;
#define F2B_X(name, kind, text) F2B_METRICS_##kind(name)
    F2B_METRICS_LIST(F2B_X)
#undef F2B_X
#undef F2B_METRICS_COUNT
#undef F2B_METRICS_REAL
    /* Sample ids in row order, borrowed; written where n_sample_ids > 0, never read back. */
    const char *const *sample_ids;
    int64_t n_sample_ids;
} f2b_metrics_row;

typedef struct f2b_metrics f2b_metrics;

/**
 * Open the log for a run that goes on after `step` (0: a new one): lines of later steps, and a torn
 * last line, are cut off. Close it with f2b_metrics_close. NULL with F2B_ERR_IO, F2B_ERR_MEMORY, or
 * F2B_ERR_FORMAT with path:line where what is kept is not such a log.
 */
f2b_metrics *f2b_metrics_open(const char *path, int64_t step);

/** Append a step and hand it to the system. step is above the last one's. F2B_ERR_IO. */
F2B_MUST_USE f2b_status f2b_metrics_write(f2b_metrics *metrics, const f2b_metrics_row *row);

/** NULL is allowed. */
void f2b_metrics_close(f2b_metrics *metrics);

/**
 * All rows of a log, into *rows [*n] (f2b_free). A torn last line is passed over.
 * errors: F2B_ERR_NOT_FOUND, F2B_ERR_IO, F2B_ERR_MEMORY, F2B_ERR_FORMAT with path:line.
 */
F2B_MUST_USE f2b_status f2b_metrics_read(const char *path, f2b_metrics_row **rows, int64_t *n);

#endif
