/* Merged exports: values and files of the weights. See export_merged_internal.h. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "autograd/device/cpu/gemm.h"
#include "checkpoints/atomic_file.h"
#include "checkpoints/safetensors.h"
#include "infer/export_merged_internal.h"

#define SHARD_BYTES ((int64_t)4 << 30)

typedef f2bi_merge merge;
typedef f2bi_merge_part part;

/* ---- Values ---- */

/* W + scale * B A in f32, into out. */
static f2b_status merged_values(merge *m, const part *p, float *out)
{
    const f2b_tensor *a = p->a, *b = p->b;
    const int64_t rows = p->tensor->shape[0], columns = p->tensor->shape[1], r = a->shape[0];
    const int64_t count = rows * columns;
    f2b_convert(out, F2B_F32, p->tensor->data, p->tensor->dtype, (size_t)count);
    double before = 0, change = 0;
    for (int64_t i = 0; i < count; i++) before += (double)out[i] * out[i];
    float *delta = f2b_alloc_host((size_t)count * sizeof *delta, F2B_TAG_FILES);
    if (delta == NULL) return F2B_ERR_MEMORY;
    const f2b_gemm_term term = { b->data, b->dtype, r, 1, a->data, a->dtype, columns, 1, r,
                                 f2b_model_lora_scale(m->from->model) };
    const f2b_status status = f2bi_gemm_f32(rows, columns, &term, 1,
                                            f2b_gemm_rows(delta, F2B_F32, columns, 0));
    for (int64_t i = 0; i < count && status == F2B_OK; i++) {
        change += (double)delta[i] * delta[i];
        out[i] += delta[i];
    }
    f2b_free(delta);
    m->changed += change, m->size += before;
    return status;
}

/* The bytes of a part as they are written; *owned is to be freed with f2b_free. */
static f2b_status part_data(merge *m, part *p, void **owned)
{
    *owned = NULL;
    if (p->tensor == NULL || (p->a == NULL && p->tensor->dtype == p->array.dtype)) {
        if (p->tensor != NULL) p->array.data = p->tensor->data;
        return F2B_OK;
    }
    const size_t count = (size_t)f2b_numel(p->tensor);
    float *values = f2b_alloc_host(count * sizeof *values, F2B_TAG_FILES);
    void *out = values != NULL && p->array.dtype != F2B_F32
                ? f2b_alloc_host(count * f2b_dtype_size(p->array.dtype), F2B_TAG_FILES) : values;
    f2b_status status = out != NULL ? F2B_OK : F2B_ERR_MEMORY;
    if (status == F2B_OK && p->a != NULL) status = merged_values(m, p, values);
    else if (status == F2B_OK)
        f2b_convert(values, F2B_F32, p->tensor->data, p->tensor->dtype, count);
    if (status == F2B_OK && out != values) f2b_convert(out, p->array.dtype, values, F2B_F32, count);
    if (out != values) f2b_free(values);
    if (status != F2B_OK) f2b_free(out);
    else *owned = out, p->array.data = out;
    return status;
}

/* ---- Files ---- */

f2b_status f2bi_merge_read_back(const char *path, const f2b_named_array *arrays, int64_t n)
{
    f2b_safetensors *file = f2b_safetensors_open(path);
    if (file == NULL) return f2b_last_status();
    f2b_status status = F2B_OK;
    for (int64_t i = 0; i < n && status == F2B_OK; i++) {
        const f2b_safetensor *t = f2b_safetensors_find(file, arrays[i].name);
        const int64_t bytes = f2b_named_array_bytes(&arrays[i]);
        if (t == NULL || t->bytes != bytes || memcmp(t->data, arrays[i].data, (size_t)bytes) != 0)
            status = f2b_fail(F2B_ERR_FORMAT, "%s: tensor %s was not written as it is", path,
                              arrays[i].name);
    }
    f2b_safetensors_close(file);
    return status;
}

/* Parts [first, first + n) into one file. */
static f2b_status write_shard(merge *m, int64_t first, int64_t n, const char *name)
{
    f2b_named_array *arrays = f2b_calloc((size_t)n, sizeof *arrays, F2B_TAG_FILES);
    void **owned = f2b_calloc((size_t)n, sizeof *owned, F2B_TAG_FILES);
    char *path = f2b_path_join(m->folder, name);
    f2b_status status = arrays && owned && path ? F2B_OK : F2B_ERR_MEMORY;
    for (int64_t i = 0; i < n && status == F2B_OK; i++) {
        status = part_data(m, &m->parts[first + i], &owned[i]);
        arrays[i] = m->parts[first + i].array;
    }
    const f2b_text_pair format = { "format", "pt" };
    if (status == F2B_OK) status = f2b_safetensors_write(path, arrays, n, &format, 1);
    if (status == F2B_OK) status = f2bi_merge_read_back(path, arrays, n);
    for (int64_t i = 0; owned != NULL && i < n; i++) f2b_free(owned[i]);
    f2b_free(owned);
    f2b_free(arrays);
    f2b_free(path);
    return status;
}

f2b_status f2bi_merge_write_weights(merge *m)
{
    const int64_t most = m->o->shard_bytes > 0 ? m->o->shard_bytes : SHARD_BYTES;
    int64_t total = 0, files = 0, at = 0;
    for (int64_t i = 0; i < m->n; i++) {
        const int64_t bytes = f2b_named_array_bytes(&m->parts[i].array);
        if (files == 0 || at + bytes > most) files++, at = 0;
        at += bytes, total += bytes;
    }
    json_t *map = json_object();
    f2b_status status = F2B_OK;
    int64_t first = 0, file = 0;
    while (first < m->n && status == F2B_OK) {
        int64_t n = 0, bytes = 0;
        while (first + n < m->n &&
               (n == 0 || bytes + f2b_named_array_bytes(&m->parts[first + n].array) <= most))
            bytes += f2b_named_array_bytes(&m->parts[first + n++].array);
        char name[96] = "model.safetensors";
        if (files > 1)
            snprintf(name, sizeof name, "model-%05" PRId64 "-of-%05" PRId64 ".safetensors", file + 1,
                     files);
        for (int64_t i = first; i < first + n; i++)
            json_object_set_new(map, m->parts[i].array.name, json_string(name));
        status = write_shard(m, first, n, name);
        first += n, file++;
    }
    json_t *index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total,
                              "weight_map", map);
    if (status == F2B_OK && files > 1)
        status = f2bi_merge_write_json(m, "model.safetensors.index.json", index);
    json_decref(index);
    m->result->files = files, m->result->tensors = m->n;
    return status;
}
