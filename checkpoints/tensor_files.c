/* The weight files of a folder, sharded or not. See model_internal.h for the contract. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"
#include "checkpoints/json_internal.h"
#include "checkpoints/model_internal.h"

enum { MAX_INDEX_BYTES = 256 << 20 };

static bool ends_in(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n > m && strcmp(text + n - m, end) == 0;
}

static bool folder_has(const char *folder, const char *name)
{
    char *path = f2b_path_join(folder, name);
    const bool there = path && access(path, F_OK) == 0;
    f2b_free(path);
    return there;
}

/* Open folder/name and add it to the set; the file goes to *out. */
static f2b_status add_file(f2bi_tensor_files *set, const char *folder, const char *name)
{
    char *path = f2b_path_join(folder, name);
    f2b_safetensors *file = path ? f2b_safetensors_open(path) : NULL;
    f2b_free(path);
    if (!file) return f2b_last_status();
    f2b_safetensors **grown = f2b_realloc(set->files, (size_t)(set->n + 1) * sizeof *grown,
                                          F2B_TAG_FILES);
    if (!grown) {
        f2b_safetensors_close(file);
        return f2b_last_status();
    }
    set->files = grown;
    set->files[set->n++] = file;
    return F2B_OK;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static const f2b_safetensors *find_file(const f2bi_tensor_files *set, const char *name)
{
    for (int64_t i = 0; i < set->n; ++i)
        if (strcmp(base_name(f2b_safetensors_path(set->files[i])), name) == 0) return set->files[i];
    return NULL;
}

static f2b_status open_indexed(f2bi_tensor_files *set, const char *folder, const char *index_path,
                               const json_t *weight_map)
{
    if (!json_is_object(weight_map))
        return f2b_fail(F2B_ERR_FORMAT, "%s: no weight_map", index_path);
    const char *tensor;
    json_t *value;
    json_object_foreach((json_t *)weight_map, tensor, value) {
        const char *name = json_string_value(value);
        /* A shard lies beside its index: a path could lead anywhere. */
        if (!name || strchr(name, '/') || !ends_in(name, ".safetensors"))
            return f2b_fail(F2B_ERR_FORMAT,
                            "%s: tensor %s: \"%s\" is not the name of a safetensors file",
                            index_path, tensor, name ? name : "");
        const f2b_safetensors *file = find_file(set, name);
        if (!file) {
            if (add_file(set, folder, name) != F2B_OK) return f2b_fail_context("%s", index_path);
            file = set->files[set->n - 1];
        }
        if (!f2b_safetensors_find(file, tensor))
            return f2b_fail(F2B_ERR_FORMAT, "%s: tensor %s is not in %s", index_path, tensor, name);
    }
    return F2B_OK;
}

static f2b_status open_index(f2bi_tensor_files *set, const char *folder)
{
    char *path = f2b_path_join(folder, "model.safetensors.index.json");
    if (!path) return f2b_last_status();
    json_t *root = f2bi_json_load(path, MAX_INDEX_BYTES);
    const f2b_status status =
        root ? open_indexed(set, folder, path, json_object_get(root, "weight_map"))
             : f2b_last_status();
    json_decref(root);
    f2b_free(path);
    return status;
}

static int is_weight_file(const struct dirent *entry)
{
    return ends_in(entry->d_name, ".safetensors") && strncmp(entry->d_name, "adapter_", 8) != 0;
}

static int is_pickle_file(const struct dirent *entry)
{
    return (strncmp(entry->d_name, "pytorch_model", 13) == 0 && ends_in(entry->d_name, ".bin"))
        || (strncmp(entry->d_name, "consolidated", 12) == 0 && ends_in(entry->d_name, ".pth"));
}

static void free_names(struct dirent **names, int n)
{
    for (int i = 0; i < n; ++i) free(names[i]);         /* scandir's own */
    free(names);
}

static f2b_status open_all(f2bi_tensor_files *set, const char *folder)
{
    struct dirent **names = NULL;
    const int n = scandir(folder, &names, is_weight_file, alphasort);
    if (n < 0) return f2b_fail_errno(F2B_ERR_IO, "cannot list %s", folder);
    f2b_status status = F2B_OK;
    for (int i = 0; i < n && status == F2B_OK; ++i)
        status = add_file(set, folder, names[i]->d_name);
    free_names(names, n);
    return status;
}

static f2b_status refuse_pickle(const char *folder)
{
    struct dirent **names = NULL;
    const int n = scandir(folder, &names, is_pickle_file, alphasort);
    if (n <= 0) {
        free_names(names, n);
        return F2B_OK;
    }
    const f2b_status status =
        f2b_fail(F2B_ERR_FORMAT,
                 "%s/%s holds pickle weights, which are programs and are not read; convert them "
                 "to safetensors, e.g. with transformers: "
                 "AutoModel.from_pretrained(X).save_pretrained(Y, safe_serialization=True)",
                 folder, names[0]->d_name);
    free_names(names, n);
    return status;
}

f2b_status f2bi_tensor_files_open(f2bi_tensor_files *set, const char *folder)
{
    *set = (f2bi_tensor_files){ 0 };
    f2b_status status;
    if (folder_has(folder, "model.safetensors.index.json")) status = open_index(set, folder);
    else if (folder_has(folder, "model.safetensors"))
        status = add_file(set, folder, "model.safetensors");
    else status = open_all(set, folder);
    if (status == F2B_OK && set->n == 0) status = refuse_pickle(folder);
    if (status != F2B_OK) f2bi_tensor_files_close(set);
    return status;
}

void f2bi_tensor_files_close(f2bi_tensor_files *set)
{
    for (int64_t i = 0; i < set->n; ++i) f2b_safetensors_close(set->files[i]);
    f2b_free(set->files);
    *set = (f2bi_tensor_files){ 0 };
}
