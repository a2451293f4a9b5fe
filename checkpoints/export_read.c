/* Reading an export, strictly. See peft.h for the contract. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"
#include "checkpoints/export_internal.h"
#include "checkpoints/file_checksum.h"
#include "checkpoints/json_internal.h"
#include "checkpoints/method_internal.h"

enum { MAX_INFO_BYTES = 1 << 20 };

static bool folder_has(const char *folder, const char *name)
{
    char *path = f2b_path_join(folder, name);
    const bool there = path && access(path, F_OK) == 0;
    f2b_free(path);
    return there;
}

bool f2b_export_is_one(const char *folder) { return folder_has(folder, F2BI_EXPORT_FILE); }

static char *copy_string(f2bi_json_reader *r, const json_t *object, const char *key)
{
    const char *text = f2bi_json_string(r, object, key, NULL);
    if (!text) {
        f2bi_json_fail(r, "%s is missing", key);
        return NULL;
    }
    char *copy = f2b_strdup(text, F2B_TAG_FILES);
    if (!copy && r->status == F2B_OK) r->status = f2b_last_status();
    return copy;
}

static f2b_status read_info(f2b_export *e, const char *path, const json_t *root)
{
    static const char *const keys[] = { "format",     "version",     "step",     "method",
                                        "base_model", "fingerprint", "adapters", "files" };
    static const char *const forms[] = { "peft", "gguf" };
    f2bi_json_reader r = { path, F2B_OK };
    f2bi_json_known_keys(&r, root, keys, 8);
    if (f2bi_json_get(root, "adapters"))
        e->info.form = (f2b_export_form)f2bi_json_choice(&r, root, "adapters", forms, 2);
    const char *format = f2bi_json_string(&r, root, "format", "");
    const int64_t version = f2bi_json_integer(&r, root, "version", 0, 0, INT64_MAX);
    if (strcmp(format, "fwd2bot-export") != 0 || version != 1)
        f2bi_json_fail(
            &r, "format and version are not those that this program reads (fwd2bot-export, 1)");
    e->info.step = f2bi_json_integer(&r, root, "step", 0, 0, INT64_MAX);
    const json_t *base = f2bi_json_get(root, "base_model");
    e->base_path = copy_string(&r, base, "path");
    e->base_fingerprint = copy_string(&r, base, "fingerprint");
    e->info.base_drawn = f2bi_json_get(base, "seed") != NULL;
    e->info.base_seed = f2bi_json_integer(&r, base, "seed", 0, 0, INT64_MAX);
    e->fingerprint = copy_string(&r, root, "fingerprint");
    if (r.status != F2B_OK) return r.status;
    e->info.base_path = e->base_path;
    e->info.base_fingerprint = e->base_fingerprint;
    e->info.fingerprint = e->fingerprint;
    const json_t *method = f2bi_json_get(root, "method");
    if (!json_is_object(method)) return f2b_fail(F2B_ERR_FORMAT, "%s: method is missing", path);
    return f2bi_method_read(&e->info.method, method, path);
}

/* Every file that the manifest names is what it says, and no other is there. */
static f2b_status check_files(const f2b_export *e, const char *path, const json_t *root)
{
    static const char *const names[] = { F2BI_GGUF_FILES };
    static const char *const keys[] = { "size", "xxh3_128" };
    const json_t *files = f2bi_json_get(root, "files");
    f2bi_json_reader r = { path, F2B_OK };
    f2bi_json_known_keys(&r, files, names, sizeof names / sizeof names[0]);
    for (size_t i = 0; i < sizeof names / sizeof names[0] && r.status == F2B_OK; ++i) {
        const json_t *file = f2bi_json_get(files, names[i]);
        if (!file && folder_has(e->folder, names[i]))
            f2bi_json_fail(&r, "files lacks %s, which is there", names[i]);
        if (!file) continue;
        f2bi_json_known_keys(&r, file, keys, 2);
        f2b_file_checksum want = { .size = f2bi_json_integer(&r, file, "size", -1, 0, INT64_MAX) };
        snprintf(want.xxh3_128, sizeof want.xxh3_128, "%s",
                 f2bi_json_string(&r, file, "xxh3_128", ""));
        if (r.status != F2B_OK) break;
        char *full = f2b_path_join(e->folder, names[i]);
        r.status = full ? f2b_file_checksum_check(full, &want) : f2b_last_status();
        f2b_free(full);
    }
    return r.status;
}

