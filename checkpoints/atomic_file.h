/*
 * Files and folders that are either there in full or not at all, whatever kills the writer: written
 * beside under a temporary name (the name + ".partial"), synced, renamed, and the folder synced.
 * A name has one writer at a time; what a killed one left is overwritten by the next.
 */
#ifndef F2B_CHECKPOINTS_ATOMIC_FILE_H
#define F2B_CHECKPOINTS_ATOMIC_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "autograd/core/status.h"

#define F2B_PARTIAL_SUFFIX ".partial"

typedef struct f2b_atomic_file f2b_atomic_file;

/** Start writing `path`. NULL with F2B_ERR_IO (or F2B_ERR_MEMORY) that names it. */
f2b_atomic_file *f2b_atomic_file_open(const char *path);

/** Append. After a failure only abort is of use. errors: F2B_ERR_IO (a full disk among them). */
F2B_MUST_USE f2b_status f2b_atomic_file_write(f2b_atomic_file *file, const void *data,
                                              size_t bytes);

/** Put the file in place and free the handle; on failure what was at `path` stays as it was. */
F2B_MUST_USE f2b_status f2b_atomic_file_commit(f2b_atomic_file *file);

/** Remove what was written and free the handle. NULL is allowed. The error text is kept. */
void f2b_atomic_file_abort(f2b_atomic_file *file);

/** All of the above for contents that are at hand. */
F2B_MUST_USE f2b_status f2b_write_file(const char *path, const void *data, size_t bytes);

/**
 * The contents of a regular file of at most max_bytes, with a zero after the end; its size goes to
 * *bytes where that is not NULL. Free with f2b_free. NULL with F2B_ERR_NOT_FOUND, F2B_ERR_IO or
 * F2B_ERR_FORMAT (too large).
 */
char *f2b_read_file(const char *path, int64_t max_bytes, int64_t *bytes);

/** fsync of a file or folder by its path. */
F2B_MUST_USE f2b_status f2b_sync_path(const char *path);

/** mkdir -p. */
F2B_MUST_USE f2b_status f2b_make_folders(const char *path);

/** "folder/name"; free with f2b_free. NULL when out of memory. */
char *f2b_path_join(const char *folder, const char *name);

/**
 * Folders the same way: begin makes an empty `path`.partial (what a killed writer left there is
 * removed) and returns its name, to be freed with f2b_free. The writer fills and syncs the files in
 * it; commit then puts it in the place of `path`, whose old contents are removed afterwards.
 */
char *f2b_folder_begin(const char *path);
F2B_MUST_USE f2b_status f2b_folder_commit(const char *path);

/**
 * May a new folder take the place of `path`? Only where nothing is there, or an empty folder, or
 * one that an earlier writer of the same kind left, known by its file `marker`.
 * errors: F2B_ERR_INVALID (it holds other files), F2B_ERR_IO.
 */
F2B_MUST_USE f2b_status f2b_folder_check_free(const char *path, const char *marker);

/** Remove a folder and all in it. A folder that is not there is no error. */
F2B_MUST_USE f2b_status f2b_folder_remove(const char *path);

#endif
