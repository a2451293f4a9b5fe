/*
 * Opening a source: which format it is, its index (from the cache or built), its image folder.
 * See source.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>
#include <xxhash.h>

#include "autograd/core/alloc.h"
#include "data/source/source_internal.h"

f2b_status f2bi_column_push(f2bi_column *column, uint64_t value)
{
    if (column->n == column->capacity) {
        const int64_t capacity = column->capacity < 1024 ? 1024 : column->capacity / 2 * 3;
        uint64_t *grown = f2b_realloc(column->at, (size_t)capacity * sizeof *grown, F2B_TAG_DATA);
        if (grown == NULL) return F2B_ERR_MEMORY;
        column->at = grown;
        column->capacity = capacity;
    }
    column->at[column->n++] = value;
    return F2B_OK;
}

uint64_t f2bi_hash(const char *text, size_t n)
{
    const uint64_t hash = XXH3_64bits(text, n);
    return hash != 0 ? hash : 1;
}

uint64_t f2bi_hash_stem(const char *name, size_t n)
{
    const char *slash = memrchr(name, '/', n);
    const char *begin = slash != NULL ? slash + 1 : name;
    const char *dot = memrchr(begin, '.', n - (size_t)(begin - name));
    return f2bi_hash(begin, (size_t)((dot != NULL ? dot : name + n) - begin));
}

char *f2bi_read_range(int fd, const char *path, uint64_t begin, uint64_t end, int64_t *n)
{
    F2B_RETURN_NULL_IF(end < begin || end - begin > F2B_IMAGE_MAX_FILE_BYTES, F2B_ERR_FORMAT,
                       "%s: bytes %llu to %llu are no record", path, (unsigned long long)begin,
                       (unsigned long long)end);
    const size_t size = (size_t)(end - begin);
    char *bytes = f2b_alloc_host(size + 1, F2B_TAG_FILES);
    if (bytes == NULL) return NULL;
    for (size_t done = 0; done < size;) {
        const ssize_t got = pread(fd, bytes + done, size - done, (off_t)(begin + done));
        if (got > 0) {
            done += (size_t)got;
            continue;
        }
        if (got < 0) f2b_fail_errno(F2B_ERR_IO, "%s: cannot be read", path);
        else f2b_fail(F2B_ERR_IO, "%s: became shorter while in use; start again", path);
        f2b_free(bytes);
        return NULL;
    }
    bytes[size] = '\0';
    *n = (int64_t)size;
    return bytes;
}

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcasecmp(text + n - m, end) == 0;
}

/* Which format; of a .json file of captions by its first bracket. */
static f2b_status choose_format(f2b_source *s, const char *path)
{
    if (s->format != NULL) return F2B_OK; /* a folder */
    if (s->role == F2B_SOURCE_CONVERSATIONS) s->format = &f2bi_format_llava;
    else if (s->role == F2B_SOURCE_CONVERSATION_CAPTIONS) s->format = &f2bi_format_coco;
    else if (ends_with(path, ".tar")) s->format = &f2bi_format_tar;
    else if (!ends_with(path, ".json")) s->format = &f2bi_format_tsv;
    if (s->format != NULL) return F2B_OK;
    char head[4096];
    const ssize_t got = pread(s->fd, head, sizeof head, 0);
    if (got < 0) return f2b_fail_errno(F2B_ERR_IO, "%s: cannot be read", path);
    const char *first = memchr(head, '[', (size_t)got), *object = memchr(head, '{', (size_t)got);
    const bool array = first != NULL && (object == NULL || first < object);
    s->format = array ? &f2bi_format_llava : &f2bi_format_coco;
    return F2B_OK;
}

static f2b_status open_file(const char *path, int *fd, int64_t *bytes)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (*fd < 0 || fstat(*fd, &st) != 0)
        return f2b_fail_errno(errno == ENOENT ? F2B_ERR_NOT_FOUND : F2B_ERR_IO,
                              "%s: cannot be opened", path);
    if (!S_ISREG(st.st_mode)) return f2b_fail(F2B_ERR_IO, "%s: is not a regular file", path);
    *bytes += st.st_size;
    return F2B_OK;
}

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static f2b_status open_files(f2b_source *s, const char *path)
{
    const bool images = s->role == F2B_SOURCE_IMAGES;
    if ((images || s->role == F2B_SOURCE_CAPTIONS) && ends_with(path, ".tar")) {
        F2B_TRY(f2bi_expand(path, &s->paths, &s->n_paths));
        for (int64_t i = 0; i < s->n_paths; i++) {
            int fd;
            const f2b_status status = open_file(s->paths[i], &fd, &s->bytes);
            if (fd >= 0) close(fd);
            F2B_TRY(status);
        }
        return F2B_OK;
    }
    s->paths = f2b_calloc(1, sizeof *s->paths, F2B_TAG_DATA);
    if (s->paths == NULL) return F2B_ERR_MEMORY;
    s->n_paths = 1;
    s->paths[0] = f2b_strdup(path, F2B_TAG_DATA);
    if (s->paths[0] == NULL) return F2B_ERR_MEMORY;
    if (images && is_folder(path)) {
        s->format = &f2bi_format_folder;
        return F2B_OK;
    }
    return open_file(path, &s->fd, &s->bytes);
}

