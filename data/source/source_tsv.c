/*
 * TSV: caption TAB file, a row a record. For images alone a row may also be just the file.
 * Columns: START where each row begins, and the end of the last; hash of the file's name.
 */
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "autograd/core/alloc.h"
#include "data/source/source_internal.h"

enum { START, IMAGE };
enum { CHUNK = 1 << 20 };

/* People's lists hold whole names; below the image folder they can be told from it. */
static const char *below(const f2b_source *s, const char *file, size_t *length)
{
    const size_t n = strcmp(s->images, "/") == 0 ? 0 : strlen(s->images);
    if (*length <= n + 1 || memcmp(file, s->images, n) != 0 || file[n] != '/') return file;
    *length -= n + 1;
    return file + n + 1;
}

/*
 * The file's name of a row: behind the one tab, without a carriage return; NULL with the reason.
 */
static const char *row_file(const f2b_source *s, const char *row, size_t n, size_t *length,
                            const char **reason)
{
    const char *tab = memchr(row, '\t', n), *file = tab != NULL ? tab + 1 : row;
    *reason = "no tab";
    if (tab == NULL && s->role != F2B_SOURCE_IMAGES) return NULL;
    *length = n - (size_t)(file - row);
    *reason = "more than one tab";
    if (memchr(file, '\t', *length) != NULL) return NULL;
    if (*length > 0 && file[*length - 1] == '\r') --*length;
    *reason = *length > 0 ? "the file's name is too long"
              : tab != NULL ? "no file behind the tab" : "an empty row";
    if (*length == 0 || *length > F2BI_MAX_NAME_BYTES) return NULL;
    return s->role == F2B_SOURCE_IMAGES ? below(s, file, length) : file;
}

static f2b_status add_row(f2b_source *s, uint64_t offset, const char *row, size_t n)
{
    size_t length;
    const char *reason, *file = row_file(s, row, n, &length, &reason);
    F2B_TRY(f2bi_column_push(&s->columns[START], offset));
    return f2bi_column_push(&s->columns[IMAGE], file != NULL ? f2bi_hash(file, length) : 0);
}

/*
 * Rows of the file through one buffer. A row that is longer than the buffer has its start noted and
 * is then skipped to its end (reading it will say that it is malformed).
 */
static f2b_status rows(f2b_source *s, char *buffer)
{
    uint64_t offset = 0;            /* of buffer[0] */
    size_t have = 0;
    bool skipping = false, first = true;
    for (;;) {
        const ssize_t got = pread(s->fd, buffer + have, CHUNK - have, (off_t)(offset + have));
        if (got < 0) return f2b_fail_errno(F2B_ERR_IO, "%s: cannot be read", s->paths[0]);
        have += (size_t)got;
        size_t begin = first && have >= 3 && memcmp(buffer, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
        first = false;
        for (const char *end; (end = memchr(buffer + begin, '\n', have - begin)) != NULL;) {
            const size_t n = (size_t)(end - buffer) - begin;
            if (!skipping) F2B_TRY(add_row(s, offset + begin, buffer + begin, n));
            skipping = false;
            begin += n + 1;
        }
        if (begin == 0 && have == CHUNK) {
            if (!skipping) F2B_TRY(add_row(s, offset, buffer, 0));
            skipping = true;
            begin = have;
        }
        if (got == 0) {
            if (have > begin && !skipping)
                F2B_TRY(add_row(s, offset + begin, buffer + begin, have - begin));
            return f2bi_column_push(&s->columns[START], offset + have);
        }
        have -= begin;
        memmove(buffer, buffer + begin, have);
        offset += begin;
    }
}

static f2b_status build_index(f2b_source *s)
{
    char *buffer = f2b_alloc_host(CHUNK, F2B_TAG_FILES);
    if (buffer == NULL) return F2B_ERR_MEMORY;
    const f2b_status status = rows(s, buffer);
    f2b_free(buffer);
    return status;
}

static int64_t count(const f2b_source *s) { return s->columns[IMAGE].n; }
static uint64_t image_key(const f2b_source *s, int64_t i) { return s->columns[IMAGE].at[i]; }
static uint64_t stem_key(const f2b_source *s, int64_t i)
{
    (void)s;
    (void)i;
    return 0;
}

/* jansson refuses texts that are not UTF-8. */
static bool is_text(const char *bytes, size_t n)
{
    json_t *text = json_stringn(bytes, n);
    json_decref(text);
    return text != NULL && memchr(bytes, '\0', n) == NULL;
}

static f2b_status take_row(const f2b_source *s, f2b_record *r, const char *row, size_t n)
{
    size_t length;
    const char *reason, *file = row_file(s, row, n, &length, &reason);
    /* Of a caption that nobody reads nothing is asked. */
    const bool images = s->role == F2B_SOURCE_IMAGES;
    if (file != NULL && !is_text(images ? file : row, images ? length : n))
        file = NULL, reason = "not UTF-8 text";
    if (file == NULL) {
        f2b_record_fail(r, F2B_FAULT_ROW, "%s", reason);
        return F2B_OK;
    }
    r->image = f2b_sprintf(F2B_TAG_DATA, "%.*s", (int)length, file);
    if (r->image == NULL) return F2B_ERR_MEMORY;
    if (s->role == F2B_SOURCE_IMAGES) return F2B_OK;
    r->caption = f2b_sprintf(F2B_TAG_DATA, "%.*s", (int)(file - 1 - row), row);
    return r->caption != NULL ? F2B_OK : F2B_ERR_MEMORY;
}

static f2b_status read_record(const f2b_source *s, int64_t i, f2b_record *r)
{
    const uint64_t begin = s->columns[START].at[i], end = s->columns[START].at[i + 1];
    if (end < begin || end - begin >= CHUNK) {
        f2b_record_fail(r, F2B_FAULT_ROW, "the row is longer than %d bytes", CHUNK);
        return F2B_OK;
    }
    int64_t n;
    char *row = f2bi_read_range(s->fd, s->paths[0], begin, end, &n);
    if (row == NULL) return f2b_last_status();
    if (n > 0 && row[n - 1] == '\n') row[--n] = '\0';
    const f2b_status status = take_row(s, r, row, (size_t)n);
    f2b_free(row);
    return status;
}

const f2bi_format f2bi_format_tsv = { "TSV", build_index, count, read_record, image_key, stem_key };
