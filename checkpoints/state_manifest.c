/*
 * manifest.json: {"format":"fwd2bot-checkpoint","version":1,"step":N,"files":{"state.h5":
 * {"size":N,"xxh3_128":"32 hex digits"}}}. Every value is compared and no other key is allowed, so
 * that a flipped bit in the manifest itself is found too.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"
#include "checkpoints/json_internal.h"
#include "checkpoints/state_internal.h"

#define FORMAT "fwd2bot-checkpoint"
enum { VERSION = 1, MAX_MANIFEST = 1 << 20 };

f2b_status f2bi_manifest_write(const char *folder, int64_t step, const f2b_file_checksum *sum)
{
    char *path = f2b_path_join(folder, F2BI_MANIFEST_FILE), text[512];
    if (!path) return f2b_last_status();
    const int n = snprintf(text, sizeof text,
                           "{\"format\":\"" FORMAT "\",\"version\":%d,\"step\":%" PRId64 ",\"files\":{"
                           "\"" F2BI_STATE_FILE "\":{\"size\":%" PRId64 ",\"xxh3_128\":\"%s\"}}}\n",
                           VERSION, step, sum->size, sum->xxh3_128);
    const f2b_status status = f2b_write_file(path, text, (size_t)n);
    f2b_free(path);
    return status;
}

typedef struct expected {
    int64_t step;
    f2b_file_checksum file;
} expected;

static f2b_status read_manifest(const char *path, expected *out)
{
    static const char *const keys[] = { "format", "version", "step", "files" };
    static const char *const files_keys[] = { F2BI_STATE_FILE };
    static const char *const file_keys[] = { "size", "xxh3_128" };
    json_t *root = f2bi_json_load(path, MAX_MANIFEST);
    if (!root) return f2b_last_status();
    f2bi_json_reader r = { path, F2B_OK };
    const json_t *files = json_object_get(root, "files");
    const json_t *file = json_object_get(files, F2BI_STATE_FILE);
    f2bi_json_known_keys(&r, root, keys, 4);
    f2bi_json_known_keys(&r, files, files_keys, 1);
    f2bi_json_known_keys(&r, file, file_keys, 2);
    const char *format = f2bi_json_string(&r, root, "format", "");
    const int64_t version = f2bi_json_integer(&r, root, "version", 0, 0, INT64_MAX);
    out->step = f2bi_json_integer(&r, root, "step", -1, 0, INT64_MAX);
    out->file.size = f2bi_json_integer(&r, file, "size", -1, 0, INT64_MAX);
    const char *hash = f2bi_json_string(&r, file, "xxh3_128", "");
    if (strcmp(format, FORMAT) != 0) f2bi_json_fail(&r, "the manifest's format is not " FORMAT);
    if (version != VERSION)
        f2bi_json_fail(&r, "the manifest's version is %" PRId64 "; this program reads %d", version,
                       VERSION);
    if (out->step < 0 || out->file.size < 0 || strlen(hash) != F2B_CHECKSUM_TEXT - 1)
        f2bi_json_fail(&r, "the manifest is damaged: step, size or xxh3_128 is missing");
    else strcpy(out->file.xxh3_128, hash);
    json_decref(root);
    return r.status;
}

f2b_status f2bi_manifest_check(const char *folder, int64_t *step)
{
    char *state = f2b_path_join(folder, F2BI_STATE_FILE);
    char *manifest = f2b_path_join(folder, F2BI_MANIFEST_FILE);
    expected want;
    f2b_status status = state && manifest ? read_manifest(manifest, &want) : f2b_last_status();
    if (status == F2B_OK) status = f2b_file_checksum_check(state, &want.file);
    if (status == F2B_OK) *step = want.step;
    f2b_free(state);
    f2b_free(manifest);
    return status;
}