static f2b_status read_info_file(f2b_export *e)
{
    char *path = f2b_path_join(e->folder, F2BI_EXPORT_FILE);
    if (!path) return f2b_last_status();
    json_t *root = f2bi_json_load(path, MAX_INFO_BYTES);
    f2b_status status = root ? read_info(e, path, root) : f2b_last_status();
    if (status == F2B_OK && e->info.form == F2B_EXPORT_GGUF) status = check_files(e, path, root);
    json_decref(root);
    f2b_free(path);
    return status;
}

/* Open folder/name; the handle belongs to the export. */
static f2b_safetensors *open_tensors(f2b_export *e, const char *folder, const char *name)
{
    F2B_CHECK(e->n_files < F2BI_EXPORT_MAX_FILES);
    char *path = f2b_path_join(folder, name);
    f2b_safetensors *file = path ? f2b_safetensors_open(path) : NULL;
    f2b_free(path);
    if (file) e->files[e->n_files++] = file;
    return file;
}

/* `name` is taken over, also on failure. */
static f2b_status add_tensor(f2b_export *e, f2b_named_array t, char *name)
{
    if (e->n == e->capacity) {
        const int64_t capacity = e->capacity ? 2 * e->capacity : 64;
        f2b_named_array *grown =
            f2b_realloc(e->tensors, (size_t)capacity * sizeof *grown, F2B_TAG_FILES);
        if (!grown) {
            f2b_free(name);
            return f2b_last_status();
        }
        e->tensors = grown;
        e->capacity = capacity;
    }
    t.name = name;
    e->tensors[e->n++] = t;
    return F2B_OK;
}

static f2b_status f32_array(const f2b_safetensors *file, const f2b_safetensor *tensor,
                            f2b_named_array *out)
{
    F2B_TRY(f2b_safetensors_array(file, tensor, out));
    if (out->dtype != F2B_F32)
        return f2b_fail(F2B_ERR_FORMAT, "%s: tensor %s is %s; an export is F32",
                        f2b_safetensors_path(file), tensor->name, tensor->type);
    return F2B_OK;
}

static f2b_status check_planned(const f2b_export *e, const char *path, const char *key,
                                const char *name, const f2b_named_array *t)
{
    if (!e->model) return F2B_OK;
    const f2bi_added *added = f2bi_plan_find(&e->plan, name);
    if (!added)
        return f2b_fail(F2B_ERR_FORMAT, "%s: tensor %s has no place in this method or model", path,
                        key);
    char have[F2B_SHAPE_TEXT], want[F2B_SHAPE_TEXT];
    if (!f2b_shape_equal(t->ndim, t->shape, added->ndim, added->shape))
        return f2b_fail(F2B_ERR_FORMAT,
                        "%s: tensor %s has the shape %s, the method and model ask for %s", path,
                        key, f2b_shape_text(t->ndim, t->shape, have),
                        f2b_shape_text(added->ndim, added->shape, want));
    return F2B_OK;
}

f2b_status f2bi_export_add(f2b_export *e, const char *path, const char *key, f2b_named_array t,
                           char *name)
{
    const f2b_status status = check_planned(e, path, key, name, &t);
    if (status == F2B_OK) return add_tensor(e, t, name);
    f2b_free(name);
    return status;
}

static f2b_status read_adapter_file(f2b_export *e, const f2b_safetensors *file,
                                    f2bi_adapter adapter)
{
    for (int64_t i = 0; i < f2b_safetensors_count(file); ++i) {
        const f2b_safetensor *tensor = f2b_safetensors_at(file, i);
        f2b_named_array t;
        F2B_TRY(f32_array(file, tensor, &t));
        char *name = f2bi_adapter_key_name(tensor->name, adapter, f2b_safetensors_path(file));
        if (!name) return f2b_last_status();
        F2B_TRY(f2bi_export_add(e, f2b_safetensors_path(file), tensor->name, t, name));
    }
    return F2B_OK;
}

static f2b_status check_adapter_config(const f2b_export *e, const char *folder)
{
    char *path = f2b_path_join(folder, F2BI_ADAPTER_CONFIG);
    if (!path) return f2b_last_status();
    const f2b_status status = f2bi_adapter_config_check(path, &e->info.method);
    f2b_free(path);
    return status;
}

