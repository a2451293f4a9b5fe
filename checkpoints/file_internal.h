/* What writers and readers of large files share: room on the disk, opening, mapping, checksums. */
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

/** The same, mapped for reading; munmap(*map, *bytes) ends it. One of less than `least` bytes is no file of
 *  this kind ("safetensors"). errors: those above, F2B_ERR_FORMAT. */
F2B_MUST_USE f2b_status f2bi_file_map(const char *path, int64_t least, const char *kind,
                                      const uint8_t **map, int64_t *bytes);

/** An XXH3-128 that is being taken, with a buffer to read files through. NULL when out of memory. */
typedef struct f2bi_hasher f2bi_hasher;
f2bi_hasher *f2bi_hasher_new(int64_t buffer_bytes);
void f2bi_hasher_free(f2bi_hasher *h);

/** Add bytes in memory. */
void f2bi_hasher_add(f2bi_hasher *h, const void *data, int64_t bytes);

/** Add an open file's bytes [*at, end), or those up to its end where it is shorter; *at moves on to where
 *  it got to. errors: F2B_ERR_IO. */
F2B_MUST_USE f2b_status f2bi_hasher_read(f2bi_hasher *h, int fd, const char *path, int64_t *at,
                                         int64_t end);

/** What all that was added hashes to. */
void f2bi_hasher_text(const f2bi_hasher *h, char text[F2BI_HASH_TEXT]);

/**
 * XXH3-128 of an open file from its start, without the bytes [skip, skip + skip_bytes).
 * *size gets how many bytes the file has, those left out among them.
 */
F2B_MUST_USE f2b_status f2bi_file_hash(int fd, const char *path, int64_t skip, int64_t skip_bytes,
                                       int64_t *size, char text[F2BI_HASH_TEXT]);

#endif
