/* See export_merged.h. Tensors are listed first, then written shard by shard, so that no more than a
 * shard of merged weights is in memory. */
#include "infer/export_merged.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/device/cpu/gemm.h"
#include "checkpoints/atomic_file.h"
#include "checkpoints/safetensors.h"

#define SHARD_BYTES ((int64_t)4 << 30)
#define MARKER "f2b_merged.json"

/* One tensor of the folder: where its values come from, and what is added to them. */
typedef struct part {
    const char *name;
    const f2b_tensor *tensor;   /* of the model; NULL: an unused one of the base's files */
    f2b_named_array array;      /* as it is written; data is set while its shard is */
    const f2b_tensor *a, *b;    /* the adapter to merge, or NULL */
    f2b_tensor *drawn;          /* owned: an unused layer of a base without weights */
} part;

typedef struct merge {
    const f2b_merge_options *o;
    f2b_merge_result *result;
    f2b_trained_model *from;
    part *parts;
    int64_t n, capacity;
    char *folder;               /* where the files are written before they are in place */
    double changed, size;       /* squares, over merged tensors */
} merge;

/* ---- What is written ---- */

static part *add_part(merge *m, const char *name, f2b_dtype type, int ndim, const int64_t *shape)
{
    if (m->n == m->capacity) {
        const int64_t capacity = m->capacity ? 2 * m->capacity : 512;
        part *grown = f2b_realloc(m->parts, (size_t)capacity * sizeof *grown, F2B_TAG_FILES);
        if (grown == NULL) return NULL;
        m->parts = grown, m->capacity = capacity;
    }
    part *p = &m->parts[m->n++];
    *p = (part){ .name = name, .array = { .name = name, .dtype = type, .ndim = ndim } };
    memcpy(p->array.shape, shape, (size_t)ndim * sizeof *shape);
    return p;
}

static const f2b_tensor *adapter_half(const merge *m, const char *weight, const char *half)
{
    static const char *const adapters[] = { "compression", "generation" };
    const char *const names[] = { adapters[m->o->stage], "shared" };
    const int module = (int)(strlen(weight) - strlen(".weight"));
    char name[512];
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "%.*s.%s.%s", module, weight, names[i], half);
        const f2b_parameter *p = f2b_parameters_find(&m->from->model->parameters, name);
        if (p != NULL) return p->tensor;
    }
    return NULL;
}

/* The type in the base's files; f32 where there is none, and for tensors trained in full. */
static f2b_dtype type_of(const merge *m, const f2b_tensor *t, bool trained)
{
    f2b_named_array array;
    if (trained || !f2b_model_folder_contains(m->from->folder, t->name)) return F2B_F32;
    if (f2b_model_folder_find(m->from->folder, t->name, t->ndim, t->shape, &array) != F2B_OK)
        return F2B_F32;
    return array.dtype;
}

static f2b_status add_tensor(merge *m, const f2b_tensor *t, bool trained)
{
    part *p = add_part(m, t->name, type_of(m, t, trained), t->ndim, t->shape);
    if (p == NULL) return F2B_ERR_MEMORY;
    p->tensor = t;
    const size_t n = strlen(t->name);
    if (m->o->stage == F2B_STAGE_NONE || n < 7 || strcmp(t->name + n - 7, ".weight") != 0) return F2B_OK;
    p->a = adapter_half(m, t->name, "lora_A"), p->b = adapter_half(m, t->name, "lora_B");
    m->result->merged += p->a != NULL;
    return F2B_OK;
}

static bool listed(const merge *m, const char *name)
{
    for (int64_t i = 0; i < m->n; i++)
        if (strcmp(m->parts[i].name, name) == 0) return true;
    return false;
}

