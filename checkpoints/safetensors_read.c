/*
 * The safetensors reader. See safetensors.h for the contract. The header is believed only after all
 * of it was checked against the file's length; from then on tensors are pointers into the map.
 */
#include "checkpoints/safetensors.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "autograd/core/alloc.h"
#include "checkpoints/file_internal.h"
#include "checkpoints/safetensors_internal.h"

typedef struct entry {
    f2b_safetensor tensor;
    const f2bi_safetensors_type *type;
    int64_t begin, end;         /* bytes after the header */
    void *copy;                 /* of data that is not aligned in the file, or NULL */
} entry;

struct f2b_safetensors {
    char *path;
    const uint8_t *map;
    int64_t map_bytes, data_start;
    json_t *header;             /* owns all names */
    entry *entries;             /* by their bytes in the file */
    const entry **by_name;
    int64_t count;
};

void f2b_safetensors_release(const f2b_safetensors *file, const void *data, int64_t bytes)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), map = (uintptr_t)file->map;
    const uintptr_t first = (uintptr_t)data, end = first + (uintptr_t)bytes;
    if (first < map || end > map + (uintptr_t)file->map_bytes) return;
    const uintptr_t from = (first + page - 1) / page * page, to = end / page * page;
    if (from < to) (void)madvise((void *)from, to - from, MADV_DONTNEED);
}

static f2b_status parse_header(f2b_safetensors *file)
{
    uint64_t n = 0;
    for (int i = 7; i >= 0; --i) n = n << 8 | file->map[i];
    if (n > F2BI_SAFETENSORS_MAX_HEADER)
        return f2b_fail(F2B_ERR_FORMAT,
                        "%s: a header of %" PRIu64 " bytes is over the limit of %d; "
                        "this is no safetensors file",
                        file->path, n, F2BI_SAFETENSORS_MAX_HEADER);
    if ((int64_t)n > file->map_bytes - 8)
        return f2b_fail(F2B_ERR_FORMAT,
                        "%s: the header has %" PRIu64 " bytes but the file only "
                        "%" PRId64 "; it was cut off, copy it again",
                        file->path, n, file->map_bytes);
    file->data_start = 8 + (int64_t)n;
    const char *text = (const char *)file->map + 8;
    if (n == 0 || text[0] != '{')
        return f2b_fail(F2B_ERR_FORMAT, "%s: the header does not begin with '{'; this is no "
                        "safetensors file", file->path);
    json_error_t error;
    file->header = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, &error);
    if (!file->header)
        return f2b_fail(F2B_ERR_FORMAT, "%s: the header is not valid JSON (byte %d: %s)",
                        file->path, error.position, error.text);
    return F2B_OK;
}

static f2b_status check_metadata(const f2b_safetensors *file, const json_t *metadata)
{
    if (!json_is_object(metadata))
        return f2b_fail(F2B_ERR_FORMAT, "%s: __metadata__ is not an object", file->path);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)metadata, key, value) {
        if (!json_is_string(value))
            return f2b_fail(F2B_ERR_FORMAT, "%s: __metadata__ \"%s\" is not a string", file->path,
                            key);
    }
    return F2B_OK;
}

static const f2bi_safetensors_type *find_type(const char *name)
{
    for (int i = 0; i < F2BI_SAFETENSORS_TYPE_COUNT; ++i)
        if (strcmp(f2bi_safetensors_types[i].name, name) == 0) return &f2bi_safetensors_types[i];
    return NULL;
}

