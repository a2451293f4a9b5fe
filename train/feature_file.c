/*
 * One image's file of a feature cache: read and verified, or written so that it is there in full or not
 * at all. See feature_cache.h.
 *
 * Writing. The rows go to "<name>.partial", under a lock on that file that dies with its writer, and are
 * renamed under the same lock; another process that meets the lock leaves the image to its holder. What
 * a killed writer left is overwritten by the next. There is no sync: after a power cut a file may be
 * empty or short, which the checksum finds.
 */
#include "train/feature_cache_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

enum { BLOCK = 1 << 16, NAMED_FAULTS = 10 };

typedef struct head {
    char magic[8];
    uint8_t fingerprint[F2BI_FINGERPRINT_BYTES], image[F2B_CONTENT_HASH_BYTES];
    int64_t rows, width, type;
    XXH128_canonical_t sum;             /* of all before and of the rows */
} head;

_Static_assert(sizeof(head) == 80, "the file's layout");

int64_t f2bi_feature_head_bytes(void) { return (int64_t)sizeof(head); }

static head head_of(const f2b_feature_cache *c, const uint8_t *hash)
{
    head h = { .magic = { 'F', '2', 'B', 'F', 'E', 'A', 'T', '1' }, .rows = c->shape.rows,
               .width = c->shape.width, .type = (int64_t)c->shape.type };
    memcpy(h.fingerprint, c->fingerprint, sizeof h.fingerprint);
    memcpy(h.image, hash, sizeof h.image);
    return h;
}

/* "PATH/ab/cdef....features" + suffix; f2b_free. */
static char *file_name(const f2b_feature_cache *c, const uint8_t *hash, const char *suffix)
{
    char hex[2 * F2B_CONTENT_HASH_BYTES + 1];
    f2bi_hex(hash, F2B_CONTENT_HASH_BYTES, hex);
    return f2b_sprintf(F2B_TAG_OTHER, "%s/%.2s/%s.features%s", c->path, hex, hex + 2, suffix);
}

/* ---- Reading ---- */

static bool read_all(int fd, void *to, size_t bytes)
{
    for (char *at = to; bytes > 0;) {
        const ssize_t n = read(fd, at, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        at += n, bytes -= (size_t)n;
    }
    return true;
}

/* The rows, into `rows` or nowhere, added to the sum. */
static bool read_rows(int fd, size_t bytes, char *rows, XXH3_state_t *state)
{
    char block[BLOCK];
    for (size_t n; bytes > 0; bytes -= n) {
        n = bytes < BLOCK ? bytes : BLOCK;
        char *to = rows != NULL ? rows : block;
        if (!read_all(fd, to, n)) return false;
        XXH3_128bits_update(state, to, n);
        if (rows != NULL) rows += n;
    }
    return true;
}

/* NULL where all is sound, or what is wrong. */
static const char *read_file(const f2b_feature_cache *c, int fd, const uint8_t *hash, char *rows)
{
    struct stat st;
    head expected = head_of(c, hash), h;
    if (fstat(fd, &st) != 0) return strerror(errno);
    if (!S_ISREG(st.st_mode)) return "it is not a regular file";
    if (st.st_size != c->shape.file_bytes) return "it has another size";
    if (!read_all(fd, &h, sizeof h)) return "it cannot be read";
    if (memcmp(&h, &expected, offsetof(head, sum)) != 0) return "it is of another image or tower";
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL) return "there is no memory to check it";
    XXH3_128bits_reset(state);
    XXH3_128bits_update(state, &h, offsetof(head, sum));
    const bool read = read_rows(fd, (size_t)c->shape.file_bytes - sizeof h, rows, state);
    XXH128_canonical_t sum;
    XXH128_canonicalFromHash(&sum, XXH3_128bits_digest(state));
    XXH3_freeState(state);
    if (!read) return "it cannot be read";
    return memcmp(&sum, &h.sum, sizeof sum) == 0 ? NULL : "its checksum is wrong";
}

/* A damaged file makes room for a sound one. */
static void remove_damaged(f2b_feature_cache *c, const char *path, const char *why)
{
    char text[8192];
    pthread_mutex_lock(&c->lock);
    const int64_t n = ++c->damaged;
    pthread_mutex_unlock(&c->lock);
    (void)unlink(path);
    if (n > NAMED_FAULTS) return;
    snprintf(text, sizeof text, "feature cache: %s is damaged (%s); it is made anew%s", path, why,
             n == NAMED_FAULTS ? ". Further ones are not named" : "");
    c->options.note(c->options.user, text);
}

