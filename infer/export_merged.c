/* Merged exports: what the folder has, and in which order it comes about. See export_merged.h.
 * Tensors are listed first, then written shard by shard, so that no more than a shard of merged
 * weights is in memory. */
#include "infer/export_merged.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/atomic_file.h"
#include "infer/export_merged_internal.h"

typedef f2bi_merge merge;
typedef f2bi_merge_part part;

/* ---- What is written ---- */

/* A plain Llama has no `language_model` around it, neither in its files nor in transformers. */
static const char *name_on_disk(const merge *m, const char *name)
{
    static const char around[] = "language_model.";
    const size_t n = sizeof around - 1;
    const bool inside = !m->from->model->config.has_vision && strncmp(name, around, n) == 0;
    return inside ? name + n : name;
}

static part *add_part(merge *m, const char *name, f2b_dtype type, int ndim, const int64_t *shape)
{
    if (m->n == m->capacity) {
        const int64_t capacity = m->capacity ? 2 * m->capacity : 512;
        part *grown = f2b_realloc(m->parts, (size_t)capacity * sizeof *grown, F2B_TAG_FILES);
        if (grown == NULL) return NULL;
        m->parts = grown, m->capacity = capacity;
    }
    part *p = &m->parts[m->n++];
    *p = (part){ .name = name,
                 .array = { .name = name_on_disk(m, name), .dtype = type, .ndim = ndim } };
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

f2b_dtype f2bi_merge_type(const merge *m, const f2b_tensor *t, bool trained)
{
    f2b_named_array array;
    if (trained || !f2b_model_folder_contains(m->from->folder, t->name)) return F2B_F32;
    if (f2b_model_folder_find(m->from->folder, t->name, t->ndim, t->shape, &array) != F2B_OK)
        return F2B_F32;
    return array.dtype;
}

static f2b_status add_tensor(merge *m, const f2b_tensor *t, bool trained)
{
    part *p = add_part(m, t->name, f2bi_merge_type(m, t, trained), t->ndim, t->shape);
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
    p->tensor = p->drawn = t;
    return f2b_init_fill(t, init, m->from->model->weights.seed, name);
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
        return f2b_fail(F2B_ERR_INVALID, "%s has no %s adapter to merge; --stage none writes "
                        "what else was trained", m->o->from, m->o->stage == F2B_STAGE_COMPRESSION ? "compression" : "generation");
    if (f2b_model_folder_has_weights(m->from->folder)) return add_unused_of_base(m);
    return model->config.has_vision ? add_unused_tower(m) : F2B_OK;
}

/* ---- The folder ---- */

static f2b_status write_folder(merge *m)
{
    F2B_TRY(list_parts(m));
    F2B_TRY(f2bi_merge_write_weights(m));
    if (m->result->merged > 0) {
        m->result->change = sqrt(m->changed / m->size);
        if (!(m->result->change > 0))
            return f2b_fail(F2B_ERR_INVALID,
                            "the %s adapter of %s changes nothing: every product of its lora_B and "
                            "lora_A is zero; was it trained?",
                            m->o->stage == F2B_STAGE_COMPRESSION ? "compression" : "generation",
                            m->o->from);
    }
    F2B_TRY(f2bi_merge_write_rest(m));
    return f2bi_merge_prove(m);
}

/* Nothing but an earlier export of this kind is replaced; not even that where it is the base. */
static f2b_status check_place(const merge *m)
{
    F2B_TRY(f2b_folder_check_free(m->o->to, F2BI_MERGE_MARKER));
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