static f2b_status parse_shape(const f2b_safetensors *file, const json_t *shape, f2b_safetensor *t)
{
    if (!json_is_array(shape))
        return f2b_fail(F2B_ERR_FORMAT, "%s: tensor %s: no shape", file->path, t->name);
    if (json_array_size(shape) > F2B_NAMED_ARRAY_DIMS)
        return f2b_fail(F2B_ERR_FORMAT, "%s: tensor %s has %zu dimensions, more than %d",
                        file->path, t->name, json_array_size(shape), F2B_NAMED_ARRAY_DIMS);
    t->ndim = (int)json_array_size(shape);
    for (int i = 0; i < t->ndim; ++i) {
        const json_t *dim = json_array_get(shape, (size_t)i);
        t->shape[i] = json_integer_value(dim);
        if (!json_is_integer(dim) || t->shape[i] < 0)
            return f2b_fail(F2B_ERR_FORMAT,
                            "%s: tensor %s: dimension %d of its shape is not a size", file->path,
                            t->name, i);
    }
    return F2B_OK;
}

static f2b_status parse_entry(const f2b_safetensors *file, const char *name, const json_t *value,
                              entry *e)
{
    f2b_safetensor *t = &e->tensor;
    t->name = name;
    const json_t *dtype = json_object_get(value, "dtype");
    const json_t *offsets = json_object_get(value, "data_offsets");
    if (!json_is_object(value) || json_object_size(value) != 3 || !json_is_string(dtype))
        return f2b_fail(F2B_ERR_FORMAT,
                        "%s: tensor %s needs dtype, shape and data_offsets, and nothing else",
                        file->path, name);
    e->type = find_type(json_string_value(dtype));
    if (!e->type)
        return f2b_fail(F2B_ERR_FORMAT,
                        "%s: tensor %s has the type %s, which is not supported; convert "
                        "it to F32, F16 or BF16",
                        file->path, name, json_string_value(dtype));
    t->type = e->type->name;
    F2B_TRY(parse_shape(file, json_object_get(value, "shape"), t));
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return f2b_fail(F2B_ERR_FORMAT, "%s: tensor %s: data_offsets are not two integers",
                        file->path, name);
    e->begin = json_integer_value(begin);
    e->end = json_integer_value(end);
    if (e->begin < 0 || e->end < e->begin)
        return f2b_fail(F2B_ERR_FORMAT, "%s: tensor %s ends before it begins", file->path, name);
    if (!f2b_shape_bytes(t->ndim, t->shape, e->type->bytes, &t->bytes)
        || t->bytes != e->end - e->begin) {
        char text[F2B_SHAPE_TEXT];
        return f2b_fail(F2B_ERR_FORMAT, "%s: tensor %s: %" PRId64 " bytes do not hold %s %s",
                        file->path, name, e->end - e->begin, t->type,
                        f2b_shape_text(t->ndim, t->shape, text));
    }
    return F2B_OK;
}

static int compare_place(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end) return x->end < y->end ? -1 : 1;
    return strcmp(x->tensor.name, y->tensor.name);
}

static int compare_name(const void *a, const void *b)
{
    const entry *const *x = a, *const *y = b;
    return strcmp((*x)->tensor.name, (*y)->tensor.name);
}

static f2b_status parse_entries(f2b_safetensors *file)
{
    const size_t keys = json_object_size(file->header);
    file->entries = f2b_calloc(keys, sizeof *file->entries, F2B_TAG_FILES);
    file->by_name = f2b_calloc(keys, sizeof *file->by_name, F2B_TAG_FILES);
    if (!file->entries || !file->by_name) return f2b_last_status();
    const char *name;
    json_t *value;
    json_object_foreach(file->header, name, value) {
        if (strcmp(name, "__metadata__") == 0) {
            F2B_TRY(check_metadata(file, value));
            continue;
        }
        F2B_TRY(parse_entry(file, name, value, &file->entries[file->count]));
        ++file->count;
    }
    qsort(file->entries, (size_t)file->count, sizeof *file->entries, compare_place);
    for (int64_t i = 0; i < file->count; ++i) file->by_name[i] = &file->entries[i];
    qsort(file->by_name, (size_t)file->count, sizeof *file->by_name, compare_name);
    return F2B_OK;
}

/* Ranges must cover the rest of the file without hole or overlap; only then they become
 * pointers. */
