/* Merged exports: all files but the weights. See export_merged_internal.h. */
#include <stdlib.h>
#include <string.h>

#include "checkpoints/atomic_file.h"
#include "checkpoints/safetensors.h"
#include "infer/export_merged_internal.h"

typedef f2bi_merge merge;

f2b_status f2bi_merge_write_json(const merge *m, const char *name, json_t *value)
{
    char *text = json_dumps(value, JSON_INDENT(2) | JSON_SORT_KEYS);
    char *path = f2b_path_join(m->folder, name);
    const f2b_status status = text && path ? f2b_write_file(path, text, strlen(text))
                                           : f2b_fail(F2B_ERR_MEMORY, "no memory to write %s", name);
    f2b_free(path);
    free(text);
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
    char *text = f2b_model_config_write(c, f2bi_merge_type(m, m->from->model->llama->embed, false));
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
    const f2b_status status = f2bi_merge_write_json(m, F2BI_MERGE_MARKER, root);
    json_decref(root);
    return status;
}

static f2b_status write_summary(const merge *m)
{
    const f2b_tensor *t = m->from->model->summary_tokens;
    if (t == NULL) return F2B_OK;
    const f2b_named_array array = { "summary_tokens", t->dtype, 2, { t->shape[0], t->shape[1] }, t->data };
    char *path = f2b_path_join(m->folder, "summary_tokens.safetensors");
    f2b_status status = path ? f2b_safetensors_write(path, &array, 1, NULL, 0) : F2B_ERR_MEMORY;
    if (status == F2B_OK) status = f2bi_merge_read_back(path, &array, 1);
    f2b_free(path);
    return status;
}

f2b_status f2bi_merge_write_rest(const merge *m)
{
    F2B_TRY(write_summary(m));
    F2B_TRY(write_marker(m));
    return copy_settings(m);
}
