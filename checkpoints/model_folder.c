/* A model's tensors by their one name. See model_folder.h for the contract. */
#include "checkpoints/model_folder.h"

#include <stdlib.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "checkpoints/fingerprint_internal.h"
#include "checkpoints/model_internal.h"

typedef struct entry {
    char *name;                 /* the one name */
    const f2b_safetensors *file;
    const f2b_safetensor *tensor;
    bool used;
} entry;

struct f2b_model_folder {
    char *path, *vision_path, *aspect_ratio;
    f2b_model_config config;
    f2bi_tensor_files files, vision_files;
    entry *entries;             /* sorted by name */
    int64_t count;
    char fingerprint[F2B_FINGERPRINT_BYTES];   /* "" until asked for */
};

void f2b_model_folder_release(f2b_model_folder *folder, const void *data, int64_t bytes)
{
    const f2bi_tensor_files *const sets[] = { &folder->files, &folder->vision_files };
    for (int s = 0; s < 2; s++)
        for (int64_t i = 0; i < sets[s]->n; i++)
            f2b_safetensors_release(sets[s]->files[i], data, bytes);
}

static bool is_vision(const char *name) { return strncmp(name, "vision_tower.", 13) == 0; }

static int64_t count_tensors(const f2bi_tensor_files *set)
{
    int64_t n = 0;
    for (int64_t i = 0; i < set->n; ++i) n += f2b_safetensors_count(set->files[i]);
    return n;
}

/* Of the CLIP folder only the tower is taken; then the model's own tower, if any, is not. */
static f2b_status add_tensors(f2b_model_folder *folder, const f2bi_tensor_files *set, bool clip)
{
    for (int64_t i = 0; i < set->n; ++i)
        for (int64_t j = 0; j < f2b_safetensors_count(set->files[i]); ++j) {
            const f2b_safetensor *tensor = f2b_safetensors_at(set->files[i], j);
            if (f2bi_weight_is_ignored(tensor->name)) continue;
            char *name = f2bi_weight_name(tensor->name);
            if (!name) return f2b_last_status();
            const bool wanted = clip ? is_vision(name) : !(folder->vision_path && is_vision(name));
            if (wanted)
                folder->entries[folder->count++] = (entry){ name, set->files[i], tensor, false };
            else f2b_free(name);
        }
    return F2B_OK;
}

