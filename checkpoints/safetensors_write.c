/* The safetensors writer. See safetensors.h for the contract. */
#include "checkpoints/safetensors.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"
#include "checkpoints/safetensors_internal.h"

static int type_rank(f2b_dtype dtype)
{
    for (int i = 0; i < F2BI_SAFETENSORS_TYPE_COUNT; ++i)
        if (f2bi_safetensors_types[i].dtype == (int)dtype) return i;
    return -1;
}

static int compare_for_file(const void *a, const void *b)
{
    const f2b_named_array *const *x = a, *const *y = b;
    const int rank_x = type_rank((*x)->dtype), rank_y = type_rank((*y)->dtype);
    if (rank_x != rank_y) return rank_x > rank_y ? -1 : 1;
    return strcmp((*x)->name, (*y)->name);
}

static json_t *entry_json(const f2b_named_array *t, int64_t begin)
{
    json_t *shape = json_array();
    for (int i = 0; i < t->ndim; ++i) json_array_append_new(shape, json_integer(t->shape[i]));
    return json_pack(
        "{s:s, s:o, s:[I,I]}", "dtype", f2bi_safetensors_types[type_rank(t->dtype)].name, "shape",
        shape, "data_offsets", (json_int_t)begin, (json_int_t)(begin + f2b_named_array_bytes(t)));
}

/* The header as an object whose keys are in the order of writing. */
static f2b_status fill_header(json_t *header, const char *path,
                              const f2b_named_array *const *sorted, int64_t n,
                              const f2b_text_pair *metadata, int64_t n_metadata)
{
    if (n_metadata > 0) {
        json_t *pairs = json_object();
        for (int64_t i = 0; i < n_metadata; ++i)
            if (json_object_set_new(pairs, metadata[i].key, json_string(metadata[i].value)) != 0) {
                json_decref(pairs);
                return f2b_fail(F2B_ERR_INVALID, "%s: metadata %s is not UTF-8", path,
                                metadata[i].key);
            }
        json_object_set_new(header, "__metadata__", pairs);
    }
    int64_t place = 0;
    for (int64_t i = 0; i < n; ++i) {
        const f2b_named_array *t = sorted[i];
        if (strcmp(t->name, "__metadata__") == 0 || json_object_get(header, t->name))
            return f2b_fail(F2B_ERR_INVALID, "%s: two tensors are named %s", path, t->name);
        if (json_object_set_new(header, t->name, entry_json(t, place)) != 0)
            return f2b_fail(F2B_ERR_INVALID, "%s: the tensor name %s is not UTF-8", path, t->name);
        place += f2b_named_array_bytes(t);
    }
    return F2B_OK;
}

static f2b_status write_header(f2b_atomic_file *file, const json_t *header)
{
    char *text = json_dumps(header, JSON_COMPACT);
    if (!text) return f2b_fail(F2B_ERR_MEMORY, "out of memory for a safetensors header");
    const size_t n = strlen(text), padding = (8 - n % 8) % 8;
    uint8_t length[8];
    for (int i = 0; i < 8; ++i) length[i] = (uint8_t)((n + padding) >> (8 * i));
    f2b_status status = f2b_atomic_file_write(file, length, sizeof length);
    if (status == F2B_OK) status = f2b_atomic_file_write(file, text, n);
    if (status == F2B_OK) status = f2b_atomic_file_write(file, "        ", padding);
    free(text);                 /* jansson's own */
    return status;
}

static f2b_status write_all(const char *path, const json_t *header,
                            const f2b_named_array *const *sorted, int64_t n)
{
    f2b_atomic_file *file = f2b_atomic_file_open(path);
    if (!file) return f2b_last_status();
    f2b_status status = write_header(file, header);
    for (int64_t i = 0; i < n && status == F2B_OK; ++i)
        status =
            f2b_atomic_file_write(file, sorted[i]->data, (size_t)f2b_named_array_bytes(sorted[i]));
    if (status == F2B_OK) return f2b_atomic_file_commit(file);
    f2b_atomic_file_abort(file);
    return status;
}

f2b_status f2b_safetensors_write(const char *path, const f2b_named_array *tensors, int64_t n,
                                 const f2b_text_pair *metadata, int64_t n_metadata)
{
    const f2b_named_array **sorted = f2b_calloc((size_t)n, sizeof *sorted, F2B_TAG_FILES);
    if (!sorted) return f2b_last_status();
    for (int64_t i = 0; i < n; ++i) sorted[i] = &tensors[i];
    qsort(sorted, (size_t)n, sizeof *sorted, compare_for_file);
    json_t *header = json_object();
    f2b_status status = header ? fill_header(header, path, sorted, n, metadata, n_metadata)
                               : f2b_fail(F2B_ERR_MEMORY, "out of memory for a safetensors header");
    if (status == F2B_OK) status = write_all(path, header, sorted, n);
    json_decref(header);
    f2b_free(sorted);
    return status;
}
