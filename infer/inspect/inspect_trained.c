/* Reports on runs, checkpoints and exports. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"
#include "checkpoints/method_json.h"
#include "checkpoints/peft.h"
#include "checkpoints/state.h"
#include "infer/inspect/inspect_internal.h"

/* ---- Checkpoints ---- */

/* The method is JSON in the file, and becomes a part of the report. */
static json_t *parsed(const char *text)
{
    json_t *value = json_loads(text, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL);
    return value != NULL ? value : f2bi_json_clean(text, strlen(text));
}

static void attribute_fact(f2bi_report *r, const f2b_attribute *a)
{
    switch (a->kind) {
    case F2B_ATTRIBUTE_INTEGER: f2bi_fact(r, a->name, json_integer(a->integer)); break;
    case F2B_ATTRIBUTE_NUMBER:
        /* NaN and infinity are no JSON numbers. */
        f2bi_fact(r, a->name, a->number - a->number == 0 ? json_real(a->number) : json_null());
        break;
    case F2B_ATTRIBUTE_TEXT:
        if (strcmp(a->name, "method") == 0) f2bi_fact(r, a->name, parsed(a->text));
        else f2bi_fact_text(r, a->name, a->text);
        break;
    }
}

static f2b_status list_state_tensor(f2bi_report *r, f2b_state_file *file, int64_t i)
{
    const f2b_state_tensor *t = f2b_state_at(file, i);
    float *values = NULL;
    if (f2bi_wants_norm(r)) {
        values = f2b_alloc_host((size_t)f2b_named_array_bytes(&t->parameter), F2B_TAG_FILES);
        if (values == NULL) return f2b_last_status();
        const f2b_status status = f2b_state_read(file, i, values, NULL, NULL);
        if (status != F2B_OK) {
            f2b_free(values);
            return status;
        }
    }
    const bool moments = f2b_state_has_moments(file, i);
    f2bi_list(r, &(f2bi_listed){ .name = t->parameter.name, .type = "F32",
                                 .ndim = t->parameter.ndim, .shape = t->parameter.shape,
                                 .bytes = f2b_named_array_bytes(&t->parameter),
                                 .dtype = F2B_F32, .data = values,
                                 .updates = moments ? t->updates : -1 });
    f2b_free(values);
    return F2B_OK;
}

static f2b_status report_state(f2bi_report *r, f2b_state_file *file)
{
    int64_t n;
    const f2b_attribute *attributes = f2b_state_attributes(file, &n);
    f2bi_fact(r, "step", json_integer(f2b_state_step(file)));
    for (int64_t i = 0; i < n; i++) attribute_fact(r, &attributes[i]);
    for (int64_t i = 0; i < f2b_state_count(file); i++) F2B_TRY(list_state_tensor(r, file, i));
    return F2B_OK;
}

f2b_status f2bi_inspect_checkpoint(f2bi_report *r)
{
    f2b_state_file *file = f2b_state_open(r->path, NULL, NULL);
    if (file == NULL) return f2b_last_status();
    f2bi_check_status(r, r->path, true);
    f2bi_checksum_in(r, f2b_state_path(file), "state.h5");
    const f2b_status status = report_state(r, file);
    f2b_state_close(file);
    return status;
}

/* ---- Runs ---- */

/* What a killed write left (step-00000120.partial) is none. */
static int is_checkpoint(const struct dirent *entry)
{
    return strncmp(entry->d_name, "step-", 5) == 0 && strchr(entry->d_name, '.') == NULL;
}

/* Every checkpoint's name and, if asked, whether it is sound. */
static f2b_status list_checkpoints(f2bi_report *r, const char *folder)
{
    struct dirent **names = NULL;
    const int n = scandir(folder, &names, is_checkpoint, alphasort);
    json_t *list = json_array();
    f2b_status status = F2B_OK;
    for (int i = 0; i < n; i++) {
        if (json_array_append_new(list, f2bi_json_clean(names[i]->d_name,
                                                        strlen(names[i]->d_name))) != 0)
            r->failed = true;
        char *path = f2b_path_join(folder, names[i]->d_name);
        if (path == NULL) status = f2b_last_status();
        if (r->options->verify && path != NULL) {
            f2b_state_file *file = f2b_state_open(path, NULL, NULL);
            f2bi_check_status(r, path, file != NULL);
            f2b_state_close(file);
        }
        f2b_free(path);
        free(names[i]); /* scandir's own */
    }
    free(names);
    f2bi_fact(r, "checkpoints", list);
    return status;
}

static void passed_over(void *user, const char *text)
{
    f2bi_report *r = user;
    /* With verify each is checked by itself. */
    if (!r->options->verify) f2bi_check(r, "the newest checkpoint", text);
}

f2b_status f2bi_inspect_run(f2bi_report *r)
{
    char *folder = f2b_path_join(r->path, "checkpoints");
    if (folder == NULL) return f2b_last_status();
    f2b_status status = list_checkpoints(r, folder);
    f2b_free(folder);
    F2B_TRY(status);
    f2b_state_file *file = f2b_state_open(r->path, passed_over, r);
    if (file == NULL) {
        /* Nothing was saved yet, or nothing that is left is sound. */
        if (f2b_last_status() == F2B_ERR_NOT_FOUND) return F2B_OK;
        f2bi_check_status(r, r->path, false);
        return F2B_OK;
    }
    f2bi_fact_text(r, "newest", f2b_state_path(file));
    if (!r->options->verify) f2bi_check_status(r, f2b_state_path(file), true);
    f2bi_checksum_in(r, f2b_state_path(file), "state.h5");
    status = report_state(r, file);
    f2b_state_close(file);
    return status;
}

/* ---- Exports ---- */

f2b_status f2bi_inspect_export(f2bi_report *r)
{
    f2b_export *file = f2b_export_open(r->path, NULL);
    if (file == NULL) return f2b_last_status();
    static const char *const files[] = {
        "compression/adapter_model.safetensors", "generation/adapter_model.safetensors",
        "summary_tokens.safetensors", "trained.safetensors",
        "compression.gguf", "generation.gguf", "summary_tokens.gguf",
    };
    f2bi_check_status(r, r->path, true);
    const f2b_export_info *info = f2b_export_get_info(file);
    f2bi_fact_text(r, "form", info->form == F2B_EXPORT_GGUF ? "gguf" : "peft");
    char *method = f2b_method_to_json(&info->method);
    f2bi_fact(r, "step", json_integer(info->step));
    f2bi_fact(r, "method", method != NULL ? parsed(method) : NULL);
    f2bi_fact_text(r, "base_path", info->base_path);
    f2bi_fact_text(r, "base_model", info->base_fingerprint);
    f2bi_fact_text(r, "fingerprint", info->fingerprint);
    f2b_free(method);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        f2bi_checksum_in(r, r->path, files[i]);
    for (int64_t i = 0; i < f2b_export_count(file); i++) {
        const f2b_named_array *t = f2b_export_at(file, i);
        f2bi_list(r, &(f2bi_listed){ .name = t->name, .type = "F32", .ndim = t->ndim,
                                     .shape = t->shape, .bytes = f2b_named_array_bytes(t),
                                     .dtype = t->dtype, .data = t->data, .updates = -1 });
    }
    f2b_export_close(file);
    return F2B_OK;
}
