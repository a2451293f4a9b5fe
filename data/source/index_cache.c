/*
 * Cached indices: the columns of a large source in one file, named by a fingerprint of the source's
 * files (paths, sizes, times). Layout, little-endian as in memory: magic, fingerprint, lengths of
 * the columns, the columns, XXH3-128 of all before it. Whatever does not fit is no cache.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "autograd/core/alloc.h"
#include "data/source/source_internal.h"

static const char magic[8] = "F2BIDX01";

typedef struct head {
    char magic[8];
    XXH128_hash_t fingerprint;
    uint64_t lengths[F2BI_COLUMNS];
} head;

static bool fingerprint(const f2b_source *s, XXH128_hash_t *out)
{
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL) return false;
    XXH3_128bits_reset(state);
    XXH3_128bits_update(state, s->format->text, strlen(s->format->text));
    bool there = true;
    for (int64_t i = 0; i < s->n_paths && there; i++) {
        struct stat st;
        char *real = realpath(s->paths[i], NULL);
        there = real != NULL && stat(real, &st) == 0;
        if (there) {
            const int64_t facts[] = { st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
                                      (int64_t)st.st_ino };
            XXH3_128bits_update(state, real, strlen(real) + 1);
            XXH3_128bits_update(state, facts, sizeof facts);
        }
        free(real);
    }
    *out = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    return there;
}

static char *cache_path(const char *folder, XXH128_hash_t f, const char *suffix)
{
    return f2b_sprintf(F2B_TAG_DATA, "%s/%016llx%016llx.index%s", folder,
                       (unsigned long long)f.high64, (unsigned long long)f.low64, suffix);
}

static bool read_columns(FILE *file, f2b_source *s, const XXH128_hash_t *expected)
{
    head h;
    struct stat st;
    if (fstat(fileno(file), &st) != 0 || fread(&h, sizeof h, 1, file) != 1 ||
        memcmp(h.magic, magic, sizeof magic) != 0 ||
        !XXH128_isEqual(h.fingerprint, *expected))
        return false;
    const uint64_t room = (uint64_t)st.st_size / sizeof(uint64_t);
    XXH3_state_t *state = XXH3_createState();
    bool good = state != NULL;
    if (good) {
        XXH3_128bits_reset(state);
        XXH3_128bits_update(state, &h, sizeof h);
    }
    for (int i = 0; i < F2BI_COLUMNS && good; i++) {
        f2bi_column *c = &s->columns[i];
        good = h.lengths[i] <= room;                /* before it decides an allocation */
        const size_t n = good ? (size_t)h.lengths[i] : 0;
        c->at = good ? f2b_alloc_host(n * sizeof *c->at, F2B_TAG_DATA) : NULL;
        good = c->at != NULL && fread(c->at, sizeof *c->at, n, file) == n;
        if (good) XXH3_128bits_update(state, c->at, n * sizeof *c->at);
        c->n = c->capacity = (int64_t)n;
    }
    XXH128_hash_t stored;
    good = good && fread(&stored, sizeof stored, 1, file) == 1 && fgetc(file) == EOF &&
           XXH128_isEqual(stored, XXH3_128bits_digest(state));
    XXH3_freeState(state);
    return good;
}

bool f2bi_cache_load(f2b_source *s, const char *folder)
{
    XXH128_hash_t expected;
    if (!fingerprint(s, &expected)) return false;
    char *path = cache_path(folder, expected, "");
    FILE *file = path != NULL ? fopen(path, "rbe") : NULL;
    const bool good = file != NULL && read_columns(file, s, &expected);
    if (file != NULL) fclose(file);
    f2b_free(path);
    for (int i = 0; i < F2BI_COLUMNS && !good; i++) {
        f2b_free(s->columns[i].at);
        s->columns[i] = (f2bi_column){ 0 };
    }
    if (!good) f2b_clear_error();
    return good;
}

static bool write_columns(FILE *file, const f2b_source *s, const XXH128_hash_t *print)
{
    head h = { .fingerprint = *print };
    memcpy(h.magic, magic, sizeof magic);
    for (int i = 0; i < F2BI_COLUMNS; i++) h.lengths[i] = (uint64_t)s->columns[i].n;
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL) return false;
    XXH3_128bits_reset(state);
    XXH3_128bits_update(state, &h, sizeof h);
    bool good = fwrite(&h, sizeof h, 1, file) == 1;
    for (int i = 0; i < F2BI_COLUMNS && good; i++) {
        const f2bi_column *c = &s->columns[i];
        if (c->n == 0) continue;
        good = fwrite(c->at, sizeof *c->at, (size_t)c->n, file) == (size_t)c->n;
        XXH3_128bits_update(state, c->at, (size_t)c->n * sizeof *c->at);
    }
    const XXH128_hash_t sum = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    return good && fwrite(&sum, sizeof sum, 1, file) == 1;
}

static bool make_folders(const char *folder)
{
    char *path = f2b_strdup(folder, F2B_TAG_DATA);
    if (path == NULL) return false;
    for (char *p = path + 1; *p != '\0'; p++) {
        if (*p != '/') continue;
        *p = '\0';
        mkdir(path, 0777);
        *p = '/';
    }
    const bool there = mkdir(path, 0777) == 0 || errno == EEXIST;
    f2b_free(path);
    return there;
}

void f2bi_cache_save(const f2b_source *s, const char *folder)
{
    XXH128_hash_t print;
    if (!make_folders(folder) || !fingerprint(s, &print)) return;
    char suffix[32];
    snprintf(suffix, sizeof suffix, ".%ld", (long)getpid());
    char *path = cache_path(folder, print, ""), *beside = cache_path(folder, print, suffix);
    FILE *file = path != NULL && beside != NULL ? fopen(beside, "wbe") : NULL;
    if (file != NULL) {
        const bool written = write_columns(file, s, &print);
        const bool closed = fclose(file) == 0;
        if (!written || !closed || rename(beside, path) != 0) remove(beside);
    }
    f2b_free(path);
    f2b_free(beside);
    f2b_clear_error();
}