/* A tensor of a tower layer that never runs, for a base without weights. */
static f2b_status add_drawn(merge *m, const char *name, int ndim, const int64_t *shape)
{
    if (listed(m, name)) return F2B_OK;
    const size_t n = strlen(name);
    const bool bias = n > 5 && strcmp(name + n - 5, ".bias") == 0;
    const f2b_init init = ndim > 1 ? (f2b_init){ F2B_INIT_NORMAL, 0.02 }
                                   : (f2b_init){ F2B_INIT_CONSTANT, bias ? 0 : 1 };
    f2b_tensor *t = f2b_tensor_new(F2B_HOST, F2B_F32, ndim, shape, F2B_TAG_FILES);
    char *copy = f2b_strdup(name, F2B_TAG_FILES);
    part *p = t != NULL && copy != NULL ? add_part(m, copy, F2B_F32, ndim, shape) : NULL;
    if (p == NULL) {
        f2b_tensor_free(t);
        f2b_free(copy);
        return F2B_ERR_MEMORY;
    }
    f2b_init_fill(t, init, m->from->model->weights.seed, name);
    p->tensor = p->drawn = t;
    return F2B_OK;
}

static f2b_status add_unused_tower(merge *m)
{
    const f2b_vision_config *v = &m->from->model->config.vision;
    const int64_t d = v->hidden, ff = v->intermediate;
    const struct { const char *name; int ndim; int64_t shape[2]; } of_layer[] = {
        { "layer_norm1.weight", 1, { d } }, { "layer_norm1.bias", 1, { d } },
        { "layer_norm2.weight", 1, { d } }, { "layer_norm2.bias", 1, { d } },
        { "self_attn.q_proj.weight", 2, { d, d } }, { "self_attn.q_proj.bias", 1, { d } },
        { "self_attn.k_proj.weight", 2, { d, d } }, { "self_attn.k_proj.bias", 1, { d } },
        { "self_attn.v_proj.weight", 2, { d, d } }, { "self_attn.v_proj.bias", 1, { d } },
        { "self_attn.out_proj.weight", 2, { d, d } }, { "self_attn.out_proj.bias", 1, { d } },
        { "mlp.fc1.weight", 2, { ff, d } }, { "mlp.fc1.bias", 1, { ff } },
        { "mlp.fc2.weight", 2, { d, ff } }, { "mlp.fc2.bias", 1, { d } },
    };
    char name[256];
    for (int64_t i = m->from->model->config.feature_layer; i < v->layers; i++)
        for (size_t j = 0; j < sizeof of_layer / sizeof *of_layer; j++) {
            snprintf(name, sizeof name, "vision_tower.vision_model.encoder.layers.%" PRId64 ".%s", i,
                     of_layer[j].name);
            F2B_TRY(add_drawn(m, name, of_layer[j].ndim, of_layer[j].shape));
        }
    F2B_TRY(add_drawn(m, "vision_tower.vision_model.post_layernorm.weight", 1, &d));
    return add_drawn(m, "vision_tower.vision_model.post_layernorm.bias", 1, &d);
}

static f2b_status add_unused_of_base(merge *m)
{
    f2b_model_folder *folder = m->from->folder;
    for (int64_t i = 0; i < f2b_model_folder_count(folder); i++) {
        const char *name = f2b_model_folder_name(folder, i);
        f2b_named_array array;
        if (listed(m, name)) continue;
        F2B_TRY(f2b_model_folder_get(folder, i, &array));
        part *p = add_part(m, name, array.dtype, array.ndim, array.shape);
        if (p == NULL) return F2B_ERR_MEMORY;
        p->array.data = array.data;
    }
    return F2B_OK;
}

static f2b_status list_parts(merge *m)
{
    const f2b_model *model = m->from->model;
    for (int64_t i = 0; i < model->weights.n_frozen; i++)
        F2B_TRY(add_tensor(m, model->weights.frozen[i], false));
    for (int64_t i = 0; i < model->parameters.n; i++) {
        const f2b_parameter *p = &model->parameters.items[i];
        if (p->group == F2B_GROUP_LANGUAGE_MODEL || p->group == F2B_GROUP_PROJECTOR ||
            p->group == F2B_GROUP_VISION_TOWER)
            F2B_TRY(add_tensor(m, p->tensor, true));
    }
    if (m->o->stage != F2B_STAGE_NONE && m->result->merged == 0)
        return f2b_fail(F2B_ERR_INVALID, "%s has no %s adapter to merge", m->o->from,
                        m->o->stage == F2B_STAGE_COMPRESSION ? "compression" : "generation");
    if (f2b_model_folder_has_weights(m->from->folder)) return add_unused_of_base(m);
    return model->config.has_vision ? add_unused_tower(m) : F2B_OK;
}

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
                                            (f2b_gemm_out){ delta, F2B_F32, columns, 1, 0, NULL, 0 });
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

