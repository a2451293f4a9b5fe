/*
 * The loader: batches of consecutive steps, made ahead of time by worker threads.
 *
 * Workers share the rows of a few batches ahead; batches come out in step order whatever thread
 * ends first, and hold the same bytes with any number of workers.
 */
#ifndef F2B_DATA_LOADER_LOADER_H
#define F2B_DATA_LOADER_LOADER_H

#include "data/loader/dataset.h"

typedef struct f2b_loader_options {
    int workers;                    /* threads; 0: batches are made within f2b_loader_next */
    int ahead; /* batches made ahead at most, besides the one handed out; 0: 2 */
    int64_t first_step, end_step;   /* steps [first, end) */
    int rank, ranks;                /* this process gets its slice of each batch; 0 or 1: all */
} f2b_loader_options;

typedef struct f2b_loader f2b_loader;

/** Start. The dataset is borrowed and must outlive the loader.
 *  errors  F2B_ERR_INVALID: steps or ranks; F2B_ERR_MEMORY; F2B_ERR_IO: no thread to be had. */
f2b_loader *f2b_loader_new(f2b_dataset *dataset, const f2b_loader_options *options);

/** Stop the workers within the row they are at, wait for them, and free everything. */
void f2b_loader_free(f2b_loader *loader);

/**
 * The next step's batch, the caller's (f2b_batch_free); *batch is NULL after the last step.
 * errors  those of f2b_dataset_row, in step order: batches before the failing one still come; after
 *         an error every call gives it again.
 */
f2b_status f2b_loader_next(f2b_loader *loader, f2b_batch **batch) F2B_MUST_USE;

/** Seconds that the last f2b_loader_next made its caller wait. */
double f2b_loader_wait_seconds(const f2b_loader *loader);

#endif