static f2b_status place_entries(f2b_safetensors *file)
{
    int64_t place = 0;
    for (int64_t i = 0; i < file->count; ++i) {
        const entry *e = &file->entries[i];
        if (e->begin != place)
            return f2b_fail(F2B_ERR_FORMAT,
                            "%s: tensor %s begins at byte %" PRId64 " of the data, where "
                            "%" PRId64 " is next: the header has a hole or an overlap",
                            file->path, e->tensor.name, e->begin, place);
        place = e->end;
    }
    if (place != file->map_bytes - file->data_start)
        return f2b_fail(F2B_ERR_FORMAT,
                        "%s: the header describes %" PRId64 " bytes of data, the file has "
                        "%" PRId64 "; it was cut off or damaged, copy it again",
                        file->path, place, file->map_bytes - file->data_start);
    for (int64_t i = 0; i < file->count; ++i) {
        entry *e = &file->entries[i];
        e->tensor.data = file->map + file->data_start + e->begin;
        if ((uintptr_t)e->tensor.data % (uintptr_t)e->type->bytes == 0) continue;
        /* Old writers did not align. Such tensors cannot be read in place, so they are copied. */
        e->copy = f2b_alloc_host((size_t)e->tensor.bytes, F2B_TAG_WEIGHTS);
        if (!e->copy) return f2b_last_status();
        e->tensor.data = memcpy(e->copy, e->tensor.data, (size_t)e->tensor.bytes);
    }
    return F2B_OK;
}

static f2b_status open_file(f2b_safetensors *file)
{
    F2B_TRY(f2bi_file_map(file->path, 8, "safetensors", &file->map, &file->map_bytes));
    F2B_TRY(parse_header(file));
    F2B_TRY(parse_entries(file));
    return place_entries(file);
}

f2b_safetensors *f2b_safetensors_open(const char *path)
{
    f2b_safetensors *file = f2b_calloc(1, sizeof *file, F2B_TAG_FILES);
    if (!file) return NULL;
    file->path = f2b_strdup(path, F2B_TAG_FILES);
    if (file->path && open_file(file) == F2B_OK) return file;
    f2b_safetensors_close(file);
    return NULL;
}

void f2b_safetensors_close(f2b_safetensors *file)
{
    if (!file) return;
    for (int64_t i = 0; i < file->count; ++i) f2b_free(file->entries[i].copy);
    f2b_free(file->entries);
    f2b_free(file->by_name);
    json_decref(file->header);
    if (file->map) munmap((void *)file->map, (size_t)file->map_bytes);
    f2b_free(file->path);
    f2b_free(file);
}

const char *f2b_safetensors_path(const f2b_safetensors *file) { return file->path; }
int64_t f2b_safetensors_count(const f2b_safetensors *file) { return file->count; }

const f2b_safetensor *f2b_safetensors_at(const f2b_safetensors *file, int64_t i)
{
    F2B_CHECK(i >= 0 && i < file->count);
    return &file->entries[i].tensor;
}

const f2b_safetensor *f2b_safetensors_find(const f2b_safetensors *file, const char *name)
{
    int64_t low = 0, high = file->count;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        const int order = strcmp(name, file->by_name[middle]->tensor.name);
        if (order == 0) return &file->by_name[middle]->tensor;
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return NULL;
}

const char *f2b_safetensors_metadata(const f2b_safetensors *file, const char *key)
{
    return json_string_value(json_object_get(json_object_get(file->header, "__metadata__"), key));
}

f2b_status f2b_safetensors_array(const f2b_safetensors *file, const f2b_safetensor *tensor,
                                 f2b_named_array *out)
{
    const f2bi_safetensors_type *type = find_type(tensor->type);
    if (type->dtype < 0)
        return f2b_fail(F2B_ERR_DTYPE, "%s: tensor %s has the type %s, which no weight has",
                        file->path, tensor->name, tensor->type);
    *out = (f2b_named_array){ .name = tensor->name, .dtype = (f2b_dtype)type->dtype,
                              .ndim = tensor->ndim, .data = tensor->data };
    memcpy(out->shape, tensor->shape, sizeof out->shape);
    return F2B_OK;
}