static f2b_status read_back(const char *path, const f2b_named_array *arrays, int64_t n)
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
    if (status == F2B_OK) status = read_back(path, arrays, n);
    for (int64_t i = 0; owned != NULL && i < n; i++) f2b_free(owned[i]);
    f2b_free(owned);
    f2b_free(arrays);
    f2b_free(path);
    return status;
}

static f2b_status write_json(const merge *m, const char *name, json_t *value)
{
    char *text = json_dumps(value, JSON_INDENT(2) | JSON_SORT_KEYS);
    char *path = f2b_path_join(m->folder, name);
    const f2b_status status = text && path ? f2b_write_file(path, text, strlen(text))
                                           : f2b_fail(F2B_ERR_MEMORY, "no memory to write %s", name);
    f2b_free(path);
    free(text);
    return status;
}

static f2b_status write_weights(merge *m)
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
            json_object_set_new(map, m->parts[i].name, json_string(name));
        status = write_shard(m, first, n, name);
        first += n, file++;
    }
    json_t *index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total,
                              "weight_map", map);
    if (status == F2B_OK && files > 1)
        status = write_json(m, "model.safetensors.index.json", index);
    json_decref(index);
    m->result->files = files, m->result->tensors = m->n;
    return status;
}

/* Copy a file of a folder that need not have it. */
static f2b_status copy_file(const merge *m, const char *folder, const char *name)
{
    char *from = f2b_path_join(folder, name), *to = f2b_path_join(m->folder, name);
    int64_t bytes;
    char *contents = from && to ? f2b_read_file(from, (int64_t)1 << 28, &bytes) : NULL;
    f2b_status status = contents ? f2b_write_file(to, contents, (size_t)bytes) : f2b_last_status();
    if (contents == NULL && status == F2B_ERR_NOT_FOUND) status = F2B_OK;
    f2b_free(contents);
    f2b_free(from);
    f2b_free(to);
    return status;
}

/* The base's own config.json, if it describes what is written: a Hugging Face LLaVA with tower. */
static f2b_status write_config(const merge *m)
{
    const f2b_model_folder *base = m->from->folder;
    const f2b_model_config *c = &m->from->model->config;
    char *path = f2b_path_join(f2b_model_folder_path(base), "config.json");
    json_t *root = path != NULL ? json_load_file(path, 0, NULL) : NULL;
    const bool fits = !c->has_vision || (json_is_object(json_object_get(root, "text_config")) &&
                                         f2b_model_folder_vision_path(base) == NULL);
    json_decref(root);
    f2b_free(path);
    if (fits) return copy_file(m, f2b_model_folder_path(base), "config.json");
    char *text = f2b_model_config_write(c, type_of(m, m->from->model->llama->embed, false));
    char *to = f2b_path_join(m->folder, "config.json");
    f2b_status status = text && to ? F2B_OK : f2b_last_status();
    if (status == F2B_OK) status = f2b_write_file(to, text, strlen(text));
    f2b_free(to);
    f2b_free(text);
    return status;
}

/* What the base's folder has beside its weights; its tower's says how images are prepared. */
static f2b_status copy_settings(const merge *m)
{
    static const char *const names[] = {
        "generation_config.json", "processor_config.json", "special_tokens_map.json",
        "tokenizer.model", "tokenizer.json", "tokenizer_config.json", "added_tokens.json",
        "chat_template.json",
    };
    const char *base = f2b_model_folder_path(m->from->folder);
    const char *vision = f2b_model_folder_vision_path(m->from->folder);
    F2B_TRY(write_config(m));
    F2B_TRY(copy_file(m, vision != NULL ? vision : base, "preprocessor_config.json"));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) F2B_TRY(copy_file(m, base, names[i]));
    return F2B_OK;
}

