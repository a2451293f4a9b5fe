/*
 * The list of bad records in a run's folder, bad_records.tsv: source, record, kind, detail. A
 * resumed run looks at the records of the list again: those that are still bad count, and each
 * stands there once; those that were mended are used.
 */
#ifndef F2B_TRAIN_FAULT_LIST_H
#define F2B_TRAIN_FAULT_LIST_H

#include "data/loader/dataset.h"

typedef struct f2b_fault_list f2b_fault_list;

/** A list that is not on disk yet: entries are only forwarded to `note`, one line of text each. */
f2b_fault_list *f2b_fault_list_new(void (*note)(void *user, const char *text), void *user);
void f2b_fault_list_free(f2b_fault_list *list);

/** The listener to give to the dataset, with the list as its user. */
void f2b_fault_list_listen(const f2b_fault_entry *entry, void *list);

/**
 * From now on write to run_dir/bad_records.tsv. The records of a list that is there are checked
 * again (without a note to the user), and the file is replaced by one of those that are still bad.
 * errors  F2B_ERR_IO, F2B_ERR_MEMORY; F2B_ERR_DATA by the fault policy: the old file stays.
 */
f2b_status f2b_fault_list_open(f2b_fault_list *list, const char *run_dir, f2b_dataset *dataset)
    F2B_MUST_USE;

#endif
