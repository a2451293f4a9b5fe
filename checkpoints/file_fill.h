/* Filling a large file in one go: written, hashed and on its way to the disk at the same time. */
#ifndef F2B_CHECKPOINTS_FILE_FILL_H
#define F2B_CHECKPOINTS_FILE_FILL_H

#include "checkpoints/file_checksum.h"

/** Bytes and their place in the file; the bytes are borrowed. */
typedef struct f2b_file_piece {
    int64_t at, bytes;
    const void *data;
} f2b_file_piece;

/**
 * Write n pieces, in ascending order and apart, within a file that has its full size and all its other
 * bytes already, and bring it to disk. *sum gets size and XXH3-128 of the file as it should be: the
 * pieces are hashed where they are in memory, beside the writing (by a thread of its own).
 * errors  F2B_ERR_IO, F2B_ERR_MEMORY; the file's content is then anything.
 */
F2B_MUST_USE f2b_status f2b_file_fill(const char *path, const f2b_file_piece *pieces, int64_t n,
                                      f2b_file_checksum *sum);

#endif
