/*
 * LLaVA JSON: conversations, and captions written as conversations (the first answer is the
 * caption). Columns: START where each record begins, and the array's end; hashes of image name and
 * stem.
 */
#include <jansson.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "data/source/json_record.h"
#include "data/source/json_scan.h"
#include "data/source/source_internal.h"

enum { START, IMAGE, STEM };

static f2b_status on_element(void *user, uint64_t offset)
{
    f2b_source *s = user;
    F2B_TRY(f2bi_column_push(&s->columns[START], offset));
    F2B_TRY(f2bi_column_push(&s->columns[IMAGE], 0));
    return f2bi_column_push(&s->columns[STEM], 0);
}

static f2b_status on_image(void *user, int field, const char *text, size_t n, bool string)
{
    (void)field;
    f2b_source *s = user;
    if (!string) return F2B_OK;
    s->columns[IMAGE].at[s->columns[IMAGE].n - 1] = f2bi_hash(text, n);
    s->columns[STEM].at[s->columns[STEM].n - 1] = f2bi_hash_stem(text, n);
    return F2B_OK;
}

static f2b_status build_index(f2b_source *s)
{
    f2bi_json_array array = { .fields = { "image" }, .element = on_element, .value = on_image };
    F2B_TRY(f2bi_json_scan(s->fd, s->paths[0], &array, 1, s));
    return f2bi_column_push(&s->columns[START], array.end);
}

static int64_t count(const f2b_source *s) { return s->columns[IMAGE].n; }
static uint64_t image_key(const f2b_source *s, int64_t i) { return s->columns[IMAGE].at[i]; }
static uint64_t stem_key(const f2b_source *s, int64_t i) { return s->columns[STEM].at[i]; }

static const char *text_field(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

static f2b_status take_turns(f2b_record *r, const json_t *turns)
{
    const size_t n = json_array_size(turns);
    r->turns = f2b_calloc(n + 1, sizeof *r->turns, F2B_TAG_DATA);
    if (r->turns == NULL) return F2B_ERR_MEMORY;
    for (size_t i = 0; i < n; i++) {
        const json_t *turn = json_array_get(turns, i);
        r->turns[i] = (f2b_turn){ text_field(turn, "from"), text_field(turn, "value") };
        if (r->turns[i].from == NULL || r->turns[i].value == NULL) {
            f2b_record_fail(r, F2B_FAULT_FIELD, "turn %zu: `from` or `value` is not a text", i);
            return F2B_OK;
        }
    }
    r->n_turns = (int64_t)n;
    return F2B_OK;
}

static f2b_status take_caption(f2b_record *r)
{
    for (int64_t i = 0; i < r->n_turns; i++) {
        if (strcmp(r->turns[i].from, "gpt") != 0) continue;
        r->caption = f2b_strdup(r->turns[i].value, F2B_TAG_DATA);
        return r->caption != NULL ? F2B_OK : F2B_ERR_MEMORY;
    }
    f2b_record_fail(r, F2B_FAULT_FIELD, "no turn is from `gpt`, so that there is no caption");
    return F2B_OK;
}

static f2b_status read_record(const f2b_source *s, int64_t i, f2b_record *r)
{
    const uint64_t *start = s->columns[START].at;
    json_t *root;
    F2B_TRY(f2bi_json_record(s->fd, s->paths[0], start[i], start[i + 1], r, &root));
    if (root == NULL) return F2B_OK;
    r->owner = root;
    const json_t *image = json_object_get(root, "image");
    const json_t *turns = json_object_get(root, "conversations");
    if (image != NULL && !json_is_null(image) && json_string_length(image) == 0)
        f2b_record_fail(r, F2B_FAULT_FIELD, "`image` is not a file name");
    else if (!json_is_array(turns) && s->role != F2B_SOURCE_IMAGES)
        f2b_record_fail(r, F2B_FAULT_FIELD, "`conversations` is not a list");
    if (r->fault != F2B_FAULT_NONE) return F2B_OK;
    if (json_is_string(image)) {
        r->image = f2b_strdup(json_string_value(image), F2B_TAG_DATA);
        if (r->image == NULL) return F2B_ERR_MEMORY;
    }
    if (s->role == F2B_SOURCE_IMAGES) return F2B_OK;
    F2B_TRY(take_turns(r, turns));
    if (r->fault != F2B_FAULT_NONE || s->role == F2B_SOURCE_CONVERSATIONS) return F2B_OK;
    if (r->image == NULL) f2b_record_fail(r, F2B_FAULT_FIELD, "a caption without `image`");
    return r->fault == F2B_FAULT_NONE ? take_caption(r) : F2B_OK;
}

const f2bi_format f2bi_format_llava = { "LLaVA JSON", build_index, count, read_record, image_key,
                                        stem_key };
