/*
 * Folders of images: every file of a known ending below a folder, in the order of the names' bytes,
 * so that the same folder is the same source on every machine. Hidden files and folders are left
 * out; links to folders are not followed, because they can lead in circles.
 *
 * Columns: START where each name begins in `names`; KEY its hash.
 */
#include <errno.h>
#include <fts.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "data/source/source_internal.h"

enum { START, KEY };

/* The names as they are found, before they are in order. */
typedef struct name_list {
    char *text;                 /* one behind the other, each with its zero */
    size_t n, capacity;
    f2bi_column starts;
} name_list;

static f2b_status add_name(name_list *list, const char *name)
{
    const size_t n = strlen(name) + 1;
    if (list->n + n > list->capacity) {
        const size_t capacity = 2 * (list->n + n) + 4096;
        char *grown = f2b_realloc(list->text, capacity, F2B_TAG_DATA);
        if (grown == NULL) return F2B_ERR_MEMORY;
        list->text = grown, list->capacity = capacity;
    }
    memcpy(list->text + list->n, name, n);
    F2B_TRY(f2bi_column_push(&list->starts, list->n));
    list->n += n;
    return F2B_OK;
}

static bool is_image(const FTSENT *e)
{
    const char *dot = strrchr(e->fts_name, '.');
    return dot != NULL && dot != e->fts_name && f2bi_is_image_extension(dot + 1);
}

static f2b_status take_entry(FTS *walk, FTSENT *e, size_t root, name_list *list)
{
    const bool hidden = e->fts_level > 0 && e->fts_name[0] == '.';
    switch (e->fts_info) {
    case FTS_D:
        if (hidden) (void)fts_set(walk, e, FTS_SKIP);
        return F2B_OK;
    case FTS_DNR:
    case FTS_ERR:
    case FTS_NS:
        errno = e->fts_errno;
        return f2b_fail_errno(F2B_ERR_IO, "%s: cannot be read", e->fts_path);
    case FTS_DP: return F2B_OK;
    default: /* files, links, and what only looks like one and will be a fault when read */
        return hidden || !is_image(e) ? F2B_OK : add_name(list, e->fts_path + root);
    }
}

static f2b_status walk_folder(const char *folder, name_list *list)
{
    char *const roots[] = { (char *)(uintptr_t)folder, NULL };
    const size_t root = strcmp(folder, "/") == 0 ? 1 : strlen(folder) + 1;
    FTS *walk = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    if (walk == NULL) return f2b_fail_errno(F2B_ERR_IO, "%s: cannot be read", folder);
    f2b_status status = F2B_OK;
    FTSENT *e;
    while (status == F2B_OK && (errno = 0, e = fts_read(walk)) != NULL)
        status = take_entry(walk, e, root, list);
    if (status == F2B_OK && errno != 0)
        status = f2b_fail_errno(F2B_ERR_IO, "%s: cannot be read", folder);
    fts_close(walk);
    return status;
}

static int compare(const void *a, const void *b, void *text)
{
    const char *names = text;
    return strcmp(names + *(const uint64_t *)a, names + *(const uint64_t *)b);
}

static f2b_status build_index(f2b_source *s)
{
    name_list list = { 0 };
    f2b_status status = walk_folder(s->images, &list);
    if (list.starts.n > 0)
        qsort_r(list.starts.at, (size_t)list.starts.n, sizeof *list.starts.at, compare, list.text);
    for (int64_t i = 0; i < list.starts.n && status == F2B_OK; i++) {
        const char *name = list.text + list.starts.at[i];
        status = f2bi_column_push(&s->columns[KEY], f2bi_hash(name, strlen(name)));
    }
    s->names = list.text;
    s->columns[START] = list.starts;
    return status;
}

static int64_t count(const f2b_source *s) { return s->columns[START].n; }
static uint64_t image_key(const f2b_source *s, int64_t i) { return s->columns[KEY].at[i]; }
static uint64_t stem_key(const f2b_source *s, int64_t i)
{
    (void)s;
    (void)i;
    return 0;
}

static f2b_status read_record(const f2b_source *s, int64_t i, f2b_record *r)
{
    const char *name = s->names + s->columns[START].at[i];
    json_t *text = json_string(name); /* jansson refuses what is not UTF-8 */
    if (text == NULL) f2b_record_fail(r, F2B_FAULT_IMAGE_NAME, "%.200s is not UTF-8 text", name);
    else if ((r->image = f2b_strdup(name, F2B_TAG_DATA)) == NULL) return F2B_ERR_MEMORY;
    json_decref(text);
    return F2B_OK;
}

const f2bi_format f2bi_format_folder = { "folder", build_index, count, read_record, image_key,
                                         stem_key };