/* The folder that image names are relative to, with all its links followed. */
static f2b_status open_images(f2b_source *s, const f2b_source_options *o)
{
    if (s->role == F2B_SOURCE_CONVERSATION_CAPTIONS || s->format == &f2bi_format_tar) return F2B_OK;
    const char *slash = strrchr(o->path, '/');
    if (s->format == &f2bi_format_folder && o->images != NULL)
        return f2b_fail(F2B_ERR_CONFIG, "%s: %s is a folder of images: it takes no other", s->name,
                        o->path);
    char *folder = s->format == &f2bi_format_folder ? f2b_strdup(o->path, F2B_TAG_DATA)
                 : o->images != NULL ? f2b_strdup(o->images, F2B_TAG_DATA)
                 : slash == NULL     ? f2b_strdup(".", F2B_TAG_DATA)
                 : f2b_sprintf(F2B_TAG_DATA, "%.*s", (int)(slash + 1 - o->path), o->path);
    if (folder == NULL) return F2B_ERR_MEMORY;
    char *real = realpath(folder, NULL);
    f2b_status status = F2B_OK;
    if (real == NULL)
        status = f2b_fail_errno(F2B_ERR_NOT_FOUND, "%s: the image folder %s cannot be opened",
                                s->name, folder);
    else if ((s->images = f2b_strdup(real, F2B_TAG_DATA)) == NULL)
        status = F2B_ERR_MEMORY;
    else
        s->images_hash = f2bi_hash(real, strlen(real));
    free(real);
    f2b_free(folder);
    return status;
}

static f2b_status open_source(f2b_source *s, const f2b_source_options *o)
{
    s->name = f2b_strdup(o->name, F2B_TAG_DATA);
    if (s->name == NULL) return F2B_ERR_MEMORY;
    F2B_TRY(open_files(s, o->path));
    F2B_TRY(choose_format(s, o->path));
    F2B_TRY(open_images(s, o));
    const int64_t from = o->cache_from > 0 ? o->cache_from : INT64_C(64) << 20;
    const char *cache = s->bytes >= from ? o->cache : NULL;
    if (cache == NULL || !f2bi_cache_load(s, cache)) {
        F2B_TRY(s->format->index(s));
        if (cache != NULL) f2bi_cache_save(s, cache);
    }
    s->n = s->format->count(s);
    if (s->n == 0)
        return f2b_fail(F2B_ERR_FORMAT, "%s has no %s", o->path,
                        s->format == &f2bi_format_folder ? "images" : "records");
    return F2B_OK;
}

f2b_source *f2b_source_open(const f2b_source_options *options)
{
    f2b_source *s = f2b_calloc(1, sizeof *s, F2B_TAG_DATA);
    if (s == NULL) return NULL;
    s->fd = -1;
    s->role = options->role;
    if (open_source(s, options) == F2B_OK) return s;
    f2b_source_free(s);
    return NULL;
}

void f2b_source_free(f2b_source *source)
{
    if (source == NULL) return;
    if (source->fd >= 0) close(source->fd);
    for (int i = 0; i < F2BI_COLUMNS; i++) f2b_free(source->columns[i].at);
    f2bi_paths_free(source->paths, source->n_paths);
    f2b_free(source->images);
    f2b_free(source->names);
    f2b_free(source->name);
    f2b_free(source);
}

int64_t f2b_source_count(const f2b_source *source) { return source->n; }
const char *f2b_source_name(const f2b_source *source) { return source->name; }
const char *f2b_source_file(const f2b_source *s, int64_t i)
{
    return s->paths[s->format == &f2bi_format_tar ? f2bi_tar_shard(s, i) : 0];
}
const char *f2b_source_format(const f2b_source *source) { return source->format->text; }

uint64_t f2b_source_image_key(const f2b_source *source, int64_t i)
{
    F2B_CHECK(i >= 0 && i < source->n);
    const uint64_t key = source->format->image_key(source, i);
    return key == 0 ? 0 : key ^ source->images_hash;
}

uint64_t f2b_source_stem_key(const f2b_source *source, int64_t i)
{
    F2B_CHECK(i >= 0 && i < source->n);
    return source->format->stem_key(source, i);
}

/* How many bytes of a shard's path are the folders that the first and the last share. */
static size_t shared_folders(const f2b_source *s)
{
    const char *a = s->paths[0], *b = s->paths[s->n_paths - 1];
    size_t n = 0;
    for (size_t i = 0; a[i] != '\0' && a[i] == b[i]; i++)
        if (a[i] == '/') n = i + 1;
    return n;
}

char *f2b_source_image_id(const f2b_source *s, const f2b_record *record)
{
    F2B_CHECK(record->image != NULL);
    if (s->format != &f2bi_format_tar) return f2b_strdup(record->image, F2B_TAG_DATA);
    return f2b_sprintf(F2B_TAG_DATA, "%s/%s",
                       s->paths[record->member.shard] + shared_folders(s), record->image);
}

bool f2b_source_images_differ(const f2b_source *source)
{
    return source->format == &f2bi_format_tar;
}

f2b_status f2b_source_read(const f2b_source *source, int64_t i, f2b_record *record)
{
    F2B_CHECK(i >= 0 && i < source->n);
    f2b_record_clear(record);
    return source->format->read(source, i, record);
}

void f2b_record_clear(f2b_record *record)
{
    f2b_free(record->detail);
    f2b_free(record->image);
    f2b_free(record->turns);
    f2b_free(record->caption);
    json_decref(record->owner);
    *record = (f2b_record){ 0 };
}

void f2b_record_fail(f2b_record *record, f2b_fault fault, const char *format, ...)
{
    if (record->fault != F2B_FAULT_NONE) return;
    record->fault = fault;
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    record->detail = f2b_strdup(text, F2B_TAG_DATA);    /* NULL without memory: the kind remains */
}
