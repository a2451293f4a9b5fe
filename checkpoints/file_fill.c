/* See file_fill.h. */
#include "checkpoints/file_fill.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "autograd/core/alloc.h"

enum { CHUNK = 1 << 20, TO_DISK = 16 << 20 };

/* ---- Hashing, by a thread of its own ---- */

typedef struct hasher {
    int fd;
    const char *path;
    const f2b_file_piece *pieces;
    int64_t n;
    f2b_file_checksum *sum;             /* its size is there */
    atomic_bool in_vain;                /* writing failed: no need to go on */
    f2b_error error;
} hasher;

/* What lies between pieces comes from the file. */
static f2b_status hash_between(const hasher *h, XXH3_state_t *hash, void *buffer, int64_t at, int64_t end)
{
    while (at < end) {
        const int64_t want = end - at < CHUNK ? end - at : CHUNK;
        const ssize_t n = pread(h->fd, buffer, (size_t)want, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return f2b_fail_errno(F2B_ERR_IO, "cannot read %s", h->path);
        if (n == 0) return f2b_fail(F2B_ERR_IO, "%s was cut off while it was written", h->path);
        XXH3_128bits_update(hash, buffer, (size_t)n);
        at += n;
    }
    return F2B_OK;
}

static void hash_piece(const hasher *h, XXH3_state_t *hash, const f2b_file_piece *p)
{
    for (int64_t done = 0; done < p->bytes && !atomic_load(&h->in_vain); done += CHUNK)
        XXH3_128bits_update(hash, (const char *)p->data + done,
                            (size_t)(p->bytes - done < CHUNK ? p->bytes - done : CHUNK));
}

static f2b_status hash_all(const hasher *h, XXH3_state_t *hash, void *buffer)
{
    int64_t at = 0;
    XXH3_128bits_reset(hash);
    for (int64_t i = 0; i < h->n; i++) {
        const f2b_file_piece *p = &h->pieces[i];
        F2B_CHECK(p->at >= at && p->bytes <= h->sum->size - p->at);
        F2B_TRY(hash_between(h, hash, buffer, at, p->at));
        hash_piece(h, hash, p);
        at = p->at + p->bytes;
    }
    F2B_TRY(hash_between(h, hash, buffer, at, h->sum->size));
    const XXH128_hash_t value = XXH3_128bits_digest(hash);
    snprintf(h->sum->xxh3_128, sizeof h->sum->xxh3_128, "%016" PRIx64 "%016" PRIx64,
             (uint64_t)value.high64, (uint64_t)value.low64);
    return F2B_OK;
}

static void *hash_beside(void *user)
{
    hasher *h = user;
    XXH3_state_t *hash = XXH3_createState();
    void *buffer = f2b_alloc_host(CHUNK, F2B_TAG_FILES);
    f2b_status status = F2B_ERR_MEMORY;
    if (buffer != NULL)
        status = hash != NULL ? hash_all(h, hash, buffer) : f2b_fail(status, "out of memory for a checksum");
    if (status != F2B_OK) f2b_error_take(&h->error);
    f2b_free(buffer);
    XXH3_freeState(hash);
    return NULL;
}

/* ---- Writing ---- */

static f2b_status write_piece(int fd, const char *path, const f2b_file_piece *p)
{
    for (int64_t done = 0; done < p->bytes;) {
        const int64_t left = p->bytes - done;
        const ssize_t n = pwrite(fd, (const char *)p->data + done, (size_t)(left < CHUNK ? left : CHUNK),
                                 (off_t)(p->at + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return f2b_fail_errno(F2B_ERR_IO, "cannot write %s", path);
        done += n;
    }
    return F2B_OK;
}

/* The disk works while the rest is written. */
static f2b_status write_all(int fd, const char *path, const f2b_file_piece *pieces, int64_t n)
{
    int64_t told = 0;
    for (int64_t i = 0; i < n; i++) {
        F2B_TRY(write_piece(fd, path, &pieces[i]));
        const int64_t end = pieces[i].at + pieces[i].bytes;
        if (end - told < TO_DISK) continue;
        (void)sync_file_range(fd, told, end - told, SYNC_FILE_RANGE_WRITE);
        told = end;
    }
    return F2B_OK;
}

static f2b_status fill(int fd, const char *path, const f2b_file_piece *pieces, int64_t n,
                       f2b_file_checksum *sum)
{
    struct stat info;
    if (fstat(fd, &info) != 0) return f2b_fail_errno(F2B_ERR_IO, "cannot read %s", path);
    sum->size = info.st_size;
    hasher h = { .fd = fd, .path = path, .pieces = pieces, .n = n, .sum = sum };
    pthread_t thread;
    const bool beside = pthread_create(&thread, NULL, hash_beside, &h) == 0;
    f2b_status status = write_all(fd, path, pieces, n);
    atomic_store(&h.in_vain, status != F2B_OK);
    if (beside) pthread_join(thread, NULL);
    else if (status == F2B_OK) hash_beside(&h);
    if (status == F2B_OK && h.error.code != F2B_OK) status = f2b_fail(h.error.code, "%s", h.error.text);
    if (status == F2B_OK && fsync(fd) != 0)
        status = f2b_fail_errno(F2B_ERR_IO, "cannot write %s to disk", path);
    return status;
}

f2b_status f2b_file_fill(const char *path, const f2b_file_piece *pieces, int64_t n, f2b_file_checksum *sum)
{
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return f2b_fail_errno(F2B_ERR_IO, "cannot open %s", path);
    const f2b_status status = fill(fd, path, pieces, n, sum);
    close(fd);
    return status;
}