static int compare_entries(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static f2b_status index_tensors(f2b_model_folder *folder)
{
    const int64_t room = count_tensors(&folder->files) + count_tensors(&folder->vision_files);
    folder->entries = f2b_calloc((size_t)room, sizeof *folder->entries, F2B_TAG_FILES);
    if (!folder->entries) return f2b_last_status();
    F2B_TRY(add_tensors(folder, &folder->files, false));
    F2B_TRY(add_tensors(folder, &folder->vision_files, true));
    qsort(folder->entries, (size_t)folder->count, sizeof *folder->entries, compare_entries);
    for (int64_t i = 1; i < folder->count; ++i) {
        const entry *a = &folder->entries[i - 1], *b = &folder->entries[i];
        if (strcmp(a->name, b->name) == 0)
            return f2b_fail(F2B_ERR_FORMAT, "two tensors for %s: %s in %s and %s in %s", a->name,
                            a->tensor->name, f2b_safetensors_path(a->file), b->tensor->name,
                            f2b_safetensors_path(b->file));
    }
    return F2B_OK;
}

static f2b_status open_folder(f2b_model_folder *folder)
{
    F2B_TRY(f2bi_model_config_read(folder->path, folder->vision_path, &folder->config,
                                   &folder->aspect_ratio));
    F2B_TRY(f2bi_tensor_files_open(&folder->files, folder->path));
    if (folder->vision_path && folder->config.has_vision) {
        F2B_TRY(f2bi_tensor_files_open(&folder->vision_files, folder->vision_path));
        if (folder->vision_files.n == 0 && folder->files.n > 0)
            return f2b_fail(F2B_ERR_FORMAT, "%s has no weights (safetensors)", folder->vision_path);
        if (folder->vision_files.n > 0 && folder->files.n == 0)
            return f2b_fail(F2B_ERR_FORMAT,
                            "%s has no weights (safetensors), %s has; a random start is of both, so "
                            "name a tower's folder with its config.json alone",
                            folder->path, folder->vision_path);
    }
    return index_tensors(folder);
}

f2b_status f2b_model_config_load(const char *path, const char *vision_path, f2b_model_config *config)
{
    char *aspect_ratio = NULL;
    const f2b_status status = f2bi_model_config_read(path, vision_path, config, &aspect_ratio);
    f2b_free(aspect_ratio);
    return status;
}

f2b_model_folder *f2b_model_folder_open(const char *path, const char *vision_path)
{
    f2b_model_folder *folder = f2b_calloc(1, sizeof *folder, F2B_TAG_FILES);
    if (!folder) return NULL;
    folder->path = f2b_strdup(path, F2B_TAG_FILES);
    folder->vision_path = vision_path ? f2b_strdup(vision_path, F2B_TAG_FILES) : NULL;
    const bool named = folder->path && (folder->vision_path || !vision_path);
    if (named && open_folder(folder) == F2B_OK) return folder;
    f2b_model_folder_close(folder);
    return NULL;
}

void f2b_model_folder_close(f2b_model_folder *folder)
{
    if (!folder) return;
    for (int64_t i = 0; i < folder->count; ++i) f2b_free(folder->entries[i].name);
    f2b_free(folder->entries);
    f2bi_tensor_files_close(&folder->files);
    f2bi_tensor_files_close(&folder->vision_files);
    f2b_free(folder->path);
    f2b_free(folder->vision_path);
    f2b_free(folder->aspect_ratio);
    f2b_free(folder);
}

const char *f2b_model_folder_path(const f2b_model_folder *folder) { return folder->path; }
const char *f2b_model_folder_vision_path(const f2b_model_folder *folder)
{
    return folder->vision_path;
}
const f2b_model_config *f2b_model_folder_config(const f2b_model_folder *folder)
{
    return &folder->config;
}
const char *f2b_model_folder_image_aspect_ratio(const f2b_model_folder *folder)
{
    return folder->aspect_ratio;
}
bool f2b_model_folder_has_weights(const f2b_model_folder *folder) { return folder->files.n > 0; }
int64_t f2b_model_folder_count(const f2b_model_folder *folder) { return folder->count; }

const char *f2b_model_folder_name(const f2b_model_folder *folder, int64_t i)
{
    F2B_CHECK(i >= 0 && i < folder->count);
    return folder->entries[i].name;
}

bool f2b_model_folder_is_unused(const f2b_model_folder *folder, int64_t i)
{
    F2B_CHECK(i >= 0 && i < folder->count);
    return !folder->entries[i].used;
}

static entry *find_entry(const f2b_model_folder *folder, const char *name)
{
    const entry key = { .name = (char *)name };
    return bsearch(&key, folder->entries, (size_t)folder->count, sizeof key, compare_entries);
}

bool f2b_model_folder_contains(const f2b_model_folder *folder, const char *name)
{
    return find_entry(folder, name) != NULL;
}

bool f2b_model_folder_is_projector(const char *name)
{
    return strncmp(name, "multi_modal_projector.", 22) == 0;
}

bool f2b_model_folder_has_projector(const f2b_model_folder *folder)
{
    for (int64_t i = 0; i < folder->count; ++i)
        if (f2b_model_folder_is_projector(folder->entries[i].name)) return true;
    return false;
}

static f2b_status missing(const f2b_model_folder *folder, const char *name)
{
    if (!f2b_model_folder_has_weights(folder))
        return f2b_fail(F2B_ERR_FORMAT,
                        "%s has a config.json but no weights; tensor %s was asked for",
                        folder->path, name);
    bool any_vision = false;
    for (int64_t i = 0; i < folder->count; ++i)
        any_vision = any_vision || is_vision(folder->entries[i].name);
    if (is_vision(name) && !any_vision)
        return f2b_fail(F2B_ERR_FORMAT,
                        "%s has no vision tower; set model.vision_path to the folder of "
                        "its CLIP model (openai/clip-vit-large-patch14-336 for LLaVA-1.5)",
                        folder->path);
    if (f2b_model_folder_is_projector(name) && !f2b_model_folder_has_projector(folder))
        return f2b_fail(F2B_ERR_FORMAT,
                        "%s has no projector; trainable.projector: true trains a new one, "
                        "or name the folder of a whole LLaVA",
                        folder->path);
    return f2b_fail(F2B_ERR_FORMAT, "%s: tensor %s is missing",
                    is_vision(name) && folder->vision_path ? folder->vision_path : folder->path,
                    name);
}

static f2b_status entry_array(const entry *e, f2b_named_array *out)
{
    F2B_TRY(f2b_safetensors_array(e->file, e->tensor, out));
    if (out->dtype != F2B_F32 && out->dtype != F2B_F16 && out->dtype != F2B_BF16)
        return f2b_fail(F2B_ERR_DTYPE,
                        "%s: tensor %s has the type %s; weights are F32, F16 or BF16",
                        f2b_safetensors_path(e->file), e->tensor->name, e->tensor->type);
    out->name = e->name;
    return F2B_OK;
}

f2b_status f2b_model_folder_get(const f2b_model_folder *folder, int64_t i, f2b_named_array *out)
{
    return entry_array(&folder->entries[i], out);
}

f2b_status f2b_model_folder_find(f2b_model_folder *folder, const char *name, int ndim,
                                 const int64_t *shape, f2b_named_array *out)
{
    entry *e = find_entry(folder, name);
    if (!e) return missing(folder, name);
    F2B_TRY(entry_array(e, out));
    if (!f2b_shape_equal(ndim, shape, out->ndim, out->shape)) {
        char want[F2B_SHAPE_TEXT], have[F2B_SHAPE_TEXT];
        return f2b_fail(
            F2B_ERR_FORMAT, "%s: tensor %s (%s) has the shape %s, but config.json asks for %s",
            f2b_safetensors_path(e->file), name, e->tensor->name,
            f2b_shape_text(out->ndim, out->shape, have), f2b_shape_text(ndim, shape, want));
    }
    e->used = true;
    return F2B_OK;
}

const char *f2b_model_folder_fingerprint(f2b_model_folder *folder)
{
    if (folder->fingerprint[0] != '\0') return folder->fingerprint;
    f2bi_fingerprint *hash = f2bi_fingerprint_new();
    if (!hash) return NULL;
    f2bi_fingerprint_config(hash, &folder->config);
    for (int64_t i = 0; i < folder->count; ++i) {
        const f2b_safetensor *tensor = folder->entries[i].tensor;
        f2bi_fingerprint_tensor(hash, folder->entries[i].name, tensor);
        /* A few blocks are read, but the system maps up to 2 MiB around each. */
        f2b_model_folder_release(folder, tensor->data, tensor->bytes);
    }
    f2bi_fingerprint_end(hash, folder->fingerprint);
    return folder->fingerprint;
}
