/* What writers and readers of large files share: room on the disk, checksums. */
#ifndef F2B_CHECKPOINTS_FILE_INTERNAL_H
#define F2B_CHECKPOINTS_FILE_INTERNAL_H

#include <stdint.h>

#include "autograd/core/status.h"

enum { F2BI_HASH_TEXT = 33 };           /* XXH3-128 in hex digits, with the closing zero */

/** Ask for room for a file that is there. errors: F2B_ERR_IO (a full disk); where a file system
 *  cannot reserve, the writes themselves will tell. */
F2B_MUST_USE f2b_status f2bi_file_reserve(const char *path, int64_t bytes);

/** Give back what was reserved beyond the end. */
F2B_MUST_USE f2b_status f2bi_file_trim(const char *path);

/** A regular file for reading (a FIFO does not hang us), and its size; -1 with F2B_ERR_NOT_FOUND,
 *  F2B_ERR_IO or F2B_ERR_FORMAT (not a regular file). */
int f2bi_file_open(const char *path, int64_t *size);

/**
 * XXH3-128 of an open file from its start, without the bytes [skip, skip + skip_bytes).
 * *size gets how many bytes the file has, those left out among them.
 */
F2B_MUST_USE f2b_status f2bi_file_hash(int fd, const char *path, int64_t skip, int64_t skip_bytes,
                                       int64_t *size, char text[F2BI_HASH_TEXT]);

#endif
