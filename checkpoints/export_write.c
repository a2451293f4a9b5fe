/* Writing an export. See peft.h for the contract. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"
#include "checkpoints/export_internal.h"
#include "checkpoints/file_checksum.h"
#include "checkpoints/json_internal.h"
#include "checkpoints/method_internal.h"

static const f2b_text_pair pytorch = { "format", "pt" };

typedef f2bi_export_writer writer;

/* Each tensor that the method adds is there once, with its shape; no adapter beside them. */
static f2b_status check_tensors(const writer *w)
{
    int64_t found = 0;
    for (int64_t i = 0; i < w->n; ++i) {
        const f2b_named_array *t = &w->tensors[i];
        const f2bi_added *added = f2bi_plan_find(&w->plan, t->name);
        if (t->dtype != F2B_F32) return f2b_fail(F2B_ERR_INVALID, "tensor %s is not f32", t->name);
        for (int64_t j = 0; j < i && added; ++j)
            if (strcmp(w->tensors[j].name, t->name) == 0)
                return f2b_fail(F2B_ERR_INVALID, "tensor %s is there twice", t->name);
        if (!added && (strstr(t->name, ".lora_") || strcmp(t->name, "summary_tokens") == 0))
            return f2b_fail(F2B_ERR_INVALID, "tensor %s has no place in this method", t->name);
        if (!added) continue;
        char have[F2B_SHAPE_TEXT], want[F2B_SHAPE_TEXT];
        if (!f2b_shape_equal(t->ndim, t->shape, added->ndim, added->shape))
            return f2b_fail(F2B_ERR_INVALID, "tensor %s has the shape %s, the method asks for %s",
                            t->name, f2b_shape_text(t->ndim, t->shape, have),
                            f2b_shape_text(added->ndim, added->shape, want));
        ++found;
    }
    for (int64_t i = 0; i < w->plan.n && found < w->plan.n; ++i) {
        bool there = false;
        for (int64_t j = 0; j < w->n; ++j)
            there = there || strcmp(w->tensors[j].name, w->plan.items[i].name) == 0;
        if (!there)
            return f2b_fail(F2B_ERR_INVALID, "tensor %s is missing", w->plan.items[i].name);
    }
    return F2B_OK;
}

