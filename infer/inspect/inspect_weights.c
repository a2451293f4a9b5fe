/* Reports on weights: safetensors files, PEFT folders, model folders. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"
#include "checkpoints/model_folder.h"
#include "checkpoints/safetensors.h"
#include "data/image/image_settings.h"
#include "data/tokenizer/tokenizer.h"
#include "infer/inspect/inspect_internal.h"

enum { MAX_CONFIG_BYTES = 1 << 20 };

f2b_status f2bi_list_safetensors(f2bi_report *r, const char *path, const char *file)
{
    f2b_safetensors *f = f2b_safetensors_open(path);
    if (f == NULL) return f2b_last_status();
    for (int64_t i = 0; i < f2b_safetensors_count(f); i++) {
        const f2b_safetensor *t = f2b_safetensors_at(f, i);
        f2b_named_array array = { .dtype = F2B_DTYPES };
        const bool ours = f2b_safetensors_array(f, t, &array) == F2B_OK;
        f2bi_list(r, &(f2bi_listed){ .name = t->name, .type = t->type, .file = file,
                                     .ndim = t->ndim, .shape = t->shape, .bytes = t->bytes,
                                     .dtype = ours ? (int)array.dtype : -1, .data = t->data,
                                     .updates = -1 });
    }
    f2b_safetensors_close(f);
    return F2B_OK;
}

f2b_status f2bi_inspect_safetensors(f2bi_report *r)
{
    f2b_safetensors *f = f2b_safetensors_open(r->path);
    if (f == NULL) return f2b_last_status();
    f2bi_fact_text(r, "format", f2b_safetensors_metadata(f, "format"));
    f2b_safetensors_close(f);
    f2bi_check_status(r, r->path, true);
    f2bi_checksum(r, r->path, r->path);
    return f2bi_list_safetensors(r, r->path, NULL);
}

/* ---- Folders ---- */

static f2b_status json_fact(f2bi_report *r, const char *name)
{
    char *path = f2b_path_join(r->path, name);
    int64_t n = 0;
    char *text = path != NULL ? f2b_read_file(path, MAX_CONFIG_BYTES, &n) : NULL;
    json_error_t error;
    json_t *value = text != NULL ? json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, &error)
                                 : NULL;
    f2b_status status = value != NULL ? F2B_OK : f2b_last_status();
    if (value != NULL) f2bi_fact(r, name, value);
    else if (text != NULL)
        status = f2b_fail(F2B_ERR_FORMAT, "%s:%d: %s", path, error.line, error.text);
    f2b_free(text);
    f2b_free(path);
    return status;
}

static int is_safetensors(const struct dirent *entry)
{
    const size_t n = strlen(entry->d_name);
    return n > 12 && strcmp(entry->d_name + n - 12, ".safetensors") == 0;
}

/* Every safetensors file of the folder; one that cannot be read is a check that failed. */
static f2b_status list_folder(f2bi_report *r)
{
    struct dirent **names = NULL;
    const int n = scandir(r->path, &names, is_safetensors, alphasort);
    if (n < 0) return f2b_fail_errno(F2B_ERR_IO, "cannot list %s", r->path);
    f2b_status status = F2B_OK;
    for (int i = 0; i < n; i++) {
        char *path = f2b_path_join(r->path, names[i]->d_name);
        if (path == NULL) status = f2b_last_status();
        else f2bi_check_status(r, path, f2bi_list_safetensors(r, path, names[i]->d_name) == F2B_OK);
        if (path != NULL) f2bi_checksum(r, path, names[i]->d_name);
        f2b_free(path);
        free(names[i]); /* scandir's own */
    }
    free(names);
    return status;
}

f2b_status f2bi_inspect_peft(f2bi_report *r)
{
    F2B_TRY(json_fact(r, "adapter_config.json"));
    return list_folder(r);
}

static json_t *text_sizes(const f2b_text_config *c)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:b}", "hidden",
                     (json_int_t)c->hidden, "intermediate", (json_int_t)c->intermediate, "layers",
                     (json_int_t)c->layers, "heads", (json_int_t)c->heads, "kv_heads",
                     (json_int_t)c->kv_heads, "head_dim", (json_int_t)c->head_dim, "vocab",
                     (json_int_t)c->vocab, "max_positions", (json_int_t)c->max_positions,
                     "rms_eps", c->rms_eps, "rope_theta", c->rope_theta, "tied_head",
                     c->tied_head);
}

static json_t *vision_sizes(const f2b_model_config *m)
{
    const f2b_vision_config *c = &m->vision;
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "hidden", (json_int_t)c->hidden,
                     "intermediate", (json_int_t)c->intermediate, "layers", (json_int_t)c->layers,
                     "heads", (json_int_t)c->heads, "patch", (json_int_t)c->patch, "image_size",
                     (json_int_t)c->image_size, "feature_layer", (json_int_t)m->feature_layer,
                     "image_tokens", (json_int_t)f2b_image_tokens(m));
}

static void check_parts(f2bi_report *r, bool has_vision)
{
    f2b_tokenizer *tokenizer = f2b_tokenizer_open(r->path);
    if (tokenizer != NULL) f2bi_fact(r, "pieces", json_integer(f2b_tokenizer_pieces(tokenizer)));
    f2bi_check_status(r, "tokenizer", tokenizer != NULL);
    f2b_tokenizer_free(tokenizer);
    f2b_image_settings settings;
    if (has_vision)
        f2bi_check_status(r, "pictures' settings",
                          f2b_image_settings_load(r->path, &settings) == F2B_OK);
}

f2b_status f2bi_inspect_model(f2bi_report *r)
{
    f2b_model_folder *folder = f2b_model_folder_open(r->path, NULL);
    f2bi_check_status(r, "config.json and weights together", folder != NULL);
    if (folder != NULL) {
        const f2b_model_config *config = f2b_model_folder_config(folder);
        f2bi_fact(r, "language_model", text_sizes(&config->text));
        if (config->has_vision) f2bi_fact(r, "vision_tower", vision_sizes(config));
        f2bi_fact_text(r, "image_aspect_ratio", f2b_model_folder_image_aspect_ratio(folder));
        f2bi_fact(r, "has_weights", json_boolean(f2b_model_folder_has_weights(folder)));
        f2bi_fact_text(r, "fingerprint", f2b_model_folder_fingerprint(folder));
        if (r->options->verify) check_parts(r, config->has_vision);
    }
    f2b_model_folder_close(folder);
    if (f2bi_folder_has(r->path, "f2b_merged.json")) F2B_TRY(json_fact(r, "f2b_merged.json"));
    return list_folder(r);
}
