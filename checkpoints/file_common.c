/* Room on the disk and checksums. See file_internal.h for the contract. */
#include "checkpoints/file_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "autograd/core/alloc.h"

enum { CHUNK = 4 << 20 };

f2b_status f2bi_file_reserve(const char *path, int64_t bytes)
{
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return f2b_fail_errno(F2B_ERR_IO, "cannot open %s", path);
    const int failed = fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, bytes) != 0
                    && (errno == ENOSPC || errno == EDQUOT);
    const f2b_status status =
        failed ? f2b_fail_errno(F2B_ERR_IO, "cannot write %s (%lld MB)", path,
                                (long long)(bytes >> 20)) : F2B_OK;
    close(fd);
    return status;
}

f2b_status f2bi_file_trim(const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0 || truncate(path, info.st_size) != 0)
        return f2b_fail_errno(F2B_ERR_IO, "cannot write %s", path);
    return F2B_OK;
}

int f2bi_file_open(const char *path, int64_t *size)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        (void)f2b_fail_errno(errno == ENOENT ? F2B_ERR_NOT_FOUND : F2B_ERR_IO, "cannot open %s",
                             path);
        return -1;
    }
    struct stat info;
    if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode)) {
        *size = info.st_size;
        return fd;
    }
    (void)f2b_fail(F2B_ERR_FORMAT, "%s is not a regular file", path);
    close(fd);
    return -1;
}

/* Up to `end` (-1: the end of the file), by and by; *at is where it got to. */
static f2b_status hash_part(int fd, const char *path, int64_t *at, int64_t end, void *buffer,
                            XXH3_state_t *hash)
{
    while (end < 0 || *at < end) {
        const int64_t want = end < 0 || end - *at > CHUNK ? CHUNK : end - *at;
        const ssize_t n = pread(fd, buffer, (size_t)want, (off_t)*at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return f2b_fail_errno(F2B_ERR_IO, "cannot read %s", path);
        if (n == 0) return F2B_OK;
        XXH3_128bits_update(hash, buffer, (size_t)n);
        *at += n;
    }
    return F2B_OK;
}

f2b_status f2bi_file_hash(int fd, const char *path, int64_t skip, int64_t skip_bytes,
                          int64_t *size, char text[F2BI_HASH_TEXT])
{
    void *buffer = f2b_alloc_host(CHUNK, F2B_TAG_FILES);
    if (!buffer) return f2b_last_status();
    XXH3_state_t *hash = XXH3_createState();
    f2b_status status =
        hash ? F2B_OK : f2b_fail(F2B_ERR_MEMORY, "out of memory for a checksum");
    *size = 0;
    if (hash) XXH3_128bits_reset(hash);
    if (status == F2B_OK && skip_bytes > 0) {
        status = hash_part(fd, path, size, skip, buffer, hash);
        *size = skip + skip_bytes;
    }
    if (status == F2B_OK) status = hash_part(fd, path, size, -1, buffer, hash);
    if (status == F2B_OK) {
        const XXH128_hash_t h = XXH3_128bits_digest(hash);
        snprintf(text, F2BI_HASH_TEXT, "%016" PRIx64 "%016" PRIx64, (uint64_t)h.high64,
                 (uint64_t)h.low64);
    }
    XXH3_freeState(hash);
    f2b_free(buffer);
    return status;
}
