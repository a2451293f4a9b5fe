/* Size and XXH3-128 of a file: what manifests hold, and what a file is held against before it is
 * believed. */
#ifndef F2B_CHECKPOINTS_FILE_CHECKSUM_H
#define F2B_CHECKPOINTS_FILE_CHECKSUM_H

#include <stdint.h>

#include "autograd/core/status.h"
#include "checkpoints/file_internal.h"

enum { F2B_CHECKSUM_TEXT = F2BI_HASH_TEXT };    /* 32 hex digits and the closing zero */

typedef struct f2b_file_checksum {
    int64_t size;
    char xxh3_128[F2B_CHECKSUM_TEXT];
} f2b_file_checksum;

/** Take it of a file. errors: F2B_ERR_NOT_FOUND, F2B_ERR_IO, F2B_ERR_FORMAT (not a regular file),
 *  F2B_ERR_MEMORY. */
F2B_MUST_USE f2b_status f2b_file_checksum_take(const char *path, f2b_file_checksum *out);

/** The same of a file that was just written, which is brought to disk meanwhile. */
F2B_MUST_USE f2b_status f2b_file_checksum_seal(const char *path, f2b_file_checksum *out);

/** Is the file what a manifest says? errors: F2B_ERR_FORMAT (what differs), F2B_ERR_NOT_FOUND,
 *  F2B_ERR_IO, F2B_ERR_MEMORY. */
F2B_MUST_USE f2b_status f2b_file_checksum_check(const char *path, const f2b_file_checksum *want);

#endif
