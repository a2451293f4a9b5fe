/*
 * Webdataset: samples in tar shards. A sample is a run of members with one key (the name up to the
 * first dot of its last part). The index has only where each sample begins; the members are looked
 * up in their headers when it is read.
 *
 * Columns: START where each sample begins, shards one after the other; FIRST the number of each
 * shard's first sample, and the number of all; END where each shard's samples end. A shard that is
 * damaged or cut off ends with one sample marked DAMAGED: what came before is used, the damage is
 * counted.
 */
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "autograd/core/alloc.h"
#include "data/source/source_internal.h"
#include "data/source/tar_reader.h"

enum { START, FIRST, END };
#define DAMAGED (UINT64_C(1) << 63)

/* Length of a member's key; 0: not part of a sample (no extension, a hidden file, meta data). */
static size_t key_length(const f2bi_tar_member *m)
{
    const char *slash = strrchr(m->name, '/'), *base = slash != NULL ? slash + 1 : m->name;
    const char *dot = strchr(base, '.');
    const size_t n = strlen(m->name);
    const bool meta = n >= 4 && slash == NULL && strncmp(m->name, "__", 2) == 0 &&
                      strcmp(m->name + n - 2, "__") == 0;
    return !m->regular || meta || dot == NULL || dot == base ? 0 : (size_t)(dot - m->name);
}

typedef struct shard {
    f2bi_column starts;
    int64_t end;
    f2b_error error;            /* a failure other than a damaged archive */
} shard;

/* Where the samples of one shard begin. */
static f2b_status index_shard(const char *path, shard *out)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const int64_t bytes = fd >= 0 ? (int64_t)lseek(fd, 0, SEEK_END) : -1;
    f2b_status status = F2B_OK;
    if (bytes < 0) status = f2b_fail_errno(F2B_ERR_IO, "%s: cannot be opened", path);
    f2bi_tar_member *m = f2b_calloc(2, sizeof *m, F2B_TAG_FILES);
    if (m == NULL) status = F2B_ERR_MEMORY;
    size_t key = 0;             /* of the sample at hand, whose member is m[1] */
    int64_t at = 0;
    for (bool end = false; status == F2B_OK;) {
        status = f2bi_tar_read(fd, path, bytes, at, &m[0], &end);
        if (status == F2B_ERR_FORMAT) {
            status = f2bi_column_push(&out->starts, (uint64_t)at | DAMAGED);
            end = true;
        }
        if (end || status != F2B_OK) break;
        at = m[0].next;
        const size_t n = key_length(&m[0]);
        if (n == 0 || (n == key && memcmp(m[0].name, m[1].name, n) == 0)) continue;
        status = f2bi_column_push(&out->starts, (uint64_t)m[0].header);
        key = n;
        memcpy(m[1].name, m[0].name, n);
    }
    out->end = at;
    f2b_free(m);
    if (fd >= 0) close(fd);
    return status;
}

/* Shards are many and far apart on disk: several are read at once. */
static f2b_status index_shards(const f2b_source *s, shard *shards)
{
    f2b_status status = F2B_OK;
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < s->n_paths; i++)
        if (index_shard(s->paths[i], &shards[i]) != F2B_OK) f2b_error_take(&shards[i].error);
    for (int64_t i = 0; i < s->n_paths && status == F2B_OK; i++)
        if (shards[i].error.code != F2B_OK)
            status = f2b_fail(shards[i].error.code, "%s", shards[i].error.text);
    return status;
}

static f2b_status build_index(f2b_source *s)
{
    shard *shards = f2b_calloc((size_t)s->n_paths, sizeof *shards, F2B_TAG_DATA);
    if (shards == NULL) return F2B_ERR_MEMORY;
    f2b_status status = index_shards(s, shards);
    for (int64_t i = 0; i < s->n_paths; i++) {
        f2bi_column *starts = &shards[i].starts;
        if (status == F2B_OK)
            status = f2bi_column_push(&s->columns[FIRST], (uint64_t)s->columns[START].n);
        if (status == F2B_OK) status = f2bi_column_push(&s->columns[END], (uint64_t)shards[i].end);
        for (int64_t j = 0; j < starts->n && status == F2B_OK; j++)
            status = f2bi_column_push(&s->columns[START], starts->at[j]);
        f2b_free(starts->at);
    }
    f2b_free(shards);
    return status == F2B_OK ? f2bi_column_push(&s->columns[FIRST], (uint64_t)s->columns[START].n)
                            : status;
}