static f2b_status write_json(const char *folder, const char *name, const json_t *value)
{
    char *path = f2b_path_join(folder, name);
    char *text = path ? f2bi_json_text(value, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    const f2b_status status = text ? f2b_write_file(path, text, strlen(text)) : f2b_last_status();
    f2b_free(text);
    f2b_free(path);
    return status;
}

static f2b_status write_tensors(const char *folder, const char *name,
                                const f2b_named_array *tensors, int64_t n)
{
    char *path = f2b_path_join(folder, name);
    if (!path) return f2b_last_status();
    const f2b_status status = f2b_safetensors_write(path, tensors, n, &pytorch, 1);
    f2b_free(path);
    return status;
}

/* The adapter's tensors under PEFT's keys; keys[i] are owned by the caller, also on failure. */
static f2b_status collect(const writer *w, f2bi_adapter adapter, f2b_named_array *out, char **keys,
                          int64_t *n)
{
    for (int64_t i = 0; i < w->n; ++i) {
        const f2bi_added *added = f2bi_plan_find(&w->plan, w->tensors[i].name);
        if (!added || !added->module || added->adapter != adapter) continue;
        keys[*n] = f2bi_adapter_key(added, w->names);
        if (!keys[*n]) return f2b_last_status();
        out[*n] = w->tensors[i];
        out[*n].name = keys[*n];
        ++*n;
    }
    return F2B_OK;
}

static f2b_status write_adapter_tensors(const writer *w, f2bi_adapter adapter, const char *folder)
{
    f2b_named_array *out = f2b_calloc((size_t)w->n, sizeof *out, F2B_TAG_FILES);
    char **keys = f2b_calloc((size_t)w->n, sizeof *keys, F2B_TAG_FILES);
    int64_t n = 0;
    f2b_status status = out && keys ? collect(w, adapter, out, keys, &n) : f2b_last_status();
    if (status == F2B_OK) status = write_tensors(folder, F2BI_ADAPTER_FILE, out, n);
    for (int64_t i = 0; i < n; ++i) f2b_free(keys[i]);
    f2b_free(keys);
    f2b_free(out);
    return status;
}

/* The PEFT folder `name` with the adapter's files. */
static f2b_status write_peft(const writer *w, f2bi_adapter adapter, const char *name)
{
    char *folder = f2b_path_join(w->folder, name);
    if (!folder) return f2b_last_status();
    json_t *config = f2bi_adapter_config(&w->plan, adapter, w->info, w->model, w->names);
    f2b_status status = config ? f2b_make_folders(folder) : f2b_last_status();
    if (status == F2B_OK) status = write_json(folder, F2BI_ADAPTER_CONFIG, config);
    if (status == F2B_OK) status = write_adapter_tensors(w, adapter, folder);
    if (status == F2B_OK) status = f2b_sync_path(folder);
    json_decref(config);
    f2b_free(folder);
    return status;
}

static f2b_status write_adapter(const writer *w, f2bi_adapter adapter, const char *name)
{
    if (w->info->form == F2B_EXPORT_PEFT) return write_peft(w, adapter, name);
    char file[64];
    snprintf(file, sizeof file, "%s.gguf", name);
    return f2bi_gguf_write_adapter(w, adapter, file);
}

/* {"name": {"size", "xxh3_128"}} of every file that is in the folder. */
static f2b_status add_checksums(const writer *w, json_t *root)
{
    static const char *const names[] = { F2BI_GGUF_FILES };
    json_t *files = json_object();
    f2b_status status = F2B_OK;
    for (size_t i = 0; i < sizeof names / sizeof names[0] && status == F2B_OK; ++i) {
        char *path = f2b_path_join(w->folder, names[i]);
        f2b_file_checksum sum;
        if (!path) status = f2b_last_status();
        else if (access(path, F_OK) == 0) {
            status = f2b_file_checksum_seal(path, &sum);
            if (status == F2B_OK)
                json_object_set_new(files, names[i],
                                    json_pack("{s:I, s:s}", "size", (json_int_t)sum.size,
                                              "xxh3_128", sum.xxh3_128));
        }
        f2b_free(path);
    }
    json_object_set_new(root, "adapters", json_string("gguf"));
    json_object_set_new(root, "files", files);
    return status;
}

static f2b_status write_info(const writer *w)
{
    char fingerprint[F2B_FINGERPRINT_BYTES];
    F2B_TRY(f2b_fingerprint_tensors(w->tensors, w->n, fingerprint));
    json_t *method = f2bi_method_object(&w->info->method);
    if (!method) return f2b_last_status();
    json_t *root = json_pack("{s:s, s:i, s:I, s:o, s:{s:s, s:s}, s:s}", "format", "fwd2bot-export",
                             "version", 1, "step", (json_int_t)w->info->step, "method", method,
                             "base_model", "path", w->info->base_path, "fingerprint",
                             w->info->base_fingerprint, "fingerprint", fingerprint);
    if (root && w->info->base_drawn)
        json_object_set_new(json_object_get(root, "base_model"), "seed",
                            json_integer((json_int_t)w->info->base_seed));
    f2b_status status =
        root ? F2B_OK : f2b_fail(F2B_ERR_INVALID, "the base model's path is not UTF-8");
    if (status == F2B_OK && w->info->form == F2B_EXPORT_GGUF) status = add_checksums(w, root);
    if (status == F2B_OK) status = write_json(w->folder, F2BI_EXPORT_FILE, root);
    json_decref(root);
    return status;
}

static f2b_status write_summary(const writer *w, const f2b_named_array *summary)
{
    return w->info->form == F2B_EXPORT_GGUF
               ? f2bi_gguf_write_summary(w, summary)
               : write_tensors(w->folder, F2BI_SUMMARY_FILE, summary, 1);
}

/* Summary tokens in their own file, which llama.cpp's converter must not meet among adapters; all
 * that is not an adapter's in another. */
static f2b_status write_rest(const writer *w)
{
    f2b_named_array *rest = f2b_calloc((size_t)w->n, sizeof *rest, F2B_TAG_FILES);
    if (!rest) return f2b_last_status();
    int64_t n = 0;
    f2b_status status = F2B_OK;
    for (int64_t i = 0; i < w->n && status == F2B_OK; ++i) {
        const f2bi_added *added = f2bi_plan_find(&w->plan, w->tensors[i].name);
        if (!added) rest[n++] = w->tensors[i];
        else if (!added->module) status = write_summary(w, &w->tensors[i]);
    }
    if (status == F2B_OK && n > 0) status = write_tensors(w->folder, F2BI_TRAINED_FILE, rest, n);
    f2b_free(rest);
    return status;
}

static f2b_status write_all(const writer *w)
{
    F2B_TRY(check_tensors(w));
    if (w->info->form == F2B_EXPORT_GGUF) F2B_TRY(f2bi_gguf_check(w));
    const bool *has = w->plan.has;
    if (has[F2BI_ADAPTER_SHARED]) {
        F2B_TRY(write_adapter(w, F2BI_ADAPTER_SHARED, "compression"));
        F2B_TRY(write_adapter(w, F2BI_ADAPTER_SHARED, "generation"));
    }
    if (has[F2BI_ADAPTER_COMPRESSION])
        F2B_TRY(write_adapter(w, F2BI_ADAPTER_COMPRESSION, "compression"));
    if (has[F2BI_ADAPTER_GENERATION])
        F2B_TRY(write_adapter(w, F2BI_ADAPTER_GENERATION, "generation"));
    F2B_TRY(write_rest(w));
    return write_info(w);
}

/* An export that loads and silently does nothing is worse than none: all must come back. */
static f2b_status read_back(const writer *w)
{
    f2b_export *file = f2b_export_open(w->folder, w->model);
    if (!file) return f2b_fail_context("the export was read back and refused");
    f2b_status status = f2b_export_count(file) == w->n ? F2B_OK
        : f2b_fail(F2B_ERR_FORMAT, "the export was read back with %lld tensors, not %lld",
                   (long long)f2b_export_count(file), (long long)w->n);
    for (int64_t i = 0; i < w->n && status == F2B_OK; ++i) {
        const f2b_named_array *want = &w->tensors[i], *have = f2b_export_find(file, want->name);
        if (!have || !f2b_shape_equal(have->ndim, have->shape, want->ndim, want->shape)
            || memcmp(have->data, want->data, (size_t)f2b_named_array_bytes(want)) != 0)
            status = f2b_fail(F2B_ERR_FORMAT, "tensor %s was not read back as it was written",
                              want->name);
    }
    f2b_export_close(file);
    return status;
}

f2b_status f2b_export_write(const char *folder, const f2b_export_info *info,
                            const f2b_model_config *model, const f2b_named_array *tensors,
                            int64_t n, const f2b_export_options *options)
{
    static const f2b_export_options defaults;
    const f2b_export_options *o = options ? options : &defaults;
    F2B_TRY(f2b_folder_check_free(folder, F2BI_EXPORT_FILE));
    writer w = { .info = info, .model = model, .names = o->names, .tensors = tensors, .n = n };
    F2B_TRY(f2bi_export_names(&w.names, model));
    F2B_TRY(f2bi_plan_new(&w.plan, &info->method, model));
    char *partial = f2b_folder_begin(folder);
    w.folder = partial;
    f2b_status status = partial ? write_all(&w) : f2b_last_status();
    if (status == F2B_OK) status = read_back(&w);
    if (status == F2B_OK && o->prove) status = o->prove(o->user, partial);
    if (status == F2B_OK) status = f2b_folder_commit(folder);
    if (status != F2B_OK && partial) {
        f2b_error error;
        f2b_error_take(&error);
        (void)!f2b_folder_remove(partial);
        status = f2b_fail(error.code, "%s", error.text);
    }
    f2b_free(partial);
    f2bi_plan_free(&w.plan);
    return status;
}
