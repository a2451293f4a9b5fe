/* Checksums of files. See file_checksum.h. */
#include "checkpoints/file_checksum.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "checkpoints/file_internal.h"

f2b_status f2b_file_checksum_take(const char *path, f2b_file_checksum *out)
{
    const int fd = f2bi_file_open(path, &out->size);
    if (fd < 0) return f2b_last_status();
    const f2b_status status = f2bi_file_hash(fd, path, 0, 0, &out->size, out->xxh3_128);
    close(fd);
    return status;
}

f2b_status f2b_file_checksum_seal(const char *path, f2b_file_checksum *out)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return f2b_fail_errno(F2B_ERR_IO, "cannot open %s", path);
    /* The file goes to disk while it is hashed from the cache. */
    (void)sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    f2b_status status = f2bi_file_hash(fd, path, 0, 0, &out->size, out->xxh3_128);
    if (status == F2B_OK && fsync(fd) != 0)
        status = f2b_fail_errno(F2B_ERR_IO, "cannot write %s to disk", path);
    close(fd);
    return status;
}

f2b_status f2b_file_checksum_check(const char *path, const f2b_file_checksum *want)
{
    f2b_file_checksum have;
    const int fd = f2bi_file_open(path, &have.size);
    if (fd < 0) return f2b_last_status();
    f2b_status status = F2B_OK;
    if (have.size != want->size)
        status = f2b_fail(F2B_ERR_FORMAT, "%s has %" PRId64 " bytes, its manifest says %" PRId64,
                          path, have.size, want->size);
    if (status == F2B_OK) status = f2bi_file_hash(fd, path, 0, 0, &have.size, have.xxh3_128);
    if (status == F2B_OK && strcmp(have.xxh3_128, want->xxh3_128) != 0)
        status = f2b_fail(F2B_ERR_FORMAT, "%s is damaged: its XXH3-128 is %s, its manifest says %s",
                          path, have.xxh3_128, want->xxh3_128);
    close(fd);
    return status;
}