static int64_t count(const f2b_source *s) { return s->columns[START].n; }

/* Every sample has its own image. */
static uint64_t image_key(const f2b_source *s, int64_t i)
{
    return f2bi_hash(s->paths[0], strlen(s->paths[0])) + (uint64_t)i * 2 + 1;
}
static uint64_t stem_key(const f2b_source *s, int64_t i)
{
    (void)s;
    (void)i;
    return 0;
}

/* The parts of a sample that matter. */
typedef struct parts {
    int64_t text, text_bytes;       /* key.txt; 0 bytes and no place: none */
    int64_t json, json_bytes;       /* key.json */
    bool has_text, has_json;
} parts;

static f2b_status take_member(f2b_record *r, int64_t shard_number, const f2bi_tar_member *m,
                              const char *extension, parts *p)
{
    const bool text = strcasecmp(extension, "txt") == 0, json = strcasecmp(extension, "json") == 0;
    if ((text && p->has_text) || (json && p->has_json) ||
        (f2bi_is_image_extension(extension) && r->image != NULL)) {
        f2b_record_fail(r, F2B_FAULT_MEMBER, "%.200s: the sample has two of this", m->name);
    } else if (f2bi_is_image_extension(extension)) {
        r->image = f2b_strdup(m->name, F2B_TAG_DATA);
        if (r->image == NULL) return F2B_ERR_MEMORY;
        r->member.shard = shard_number, r->member.offset = m->data, r->member.size = m->size;
    } else if (text) {
        p->has_text = true, p->text = m->data, p->text_bytes = m->size;
    } else if (json) {
        p->has_json = true, p->json = m->data, p->json_bytes = m->size;
    }
    return F2B_OK;
}

/* The caption: key.txt, or `caption` of key.json. */
static f2b_status take_caption(int fd, const char *path, f2b_record *r, const parts *p)
{
    const int64_t at = p->has_text ? p->text : p->json,
                  size = p->has_text ? p->text_bytes : p->json_bytes;
    if (!p->has_text && !p->has_json) {
        f2b_record_fail(r, F2B_FAULT_MEMBER, "%.200s: no .txt and no .json beside it", r->image);
        return F2B_OK;
    }
    if (size > F2BI_MAX_RECORD_BYTES) {
        f2b_record_fail(r, F2B_FAULT_MEMBER, "%.200s: a caption of %lld bytes", r->image,
                        (long long)size);
        return F2B_OK;
    }
    int64_t n;
    char *bytes = f2bi_read_range(fd, path, (uint64_t)at, (uint64_t)(at + size), &n);
    if (bytes == NULL) return f2b_last_status();
    json_t *root = p->has_text ? NULL : json_loadb(bytes, (size_t)n, 0, NULL);
    json_t *text = p->has_text ? json_stringn(bytes, (size_t)n) : json_object_get(root, "caption");
    const char *caption = json_string_value(text);
    f2b_status status = F2B_OK;
    if (caption == NULL || strlen(caption) != json_string_length(text))
        f2b_record_fail(r, F2B_FAULT_MEMBER, "%.200s: its caption is no UTF-8 text", r->image);
    else if ((r->caption = f2b_strdup(caption, F2B_TAG_DATA)) == NULL)
        status = F2B_ERR_MEMORY;
    if (p->has_text) json_decref(text);
    json_decref(root);
    f2b_free(bytes);
    return status;
}