/* What the folder is of: a later export may take its place. */
static f2b_status write_marker(const merge *m)
{
    static const char *const stages[] = { "compression", "generation" };
    const char *stage = m->o->stage == F2B_STAGE_NONE ? "none" : stages[m->o->stage];
    json_t *root = json_pack("{s:s, s:i, s:s, s:I, s:s, s:s}", "format", "fwd2bot-merged",
                             "version", 1, "from", m->from->path, "step",
                             (json_int_t)m->from->step, "stage", stage, "base_model",
                             f2b_model_folder_path(m->from->folder));
    if (root == NULL) return f2b_fail(F2B_ERR_INVALID, "the name of a folder is not UTF-8");
    const f2b_status status = write_json(m, MARKER, root);
    json_decref(root);
    return status;
}

static f2b_status write_summary(const merge *m)
{
    const f2b_tensor *t = m->from->model->summary_tokens;
    if (t == NULL) return F2B_OK;
    const f2b_named_array array = { "summary_tokens", t->dtype, 2, { t->shape[0], t->shape[1] }, t->data };
    char *path = f2b_path_join(m->folder, "summary_tokens.safetensors");
    const f2b_status status = path ? f2b_safetensors_write(path, &array, 1, NULL, 0) : F2B_ERR_MEMORY;
    f2b_free(path);
    return status;
}

static f2b_status write_folder(merge *m)
{
    F2B_TRY(list_parts(m));
    F2B_TRY(write_weights(m));
    if (m->result->merged > 0) {
        m->result->change = sqrt(m->changed / m->size);
        if (!(m->result->change > 0))
            return f2b_fail(F2B_ERR_INVALID, "the adapter of %s changes nothing; was it trained?",
                            m->o->from);
    }
    F2B_TRY(write_summary(m));
    F2B_TRY(write_marker(m));
    return copy_settings(m);
}

/* Nothing but an earlier export of this kind is replaced; not even that where it is the base. */
static f2b_status check_place(const merge *m)
{
    F2B_TRY(f2b_folder_check_free(m->o->to, MARKER));
    char *to = realpath(m->o->to, NULL);
    char *base = realpath(f2b_model_folder_path(m->from->folder), NULL);
    const bool same = to != NULL && base != NULL && strcmp(to, base) == 0;
    free(to);                                   /* realpath's own */
    free(base);
    if (!same) return F2B_OK;
    return f2b_fail(F2B_ERR_INVALID, "%s is the base model itself; name a new folder", m->o->to);
}

static void merge_free(merge *m)
{
    for (int64_t i = 0; i < m->n; i++) {
        if (m->parts[i].drawn == NULL) continue;
        f2b_tensor_free(m->parts[i].drawn);
        f2b_free((char *)(uintptr_t)m->parts[i].name);
    }
    f2b_free(m->parts);
    f2b_free(m->folder);
    f2b_trained_model_close(m->from);
}

f2b_status f2b_export_merged(const f2b_merge_options *o, f2b_merge_result *result)
{
    *result = (f2b_merge_result){ 0 };
    const f2b_trained_model_options open = {
        .checkpoint = o->from, .model = o->model, .vision = o->vision, .device = F2B_HOST,
        .compute = F2B_F32, .storage = F2B_STORAGE_OF_FILE,
    };
    merge m = { .o = o, .result = result, .from = f2b_trained_model_open(&open) };
    if (m.from == NULL) return f2b_last_status();
    f2b_status status = check_place(&m);
    if (status == F2B_OK) {
        m.folder = f2b_folder_begin(o->to);
        status = m.folder != NULL ? write_folder(&m) : f2b_last_status();
    }
    if (status == F2B_OK) {
        status = f2b_folder_commit(o->to);
    } else if (m.folder != NULL) {
        f2b_error first;
        f2b_error_take(&first);
        if (f2b_folder_remove(m.folder) != F2B_OK) f2b_clear_error();     /* the first error counts */
        (void)f2b_fail(first.code, "%s", first.text);
    }
    merge_free(&m);
    return status;
}
