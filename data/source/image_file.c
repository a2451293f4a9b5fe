/*
 * Image files below a folder. Names come from data that others wrote: one that leads out of the
 * folder, by `..`, an absolute path or a link, is refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "autograd/core/alloc.h"
#include "data/source/source_internal.h"

bool f2bi_is_image_extension(const char *extension)
{
    static const char *const known[] = { "jpg", "jpeg", "png", "webp", "gif",
                                         "bmp", "ppm",  "pgm", "pnm" };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcasecmp(extension, known[i]) == 0) return true;
    return false;
}

static bool has_parent(const char *name)
{
    for (const char *p = name; (p = strstr(p, "..")) != NULL; p += 2) {
        const bool begins = p == name || p[-1] == '/', ends = p[2] == '\0' || p[2] == '/';
        if (begins && ends) return true;
    }
    return false;
}

/* Running out of descriptors or memory, or a failing disk, says nothing about the record. */
static bool is_systems_fault(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM || error == EIO;
}

/* The file without links, or NULL with the status or a fault (malloc: free with free). */
static char *resolve(const char *images, f2b_record *r, f2b_status *status)
{
    if (strstr(r->image, "://") != NULL) {
        f2b_record_fail(r, F2B_FAULT_IMAGE_MISSING,
                        "%.200s is an address: download the images first", r->image);
        return NULL;
    }
    if (r->image[0] == '\0' || r->image[0] == '/' || has_parent(r->image)) {
        f2b_record_fail(r, F2B_FAULT_IMAGE_NAME, "%.200s", r->image);
        return NULL;
    }
    char *joined = f2b_sprintf(F2B_TAG_DATA, "%s/%s", images, r->image);
    if (joined == NULL) {
        *status = F2B_ERR_MEMORY;
        return NULL;
    }
    char *real = realpath(joined, NULL);
    const size_t n = strlen(images);
    if (real == NULL && is_systems_fault(errno)) {
        *status = f2b_fail_errno(F2B_ERR_IO, "%s", joined);
    } else if (real == NULL) {
        f2b_record_fail(r, F2B_FAULT_IMAGE_MISSING, "%.200s: %s", r->image, strerror(errno));
    } else if (strncmp(real, images, n) != 0 || (real[n] != '/' && strcmp(images, "/") != 0)) {
        f2b_record_fail(r, F2B_FAULT_IMAGE_NAME,
                        "%.200s is a link that leads out of the image folder", r->image);
        free(real);
        real = NULL;
    }
    f2b_free(joined);
    return real;
}

static f2b_status read_whole(const char *path, int fd, f2b_record *r, uint8_t **bytes, int64_t *n)
{
    struct stat st;
    if (fstat(fd, &st) != 0) return f2b_fail_errno(F2B_ERR_IO, "%s", path);
    if (!S_ISREG(st.st_mode)) {
        f2b_record_fail(r, F2B_FAULT_IMAGE_BROKEN, "%.200s is not a regular file", r->image);
    } else if (st.st_size == 0 || st.st_size > F2B_IMAGE_MAX_FILE_BYTES) {
        f2b_record_fail(r, F2B_FAULT_IMAGE_BROKEN, "%.200s has %lld bytes", r->image,
                        (long long)st.st_size);
    } else {
        *bytes = (uint8_t *)f2bi_read_range(fd, path, 0, (uint64_t)st.st_size, n);
        if (*bytes == NULL) return f2b_last_status();
    }
    return F2B_OK;
}

f2b_status f2bi_image_file(const char *images, f2b_record *record, uint8_t **bytes, int64_t *n)
{
    f2b_status status = F2B_OK;
    char *path = resolve(images, record, &status);
    if (path == NULL) return status;
    /* NONBLOCK: opening a pipe that someone put there must not wait for its writer. */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0) {
        status = read_whole(path, fd, record, bytes, n);
        close(fd);
    } else if (is_systems_fault(errno)) {
        status = f2b_fail_errno(F2B_ERR_IO, "%s", path);
    } else {
        f2b_record_fail(record, F2B_FAULT_IMAGE_MISSING, "%.200s: %s", record->image,
                        strerror(errno));
    }
    free(path);
    return status;
}