static bool take(f2b_feature_cache *c, const uint8_t *hash, void *rows)
{
    char *path = file_name(c, hash, "");
    if (path == NULL) {
        f2b_clear_error();
        return false;
    }
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    const char *wrong = fd >= 0 ? read_file(c, fd, hash, rows) : NULL;
    if (fd >= 0) close(fd);
    if (wrong != NULL) remove_damaged(c, path, wrong);
    f2b_free(path);
    return fd >= 0 && wrong == NULL;
}

bool f2b_feature_cache_knows(void *cache, const uint8_t hash[F2B_CONTENT_HASH_BYTES])
{
    return take(cache, hash, NULL);
}

bool f2b_feature_cache_load(f2b_feature_cache *c, const uint8_t hash[F2B_CONTENT_HASH_BYTES],
                            void *rows)
{
    return take(c, hash, rows);
}

/* ---- Writing ---- */

static bool write_all(int fd, const void *from, size_t bytes)
{
    for (const char *at = from; bytes > 0;) {
        const ssize_t n = write(fd, at, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return false;
        at += n, bytes -= (size_t)n;
    }
    return true;
}

/* The partial file, locked and empty: a descriptor; -1 with errno; -2 where another process has it. */
static int open_partial(const char *partial)
{
    int fd = open(partial, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0 && errno == ENOENT) {            /* the first image of its part */
        char folder[4096];
        snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(partial, '/') - partial), partial);
        if (mkdir(folder, 0777) != 0 && errno != EEXIST) return -1;
        fd = open(partial, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    }
    if (fd < 0) return -1;
    struct stat locked, named;
    const bool busy = flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    /* Between open and lock the holder may have renamed this very file into place. */
    if (busy || fstat(fd, &locked) != 0 || stat(partial, &named) != 0 ||
        locked.st_ino != named.st_ino || locked.st_dev != named.st_dev) {
        close(fd);
        return -2;
    }
    if (ftruncate(fd, 0) == 0) return fd;
    const int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static bool write_file(const f2b_feature_cache *c, const uint8_t *hash, const void *rows,
                       const char *partial, const char *path)
{
    const size_t bytes = (size_t)c->shape.file_bytes - sizeof(head);
    head h = head_of(c, hash);
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL) {
        errno = ENOMEM;
        return false;
    }
    XXH3_128bits_reset(state);
    XXH3_128bits_update(state, &h, offsetof(head, sum));
    XXH3_128bits_update(state, rows, bytes);
    XXH128_canonicalFromHash(&h.sum, XXH3_128bits_digest(state));
    XXH3_freeState(state);
    const int fd = open_partial(partial);
    if (fd < 0) return fd == -2;
    const bool written = write_all(fd, &h, sizeof h) && write_all(fd, rows, bytes) &&
                         rename(partial, path) == 0;
    const int error = errno;
    if (!written) (void)unlink(partial);
    (void)close(fd);
    errno = error;
    return written;
}

/* Said once: a run of a week is not to stop, nor to fill its log, for want of a cache. */
static void give_up(f2b_feature_cache *c, int error)
{
    char text[8192];
    pthread_mutex_lock(&c->lock);
    const bool before = c->full;
    c->full = true;
    pthread_mutex_unlock(&c->lock);
    if (before) return;
    snprintf(text, sizeof text, "feature cache %s cannot be written (%s); training goes on without "
             "writing to it", c->path, strerror(error));
    c->options.note(c->options.user, text);
}

void f2b_feature_cache_store(f2b_feature_cache *c, const uint8_t hash[F2B_CONTENT_HASH_BYTES],
                             const void *rows)
{
    pthread_mutex_lock(&c->lock);
    const bool full = c->full;
    pthread_mutex_unlock(&c->lock);
    if (full) return;
    char *path = file_name(c, hash, ""), *partial = file_name(c, hash, ".partial");
    if (path == NULL || partial == NULL) {
        f2b_clear_error();
        give_up(c, ENOMEM);
    } else if (!write_file(c, hash, rows, partial, path)) {
        give_up(c, errno);
    }
    f2b_free(path);
    f2b_free(partial);
}