static f2b_status read_adapter(f2b_export *e, f2bi_adapter adapter, const char *name)
{
    if (e->info.form == F2B_EXPORT_GGUF) return f2bi_gguf_read_adapter(e, adapter, name);
    char *folder = f2b_path_join(e->folder, name);
    if (!folder) return f2b_last_status();
    f2b_status status = check_adapter_config(e, folder);
    const f2b_safetensors *file =
        status == F2B_OK ? open_tensors(e, folder, F2BI_ADAPTER_FILE) : NULL;
    if (status == F2B_OK) status = file ? read_adapter_file(e, file, adapter) : f2b_last_status();
    f2b_free(folder);
    return status;
}

/* One adapter for both stages lies in two GGUF files of the same tensors. */
static f2b_status read_shared_gguf(f2b_export *e)
{
    F2B_TRY(read_adapter(e, F2BI_ADAPTER_SHARED, "compression"));
    const int64_t n = e->n;
    F2B_TRY(read_adapter(e, F2BI_ADAPTER_SHARED, "generation"));
    bool same = e->n == 2 * n;
    for (int64_t i = 0; i < n && same; ++i) {
        const f2b_named_array *a = &e->tensors[i], *b = &e->tensors[n + i];
        same = strcmp(a->name, b->name) == 0
            && f2b_shape_equal(a->ndim, a->shape, b->ndim, b->shape)
            && memcmp(a->data, b->data, (size_t)f2b_named_array_bytes(a)) == 0;
    }
    if (!same)
        return f2b_fail(F2B_ERR_FORMAT, "%s: compression.gguf and generation.gguf differ, but one "
                        "adapter serves both", e->folder);
    while (e->n > n) f2b_free((char *)e->tensors[--e->n].name);
    return F2B_OK;
}

/* One adapter for both stages lies in both folders; they must not differ. */
static f2b_status compare_copies(const f2b_export *e)
{
    const f2b_safetensors *a = e->files[0], *b = e->files[1];
    for (int64_t i = 0; i < f2b_safetensors_count(a); ++i) {
        const f2b_safetensor *x = f2b_safetensors_at(a, i), *y = f2b_safetensors_find(b, x->name);
        if (!y || x->bytes != y->bytes || memcmp(x->data, y->data, (size_t)x->bytes) != 0)
            return f2b_fail(F2B_ERR_FORMAT,
                            "%s: tensor %s differs from %s, but one adapter serves both",
                            f2b_safetensors_path(b), x->name, f2b_safetensors_path(a));
    }
    if (f2b_safetensors_count(a) != f2b_safetensors_count(b))
        return f2b_fail(F2B_ERR_FORMAT, "%s and %s differ, but one adapter serves both",
                        f2b_safetensors_path(a), f2b_safetensors_path(b));
    return F2B_OK;
}

static f2b_status read_shared(f2b_export *e)
{
    if (e->info.form == F2B_EXPORT_GGUF) return read_shared_gguf(e);
    F2B_TRY(read_adapter(e, F2BI_ADAPTER_SHARED, "compression"));
    char *folder = f2b_path_join(e->folder, "generation");
    if (!folder) return f2b_last_status();
    f2b_status status = check_adapter_config(e, folder);
    if (status == F2B_OK && !open_tensors(e, folder, F2BI_ADAPTER_FILE)) status = f2b_last_status();
    if (status == F2B_OK) status = compare_copies(e);
    f2b_free(folder);
    return status;
}

static f2b_status read_plain(f2b_export *e, const char *name, bool planned)
{
    const f2b_safetensors *file = open_tensors(e, e->folder, name);
    if (!file) return f2b_last_status();
    for (int64_t i = 0; i < f2b_safetensors_count(file); ++i) {
        const f2b_safetensor *tensor = f2b_safetensors_at(file, i);
        f2b_named_array t;
        F2B_TRY(f32_array(file, tensor, &t));
        if (planned) F2B_TRY(check_planned(e, f2b_safetensors_path(file), t.name, t.name, &t));
        else if (f2bi_plan_find(&e->plan, t.name) || strstr(t.name, ".lora_"))
            return f2b_fail(F2B_ERR_FORMAT, "%s: tensor %s belongs into an adapter's folder",
                            f2b_safetensors_path(file), t.name);
        char *copy = f2b_strdup(t.name, F2B_TAG_FILES);
        if (!copy) return f2b_last_status();
        F2B_TRY(add_tensor(e, t, copy));
    }
    return F2B_OK;
}

