/* See npy.h. */
#include "data/npy/npy.h"

#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>

#include "autograd/core/alloc.h"

enum { MAX_DIMS = 8, ALIGN = 64 };

struct f2b_npy_writer {
    FILE *file;
    char *path;
    int64_t size, left;         /* bytes an element; elements still to come */
    bool failed;
};

static const struct { const char *descr; int64_t size; } types[] = {
    [F2B_NPY_F32] = { "<f4", 4 },
    [F2B_NPY_I32] = { "<i4", 4 },
    [F2B_NPY_I64] = { "<i8", 8 },
};

/* The number of elements, or -1 if the shape is no shape or its bytes overflow. */
static int64_t count(const int64_t *shape, int dims, int64_t size)
{
    int64_t n = 1, bytes;
    if (dims < 0 || dims > MAX_DIMS) return -1;
    for (int i = 0; i < dims; i++) {
        if (shape[i] < 0 || __builtin_mul_overflow(n, shape[i], &n)) return -1;
    }
    return __builtin_mul_overflow(n, size, &bytes) ? -1 : n;
}

/* Magic, version 1.0, u16 length, then a Python literal padded so that the data are 64-byte aligned. */
static bool write_header(FILE *file, const char *descr, const int64_t *shape, int dims)
{
    char text[320];
    int n = snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': (", descr);
    for (int i = 0; i < dims; i++) {
        n += snprintf(text + n, sizeof text - (size_t)n, dims == 1 ? "%lld," : i ? ", %lld" : "%lld",
                      (long long)shape[i]);
    }
    n += snprintf(text + n, sizeof text - (size_t)n, "), }");
    while ((10 + n + 1) % ALIGN != 0) text[n++] = ' ';
    text[n++] = '\n';
    const uint8_t start[10] = { 0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (uint8_t)n, (uint8_t)(n >> 8) };
    return fwrite(start, 1, sizeof start, file) == sizeof start
           && fwrite(text, 1, (size_t)n, file) == (size_t)n;
}

f2b_npy_writer *f2b_npy_begin(const char *path, f2b_npy_type type, const int64_t *shape, int dims)
{
    const int64_t elements = count(shape, dims, types[type].size);
    F2B_RETURN_NULL_IF(elements < 0, F2B_ERR_INVALID, "%s: not a shape that an array can have", path);
    f2b_npy_writer *w = f2b_calloc(1, sizeof *w, F2B_TAG_FILES);
    if (w == NULL) return NULL;
    w->size = types[type].size, w->left = elements;
    w->path = f2b_strdup(path, F2B_TAG_FILES);
    if (w->path != NULL) {
        w->file = fopen(path, "wb");
        if (w->file == NULL) (void)f2b_fail_errno(F2B_ERR_IO, "%s: cannot write the array", path);
    }
    if (w->file == NULL) {
        f2b_free(w->path);
        f2b_free(w);
        return NULL;
    }
    w->failed = !write_header(w->file, types[type].descr, shape, dims);
    return w;
}

f2b_status f2b_npy_append(f2b_npy_writer *w, const void *data, int64_t elements)
{
    if (elements < 0 || elements > w->left) {
        w->failed = true;
        return f2b_fail(F2B_ERR_INVALID, "%s: more elements than its shape has", w->path);
    }
    w->left -= elements;
    const size_t n = (size_t)elements;
    if (n == 0 || fwrite(data, (size_t)w->size, n, w->file) == n) return F2B_OK;
    w->failed = true;
    return f2b_fail_errno(F2B_ERR_IO, "%s: cannot write the array", w->path);
}

f2b_status f2b_npy_end(f2b_npy_writer *w)
{
    if (w == NULL) return F2B_OK;
    f2b_status status = F2B_OK;
    struct stat about;
    const bool regular = fstat(fileno(w->file), &about) == 0 && S_ISREG(about.st_mode);
    if (fclose(w->file) != 0) {
        status = f2b_fail_errno(F2B_ERR_IO, "%s: cannot write the array", w->path);
    } else if (w->failed) {
        status = f2b_fail(F2B_ERR_IO, "%s: the array could not be written as a whole", w->path);
    } else if (w->left != 0) {
        status = f2b_fail(F2B_ERR_INVALID, "%s: %lld elements fewer than its shape has", w->path,
                          (long long)w->left);
    }
    if (status != F2B_OK && regular) (void)remove(w->path);     /* never a device such as /dev/full */
    f2b_free(w->path);
    f2b_free(w);
    return status;
}

f2b_status f2b_npy_write(const char *path, f2b_npy_type type, const int64_t *shape, int dims,
                         const void *data)
{
    f2b_npy_writer *w = f2b_npy_begin(path, type, shape, dims);
    if (w == NULL) return f2b_last_status();
    const f2b_status status = f2b_npy_append(w, data, w->left);
    const f2b_status end = f2b_npy_end(w);
    return status != F2B_OK ? status : end;
}
