/*
 * COCO captions: `annotations` name their image by id, `images` say its file.
 * Columns: START where each annotation begins, and the array's end; ENTRY its image's place in the
 * image columns; image entries: where each begins, and the end; hashes of file name and stem.
 */
#include <jansson.h>
#include <stdlib.h>

#include "autograd/core/alloc.h"
#include "data/source/json_record.h"
#include "data/source/json_scan.h"
#include "data/source/source_internal.h"

enum { START, ENTRY, IMAGE_START, IMAGE, STEM };
#define NO_ENTRY UINT64_MAX

/* While indexing, ENTRY holds the hash of the image_id, and `ids` those of the images. */
typedef struct builder {
    f2b_source *source;
    f2bi_column ids;
} builder;

static f2b_status on_annotation(void *user, uint64_t offset)
{
    f2b_source *s = ((builder *)user)->source;
    F2B_TRY(f2bi_column_push(&s->columns[START], offset));
    return f2bi_column_push(&s->columns[ENTRY], 0);
}

static f2b_status on_image_id(void *user, int field, const char *text, size_t n, bool string)
{
    (void)field;
    (void)string;
    f2bi_column *entry = &((builder *)user)->source->columns[ENTRY];
    entry->at[entry->n - 1] = f2bi_hash(text, n);
    return F2B_OK;
}

static f2b_status on_image(void *user, uint64_t offset)
{
    builder *b = user;
    F2B_TRY(f2bi_column_push(&b->source->columns[IMAGE_START], offset));
    F2B_TRY(f2bi_column_push(&b->source->columns[IMAGE], 0));
    F2B_TRY(f2bi_column_push(&b->source->columns[STEM], 0));
    return f2bi_column_push(&b->ids, 0);
}

static f2b_status on_image_field(void *user, int field, const char *text, size_t n, bool string)
{
    builder *b = user;
    f2bi_column *columns = b->source->columns;
    if (field == 0) {
        b->ids.at[b->ids.n - 1] = f2bi_hash(text, n);
    } else if (string) {
        columns[IMAGE].at[columns[IMAGE].n - 1] = f2bi_hash(text, n);
        columns[STEM].at[columns[STEM].n - 1] = f2bi_hash_stem(text, n);
    }
    return F2B_OK;
}

typedef struct image_id {
    uint64_t id, entry;
} image_id;

static int by_id(const void *a, const void *b)
{
    const image_id *x = a, *y = b;
    if (x->id != y->id) return x->id < y->id ? -1 : 1;
    return (x->entry > y->entry) - (x->entry < y->entry);
}

/* Replace the hashes of ids by places. */
static f2b_status join(builder *b)
{
    const int64_t n = b->ids.n;
    image_id *ids = f2b_calloc((size_t)n + 1, sizeof *ids, F2B_TAG_DATA);
    if (ids == NULL) return F2B_ERR_MEMORY;
    for (int64_t i = 0; i < n; i++) ids[i] = (image_id){ b->ids.at[i], (uint64_t)i };
    qsort(ids, (size_t)n, sizeof *ids, by_id);
    f2b_status status = F2B_OK;
    for (int64_t i = 1; i < n && status == F2B_OK; i++)
        if (ids[i].id != 0 && ids[i].id == ids[i - 1].id)
            status =
                f2b_fail(F2B_ERR_FORMAT, "%s: entries %llu and %llu of `images` have the same id",
                         b->source->paths[0], (unsigned long long)ids[i - 1].entry,
                         (unsigned long long)ids[i].entry);
    f2bi_column *entries = &b->source->columns[ENTRY];
    for (int64_t i = 0; i < entries->n; i++) {
        int64_t low = 0, high = n;              /* the first id that is not smaller */
        while (low < high) {
            const int64_t middle = low + (high - low) / 2;
            if (ids[middle].id < entries->at[i]) low = middle + 1;
            else high = middle;
        }
        const bool found = entries->at[i] != 0 && low < n && ids[low].id == entries->at[i];
        entries->at[i] = found ? ids[low].entry : NO_ENTRY;
    }
    f2b_free(ids);
    return status;
}

static f2b_status build_index(f2b_source *s)
{
    builder b = { .source = s };
    f2bi_json_array arrays[] = {
        { .key = "annotations", .fields = { "image_id" }, .element = on_annotation,
          .value = on_image_id },
        { .key = "images", .fields = { "id", "file_name" }, .element = on_image,
          .value = on_image_field },
    };
    f2b_status status = f2bi_json_scan(s->fd, s->paths[0], arrays, 2, &b);
    if (status == F2B_OK) status = f2bi_column_push(&s->columns[START], arrays[0].end);
    if (status == F2B_OK) status = f2bi_column_push(&s->columns[IMAGE_START], arrays[1].end);
    if (status == F2B_OK) status = join(&b);
    f2b_free(b.ids.at);
    return status;
}

static int64_t count(const f2b_source *s) { return s->columns[ENTRY].n; }

static uint64_t of_image(const f2b_source *s, int64_t i, int column)
{
    const uint64_t entry = s->columns[ENTRY].at[i];
    return entry == NO_ENTRY ? 0 : s->columns[column].at[entry];
}
static uint64_t image_key(const f2b_source *s, int64_t i) { return of_image(s, i, IMAGE); }
static uint64_t stem_key(const f2b_source *s, int64_t i) { return of_image(s, i, STEM); }

/* The text of a field of a parsed entry, as a copy; a fault if it has none. */
static f2b_status copy_field(f2b_record *r, const json_t *root, const char *field, char **out)
{
    const char *text = json_string_value(json_object_get(root, field));
    if (text == NULL) {
        f2b_record_fail(r, F2B_FAULT_FIELD, "`%s` is missing or not a text", field);
        return F2B_OK;
    }
    *out = f2b_strdup(text, F2B_TAG_DATA);
    return *out != NULL ? F2B_OK : F2B_ERR_MEMORY;
}

static f2b_status read_entry(const f2b_source *s, const f2bi_column *start, uint64_t i,
                             f2b_record *r, const char *field, char **out)
{
    json_t *root;
    F2B_TRY(f2bi_json_record(s->fd, s->paths[0], start->at[i], start->at[i + 1], r, &root));
    if (root == NULL) return F2B_OK;
    const f2b_status status = copy_field(r, root, field, out);
    json_decref(root);
    return status;
}

static f2b_status read_record(const f2b_source *s, int64_t i, f2b_record *r)
{
    if (s->role != F2B_SOURCE_IMAGES)
        F2B_TRY(read_entry(s, &s->columns[START], (uint64_t)i, r, "caption", &r->caption));
    const uint64_t entry = s->columns[ENTRY].at[i];
    if (r->fault != F2B_FAULT_NONE) return F2B_OK;
    if (entry == NO_ENTRY) {
        f2b_record_fail(r, F2B_FAULT_IMAGE_UNKNOWN, "its image_id is not in `images`");
        return F2B_OK;
    }
    return read_entry(s, &s->columns[IMAGE_START], entry, r, "file_name", &r->image);
}

const f2bi_format f2bi_format_coco = { "COCO captions", build_index, count, read_record, image_key,
                                       stem_key };
