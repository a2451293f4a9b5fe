/* Shared by metrics.c and metrics_read.c: going through a log line by line. */
#ifndef F2B_TRAIN_METRICS_INTERNAL_H
#define F2B_TRAIN_METRICS_INTERNAL_H

#include <stdbool.h>
#include <stdio.h>

#include "train/metrics.h"

extern const char *const f2bi_batch_kind_names[F2B_BATCH_KINDS];

typedef struct f2bi_metrics_scan {
    FILE *file;
    const char *path; /* borrowed */
    char *line;
    size_t capacity;
    int64_t offset; /* where the next line begins */
    int64_t number; /* of the last line, from 1 */
    int64_t step;   /* of the last line */
} f2bi_metrics_scan;

F2B_MUST_USE f2b_status f2bi_metrics_scan_open(f2bi_metrics_scan *scan, const char *path);
void f2bi_metrics_scan_close(f2bi_metrics_scan *scan);

/** The next row; *more is false at the end or at a torn last line. */
F2B_MUST_USE f2b_status f2bi_metrics_scan_next(f2bi_metrics_scan *scan, f2b_metrics_row *row,
                                               bool *more);

#endif
