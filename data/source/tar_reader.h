/*
 * Tar headers: POSIX ustar, PAX extended headers (path, size), GNU long names, base-256 sizes.
 * Reads headers only, at any offset; the archive's content stays where it is.
 */
#ifndef F2B_DATA_SOURCE_TAR_READER_H
#define F2B_DATA_SOURCE_TAR_READER_H

#include <stdbool.h>
#include <stdint.h>

#include "autograd/core/status.h"

enum { F2BI_TAR_MAX_NAME = 4095 };

typedef struct f2bi_tar_member {
    char name[F2BI_TAR_MAX_NAME + 1];
    bool regular;               /* a file; not a folder, a link or a device */
    int64_t header;             /* where the member begins, with its extended headers */
    int64_t data, size;         /* where its bytes lie */
    int64_t next;               /* where the next member begins */
} f2bi_tar_member;

/*
 * The member that begins at `offset` of an archive of `bytes` bytes. *end: there is none, the
 * archive ends here as it should (two zero blocks, or the end of the file between members).
 * errors  F2B_ERR_FORMAT: damaged or cut off at `offset`; F2B_ERR_IO.
 * source  POSIX.1-2017 pax, "pax Interchange Format"; GNU tar manual, "Basic Tar Format".
 */
f2b_status f2bi_tar_read(int fd, const char *path, int64_t bytes, int64_t offset,
                         f2bi_tar_member *member, bool *end) F2B_MUST_USE;

#endif
