/* Room on the disk, opening, mapping and checksums. See file_internal.h for the contract. */
#include "checkpoints/file_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>
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

f2b_status f2bi_file_map(const char *path, int64_t least, const char *kind, const uint8_t **map,
                         int64_t *bytes)
{
    int64_t size;
    const int fd = f2bi_file_open(path, &size);
    if (fd < 0) return f2b_last_status();
    f2b_status status = F2B_OK;
    void *at = MAP_FAILED;
    if (size < least)
        status = f2b_fail(F2B_ERR_FORMAT, "%s: %lld bytes are no %s file; copy it again", path,
                          (long long)size, kind);
    else if ((at = mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, fd, 0)) == MAP_FAILED)
        status = f2b_fail_errno(F2B_ERR_IO, "cannot map %s", path);
    close(fd);
    if (status == F2B_OK) *map = at, *bytes = size;
    return status;
}

struct f2bi_hasher {
    XXH3_state_t *state;
    int64_t room;
    char buffer[];
};

f2bi_hasher *f2bi_hasher_new(int64_t buffer_bytes)
{
    f2bi_hasher *h = f2b_alloc_host(sizeof *h + (size_t)buffer_bytes, F2B_TAG_FILES);
    if (!h) return NULL;
    *h = (f2bi_hasher){ .state = XXH3_createState(), .room = buffer_bytes };
    if (h->state) {
        XXH3_128bits_reset(h->state);
        return h;
    }
    f2b_free(h);
    (void)f2b_fail(F2B_ERR_MEMORY, "out of memory for a checksum");
    return NULL;
}

void f2bi_hasher_free(f2bi_hasher *h)
{
    if (h) XXH3_freeState(h->state);
    f2b_free(h);
}

void f2bi_hasher_add(f2bi_hasher *h, const void *data, int64_t bytes)
{
    XXH3_128bits_update(h->state, data, (size_t)bytes);
}

f2b_status f2bi_hasher_read(f2bi_hasher *h, int fd, const char *path, int64_t *at, int64_t end)
{
    while (*at < end) {
        const int64_t want = end - *at < h->room ? end - *at : h->room;
        const ssize_t n = pread(fd, h->buffer, (size_t)want, (off_t)*at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return f2b_fail_errno(F2B_ERR_IO, "cannot read %s", path);
        if (n == 0) return F2B_OK;
        f2bi_hasher_add(h, h->buffer, n);
        *at += n;
    }
    return F2B_OK;
}

void f2bi_hasher_text(const f2bi_hasher *h, char text[F2BI_HASH_TEXT])
{
    const XXH128_hash_t value = XXH3_128bits_digest(h->state);
    snprintf(text, F2BI_HASH_TEXT, "%016" PRIx64 "%016" PRIx64, (uint64_t)value.high64,
             (uint64_t)value.low64);
}

f2b_status f2bi_file_hash(int fd, const char *path, int64_t skip, int64_t skip_bytes,
                          int64_t *size, char text[F2BI_HASH_TEXT])
{
    f2bi_hasher *h = f2bi_hasher_new(CHUNK);
    if (!h) return f2b_last_status();
    f2b_status status = F2B_OK;
    *size = 0;
    if (skip_bytes > 0) {
        status = f2bi_hasher_read(h, fd, path, size, skip);
        *size = skip + skip_bytes;
    }
    if (status == F2B_OK) status = f2bi_hasher_read(h, fd, path, size, INT64_MAX);
    if (status == F2B_OK) f2bi_hasher_text(h, text);
    f2bi_hasher_free(h);
    return status;
}