static f2b_status take_sample(const f2b_source *s, int fd, int64_t shard_number, int64_t begin,
                              int64_t end, f2b_record *r, f2bi_tar_member *m)
{
    const char *path = s->paths[shard_number];
    const int64_t bytes = (int64_t)lseek(fd, 0, SEEK_END);
    parts p = { 0 };
    for (int64_t at = begin; at < end && r->fault == F2B_FAULT_NONE; at = m->next) {
        bool over;
        const f2b_status status = f2bi_tar_read(fd, path, bytes, at, m, &over);
        if (status == F2B_ERR_FORMAT) {
            f2b_record_fail(r, F2B_FAULT_ARCHIVE, "%s", f2b_last_error());
            f2b_clear_error();
            return F2B_OK;
        }
        if (status != F2B_OK || over) return status;
        const size_t key = key_length(m);
        if (key > 0) F2B_TRY(take_member(r, shard_number, m, m->name + key + 1, &p));
    }
    if (r->fault != F2B_FAULT_NONE) return F2B_OK;
    if (r->image != NULL)
        return s->role == F2B_SOURCE_IMAGES ? F2B_OK : take_caption(fd, path, r, &p);
    f2b_record_fail(r, F2B_FAULT_MEMBER, "%s: byte %lld: a sample without an image (%.200s)", path,
                    (long long)begin, m->name);
    return F2B_OK;
}

int64_t f2bi_tar_shard(const f2b_source *s, int64_t i)
{
    const uint64_t *first = s->columns[FIRST].at;
    int64_t low = 0, high = s->n_paths;         /* first[low] <= i < first[high] */
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if (first[middle] <= (uint64_t)i) low = middle;
        else high = middle;
    }
    return low;
}

static f2b_status read_record(const f2b_source *s, int64_t i, f2b_record *r)
{
    const int64_t k = f2bi_tar_shard(s, i);
    const uint64_t begin = s->columns[START].at[i];
    const bool last = (uint64_t)i + 1 == s->columns[FIRST].at[k + 1];
    const uint64_t end = last ? s->columns[END].at[k] : s->columns[START].at[i + 1] & ~DAMAGED;
    if (begin & DAMAGED) {
        f2b_record_fail(r, F2B_FAULT_ARCHIVE,
                        "%s: damaged or cut off at byte %llu; get the shard again", s->paths[k],
                        (unsigned long long)(begin & ~DAMAGED));
        return F2B_OK;
    }
    const int fd = open(s->paths[k], O_RDONLY | O_CLOEXEC);
    if (fd < 0) return f2b_fail_errno(F2B_ERR_IO, "%s: cannot be opened", s->paths[k]);
    f2bi_tar_member *m = f2b_calloc(1, sizeof *m, F2B_TAG_FILES);
    const f2b_status status = m == NULL ? F2B_ERR_MEMORY
                                        : take_sample(s, fd, k, (int64_t)begin, (int64_t)end, r, m);
    f2b_free(m);
    close(fd);
    return status;
}

/* Images lie in the shard itself. */
static f2b_status member_bytes(const f2b_source *s, f2b_record *r, uint8_t **bytes, int64_t *n)
{
    if (r->member.size < 1 || r->member.size > F2B_IMAGE_MAX_FILE_BYTES) {
        f2b_record_fail(r, F2B_FAULT_IMAGE_BROKEN, "%.200s has %lld bytes", r->image,
                        (long long)r->member.size);
        return F2B_OK;
    }
    const char *path = s->paths[r->member.shard];
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return f2b_fail_errno(F2B_ERR_IO, "%s: cannot be opened", path);
    *bytes = (uint8_t *)f2bi_read_range(fd, path, (uint64_t)r->member.offset,
                                        (uint64_t)(r->member.offset + r->member.size), n);
    close(fd);
    return *bytes != NULL ? F2B_OK : f2b_last_status();
}

f2b_status f2b_source_image(const f2b_source *source, f2b_record *record, uint8_t **bytes,
                            int64_t *n)
{
    F2B_CHECK(record->image != NULL && source->role != F2B_SOURCE_CONVERSATION_CAPTIONS);
    *bytes = NULL;
    *n = 0;
    return source->format == &f2bi_format_tar ? member_bytes(source, record, bytes, n)
                                              : f2bi_image_file(source->images, record, bytes, n);
}

const f2bi_format f2bi_format_tar = { "webdataset", build_index, count, read_record, image_key,
                                      stem_key };
