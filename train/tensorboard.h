/*
 * TensorBoard event files: scalars of a run, readable while it goes on.
 *
 * source  tensorflow/tensorboard: record framing of TFRecord, event.proto, summary.proto.
 */
#ifndef F2B_TRAIN_TENSORBOARD_H
#define F2B_TRAIN_TENSORBOARD_H

#include <stdint.h>

#include "autograd/core/status.h"
#include "train/metrics.h"

typedef struct f2b_tensorboard f2b_tensorboard;

/** One value; the tag ("train/loss") is borrowed, at most 200 bytes. */
typedef struct f2b_scalar {
    const char *tag;
    float value;
} f2b_scalar;

enum { F2B_TENSORBOARD_MOST_SCALARS = 64 };

/**
 * A new event file in `folder`, named so that it sorts after those that are there. For a run that
 * goes on after `step` > 0, TensorBoard is told to drop what an earlier file has of later steps.
 * Close it with f2b_tensorboard_close. NULL with F2B_ERR_IO or F2B_ERR_MEMORY.
 */
f2b_tensorboard *f2b_tensorboard_open(const char *folder, int64_t step);

/** The values of a step, n <= F2B_TENSORBOARD_MOST_SCALARS. On disk within a few seconds, or with
 *  the next call after them. F2B_ERR_IO. */
F2B_MUST_USE f2b_status f2b_tensorboard_write(f2b_tensorboard *board, int64_t step,
                                              const f2b_scalar *scalars, int64_t n);

/** A row of the metrics: "train/<member>" for each that is a finite number. */
F2B_MUST_USE f2b_status f2b_tensorboard_metrics(f2b_tensorboard *board, const f2b_metrics_row *row);

/** Flush and free. NULL is allowed. F2B_ERR_IO if something could not be written. */
f2b_status f2b_tensorboard_close(f2b_tensorboard *board);

/* ---- the format, for tests ------------------------------------------------------------------- */

/** CRC-32C (Castagnoli) as it stands, and masked as records have it. */
uint32_t f2bi_crc32c(const void *data, size_t bytes);
uint32_t f2bi_crc32c_masked(const void *data, size_t bytes);

typedef enum f2bi_event_kind {
    F2BI_EVENT_VERSION, /* the first of a file: file_version "brain.Event:2" */
    F2BI_EVENT_START,   /* session_log START: earlier files' events from this step on are void */
    F2BI_EVENT_SCALARS
} f2bi_event_kind;

/** Write one framed record into out[capacity]; its length, or 0 where it does not fit. */
size_t f2bi_tensorboard_record(uint8_t *out, size_t capacity, f2bi_event_kind kind,
                               double wall_time, int64_t step, const f2b_scalar *scalars,
                               int64_t n);

#endif