static int compare_names(const void *a, const void *b)
{
    const f2b_named_array *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* Every planned tensor is there once, and all are the ones that were exported. */
static f2b_status check_complete(f2b_export *e)
{
    if (e->n) qsort(e->tensors, (size_t)e->n, sizeof *e->tensors, compare_names);
    for (int64_t i = 1; i < e->n; ++i)
        if (strcmp(e->tensors[i - 1].name, e->tensors[i].name) == 0)
            return f2b_fail(F2B_ERR_FORMAT, "%s: tensor %s is there twice", e->folder,
                            e->tensors[i].name);
    for (int64_t i = 0; i < e->plan.n; ++i)
        if (!f2b_export_find(e, e->plan.items[i].name))
            return f2b_fail(F2B_ERR_FORMAT, "%s: tensor %s is missing; export the run again",
                            e->folder, e->plan.items[i].name);
    char fingerprint[F2B_FINGERPRINT_BYTES];
    F2B_TRY(f2b_fingerprint_tensors(e->tensors, e->n, fingerprint));
    if (strcmp(fingerprint, e->fingerprint) != 0)
        return f2b_fail(
            F2B_ERR_FORMAT,
            "%s is damaged or was changed: its tensors have the fingerprint %s, " F2BI_EXPORT_FILE
            " says %s",
            e->folder, fingerprint, e->fingerprint);
    return F2B_OK;
}

static f2b_status read_all(f2b_export *e, const f2b_model_config *model)
{
    e->model = model;
    F2B_TRY(read_info_file(e));
    F2B_TRY(f2bi_plan_new(&e->plan, &e->info.method, model));
    const bool *has = e->plan.has;
    if (has[F2BI_ADAPTER_SHARED]) F2B_TRY(read_shared(e));
    if (has[F2BI_ADAPTER_COMPRESSION])
        F2B_TRY(read_adapter(e, F2BI_ADAPTER_COMPRESSION, "compression"));
    if (has[F2BI_ADAPTER_GENERATION])
        F2B_TRY(read_adapter(e, F2BI_ADAPTER_GENERATION, "generation"));
    if (e->info.method.forward != F2B_FORWARD_BASE)
        F2B_TRY(e->info.form == F2B_EXPORT_GGUF ? f2bi_gguf_read_summary(e)
                                                : read_plain(e, F2BI_SUMMARY_FILE, true));
    if (folder_has(e->folder, F2BI_TRAINED_FILE)) F2B_TRY(read_plain(e, F2BI_TRAINED_FILE, false));
    e->model = NULL;
    return check_complete(e);
}

f2b_export *f2b_export_open(const char *folder, const f2b_model_config *model)
{
    f2b_export *e = f2b_calloc(1, sizeof *e, F2B_TAG_FILES);
    if (!e) return NULL;
    e->folder = f2b_strdup(folder, F2B_TAG_FILES);
    if (e->folder && read_all(e, model) == F2B_OK) return e;
    f2b_export_close(e);
    return NULL;
}

void f2b_export_close(f2b_export *e)
{
    if (!e) return;
    for (int64_t i = 0; i < e->n; ++i) f2b_free((char *)e->tensors[i].name);
    f2b_free(e->tensors);
    for (int i = 0; i < e->n_files; ++i) f2b_safetensors_close(e->files[i]);
    for (int i = 0; i < e->n_gguf; ++i) {
        f2b_gguf_close(e->gguf[i]);
        f2b_free(e->reordered[i]);
    }
    f2bi_plan_free(&e->plan);
    f2b_free(e->base_path);
    f2b_free(e->base_fingerprint);
    f2b_free(e->fingerprint);
    f2b_free(e->folder);
    f2b_free(e);
}

const f2b_export_info *f2b_export_get_info(const f2b_export *e) { return &e->info; }
int64_t f2b_export_count(const f2b_export *e) { return e->n; }

const f2b_named_array *f2b_export_at(const f2b_export *e, int64_t i)
{
    F2B_CHECK(i >= 0 && i < e->n);
    return &e->tensors[i];
}

const f2b_named_array *f2b_export_find(const f2b_export *e, const char *name)
{
    const f2b_named_array key = { .name = name };
    return e->n ? bsearch(&key, e->tensors, (size_t)e->n, sizeof key, compare_names) : NULL;
}
