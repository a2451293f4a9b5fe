/* See file_fill.h. */
#include "checkpoints/file_fill.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK = 1 << 20, TO_DISK = 16 << 20 };

/* ---- Hashing, by a thread of its own ---- */

typedef struct hashing {
    int fd;
    const char *path;
    const f2b_file_piece *pieces;
    int64_t n;
    f2b_file_checksum *sum;             /* its size is there */
    atomic_bool in_vain;                /* writing failed: no need to go on */
    f2b_error error;
} hashing;

/* What lies between pieces comes from the file. */
static f2b_status hash_between(const hashing *w, f2bi_hasher *h, int64_t at, int64_t end)
{
    F2B_TRY(f2bi_hasher_read(h, w->fd, w->path, &at, end));
    return at == end ? F2B_OK : f2b_fail(F2B_ERR_IO, "%s was cut off while it was written", w->path);
}

static void hash_piece(const hashing *w, f2bi_hasher *h, const f2b_file_piece *p)
{
    for (int64_t done = 0; done < p->bytes && !atomic_load(&w->in_vain); done += CHUNK)
        f2bi_hasher_add(h, (const char *)p->data + done, p->bytes - done < CHUNK ? p->bytes - done : CHUNK);
}

static f2b_status hash_all(const hashing *w, f2bi_hasher *h)
{
    int64_t at = 0;
    for (int64_t i = 0; i < w->n; i++) {
        const f2b_file_piece *p = &w->pieces[i];
        F2B_CHECK(p->at >= at && p->bytes <= w->sum->size - p->at);
        F2B_TRY(hash_between(w, h, at, p->at));
        hash_piece(w, h, p);
        at = p->at + p->bytes;
    }
    F2B_TRY(hash_between(w, h, at, w->sum->size));
    f2bi_hasher_text(h, w->sum->xxh3_128);
    return F2B_OK;
}

static void *hash_beside(void *user)
{
    hashing *w = user;
    f2bi_hasher *h = f2bi_hasher_new(CHUNK);
    if (h == NULL || hash_all(w, h) != F2B_OK) f2b_error_take(&w->error);
    f2bi_hasher_free(h);
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
    hashing w = { .fd = fd, .path = path, .pieces = pieces, .n = n, .sum = sum };
    pthread_t thread;
    const bool beside = pthread_create(&thread, NULL, hash_beside, &w) == 0;
    f2b_status status = write_all(fd, path, pieces, n);
    atomic_store(&w.in_vain, status != F2B_OK);
    if (beside) pthread_join(thread, NULL);
    else if (status == F2B_OK) hash_beside(&w);
    if (status == F2B_OK && w.error.code != F2B_OK) status = f2b_fail(w.error.code, "%s", w.error.text);
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
