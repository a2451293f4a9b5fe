/* Files for the tests of sources and loader: a temporary folder, texts, tar archives. */
#ifndef F2B_TESTS_DATA_DATA_FIXTURES_H
#define F2B_TESTS_DATA_DATA_FIXTURES_H

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "autograd/core/alloc.h"

static char fixture_folder[256];

static inline int fixture_begin(void **state)
{
    (void)state;
    snprintf(fixture_folder, sizeof fixture_folder, "%s/f2b_data_XXXXXX",
             getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
    return mkdtemp(fixture_folder) == NULL;
}

static inline int fixture_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static inline int fixture_end(void **state)
{
    (void)state;
    return nftw(fixture_folder, fixture_remove, 16, FTW_DEPTH | FTW_PHYS);
}

/* Path of a file of the folder; one of a few rotating buffers. */
static inline char *fixture_path(const char *name)
{
    static char paths[8][512];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", fixture_folder, name);
    return path;
}

static inline const char *fixture_write(const char *name, const void *bytes, size_t n)
{
    const char *path = fixture_path(name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
    return path;
}

static inline const char *fixture_text(const char *name, const char *text)
{
    return fixture_write(name, text, strlen(text));
}

static inline char *fixture_read(const char *path, size_t *n)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) return NULL;
    fseek(file, 0, SEEK_END);
    *n = (size_t)ftell(file);
    rewind(file);
    char *bytes = malloc(*n + 1);
    assert_int_equal(fread(bytes, 1, *n, file), *n);
    bytes[*n] = '\0';
    fclose(file);
    return bytes;
}

/* A tar archive in memory. */
typedef struct fixture_tar {
    char bytes[1 << 16];
    size_t n;
} fixture_tar;

static inline char *tar_header(fixture_tar *t, const char *name, size_t size, char type)
{
    assert_true(t->n + 2048 + size < sizeof t->bytes);
    char *h = memset(t->bytes + t->n, 0, 512);
    memcpy(h, name, strnlen(name, 100));
    memcpy(h + 100, "0000644", 8);
    snprintf(h + 124, 12, "%011o", (unsigned)size & 0777777u);
    memcpy(h + 136, "00000000000", 12);
    h[156] = type;
    memcpy(h + 257, "ustar\00000", 8);
    t->n += 512;
    return h;
}

static inline void tar_seal(char *h)
{
    unsigned sum = 0;
    memset(h + 148, ' ', 8);
    for (int i = 0; i < 512; i++) sum += (unsigned char)h[i];
    snprintf(h + 148, 7, "%06o", sum & 0777777u);
}

static inline void tar_data(fixture_tar *t, const void *data, size_t size)
{
    const size_t padded = (size + 511) / 512 * 512;
    memset(t->bytes + t->n, 0, padded);
    memcpy(t->bytes + t->n, data, size);
    t->n += padded;
}

static inline void tar_add(fixture_tar *t, const char *name, const char *data, char type)
{
    tar_seal(tar_header(t, name, strlen(data), type));
    tar_data(t, data, strlen(data));
}

/* A PAX extended header with one record, its length counted in. */
static inline void tar_pax(fixture_tar *t, const char *key, const char *value, char type)
{
    char record[8192];
    for (size_t total = strlen(key) + strlen(value) + 4;; total++) {
        const int n = snprintf(record, sizeof record, "%zu %s=%s\n", total, key, value);
        if ((size_t)n == total) break;
    }
    tar_add(t, "PaxHeader", record, type);
}

static inline const char *tar_write(fixture_tar *t, const char *name)
{
    memset(t->bytes + t->n, 0, 1024);
    return fixture_write(name, t->bytes, t->n + 1024);
}

#endif
