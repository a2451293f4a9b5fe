/*
 * store.json. Every value is compared with what the shards say or are, and no other key is allowed,
 * so that a flipped bit in it is found too.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"
#include "checkpoints/json_internal.h"
#include "checkpoints/method_json.h"
#include "checkpoints/store_internal.h"

#define FORMAT "fwd2bot-store"
enum { VERSION = 1, MAX_MANIFEST = 256 << 20, MAX_SHARDS = 1 << 24 };

char *f2bi_store_shard_path(const char *path, int64_t shard)
{
    char name[40];
    snprintf(name, sizeof name, "shard-%05" PRId64 ".h5", shard);
    return f2b_path_join(path, name);
}

int64_t f2bi_store_manifest_images(const f2bi_store_manifest *m)
{
    return m->n > 0 ? m->shards[m->n - 1].first + m->shards[m->n - 1].images : 0;
}

int64_t f2bi_store_token_bytes(const f2bi_store_manifest *m, int64_t images)
{
    return images * m->identity.tokens * m->identity.width * 2;
}

void f2bi_store_manifest_clear(f2bi_store_manifest *m)
{
    for (int64_t i = 0; i < m->n; i++) f2b_free(m->shards[i].path);
    f2b_free(m->shards);
    f2b_free(m->method);
    f2b_free(m->path);
    *m = (f2bi_store_manifest){ 0 };
}

f2b_status f2bi_store_manifest_init(f2bi_store_manifest *m, const char *path,
                                    const f2b_store_identity *identity)
{
    *m = (f2bi_store_manifest){ .identity = *identity };
    if (identity->tokens < 1 || identity->tokens > F2BI_STORE_MAX_TOKENS || identity->width < 1 ||
        identity->width > F2BI_STORE_MAX_WIDTH)
        return f2b_fail(F2B_ERR_INVALID, "a store of %" PRId64 " tokens of width %" PRId64,
                        identity->tokens, identity->width);
    m->path = f2b_strdup(path, F2B_TAG_FILES);
    m->method = f2b_method_to_json(&identity->method);
    return m->path && m->method ? F2B_OK : f2b_last_status();
}

f2b_status f2bi_store_manifest_add(f2bi_store_manifest *m, f2bi_store_entry entry)
{
    if (m->n == m->room) {
        const int64_t room = 2 * m->room + 16;
        f2bi_store_entry *grown =
            f2b_realloc(m->shards, (size_t)room * sizeof *grown, F2B_TAG_FILES);
        if (!grown) return f2b_last_status();
        m->shards = grown;
        m->room = room;
    }
    entry.first = f2bi_store_manifest_images(m);
    entry.path = f2bi_store_shard_path(m->path, m->n);
    if (!entry.path) return f2b_last_status();
    m->shards[m->n++] = entry;
    return F2B_OK;
}

/* ---- Writing ---- */

static json_t *shard_json(const f2bi_store_entry *s)
{
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:s, s:s}", "file", strrchr(s->path, '/') + 1,
                     "images", (json_int_t)s->images, "duplicates", (json_int_t)s->duplicates,
                     "size", (json_int_t)s->size, "tokens_offset", (json_int_t)s->offset,
                     "xxh3_128", s->checksum, "xxh3_128_without_tokens", s->rest);
}

static json_t *manifest_json(const f2bi_store_manifest *m)
{
    const f2b_store_identity *id = &m->identity;
    json_t *shards = json_array();
    bool complete = shards != NULL;
    for (int64_t i = 0; i < m->n; i++)
        complete = json_array_append_new(shards, shard_json(&m->shards[i])) == 0 && complete;
    json_t *root = json_pack("{s:s, s:i, s:I, s:I, s:s, s:s, s:s, s:s, s:o, s:o}", "format", FORMAT,
                             "version", VERSION, "tokens", (json_int_t)id->tokens, "width",
                             (json_int_t)id->width, "base_model", id->base, "adapter", id->adapter,
                             "precision", id->precision, "weights", id->weights, "method",
                             json_loads(m->method, 0, NULL), "shards", shards);
    if (root && complete) return root;
    json_decref(root);
    (void)f2b_fail(F2B_ERR_MEMORY, "no memory for %s/" F2B_STORE_FILE, m->path);
    return NULL;
}

f2b_status f2bi_store_manifest_write(const f2bi_store_manifest *m)
{
    json_t *root = manifest_json(m);
    char *path = f2b_path_join(m->path, F2B_STORE_FILE);
    char *text = root ? f2bi_json_text(root, JSON_INDENT(1)) : NULL;
    char *line = text ? f2b_sprintf(F2B_TAG_FILES, "%s\n", text) : NULL;
    const f2b_status status =
        path && line ? f2b_write_file(path, line, strlen(line)) : f2b_last_status();
    json_decref(root);
    f2b_free(path);
    f2b_free(text);
    f2b_free(line);
    return status;
}

/* ---- Reading ---- */

static void take_text(f2bi_json_reader *r, const json_t *object, const char *key, char *out,
                      size_t size)
{
    const char *text = f2bi_json_string(r, object, key, "");
    if (text[0] == '\0' || strlen(text) >= size)
        f2bi_json_fail(r, "%s is missing or no such text", key);
    else strcpy(out, text);
}

static void take_identity(f2bi_json_reader *r, const json_t *root, f2b_store_identity *id)
{
    id->tokens = f2bi_json_integer(r, root, "tokens", 0, 1, F2BI_STORE_MAX_TOKENS);
    id->width = f2bi_json_integer(r, root, "width", 0, 1, F2BI_STORE_MAX_WIDTH);
    if (id->tokens == 0 || id->width == 0) f2bi_json_fail(r, "tokens or width is missing");
    take_text(r, root, "base_model", id->base, sizeof id->base);
    take_text(r, root, "adapter", id->adapter, sizeof id->adapter);
    take_text(r, root, "precision", id->precision, sizeof id->precision);
    take_text(r, root, "weights", id->weights, sizeof id->weights);
    if (!json_is_object(json_object_get(root, "method"))) f2bi_json_fail(r, "method is missing");
    if (r->status != F2B_OK) return;
    char *method = f2bi_json_text(json_object_get(root, "method"), 0);
    r->status = method ? f2b_method_from_json(&id->method, method, r->file) : f2b_last_status();
    f2b_free(method);
}

static f2b_status take_shard(f2bi_json_reader *r, const json_t *object, f2bi_store_manifest *m)
{
    static const char *const keys[] = { "file",          "images",   "duplicates",
                                        "size",          "xxh3_128", "xxh3_128_without_tokens",
                                        "tokens_offset" };
    f2bi_json_known_keys(r, object, keys, 7);
    f2bi_store_entry s = { 0 };
    if (!json_is_object(object)) {
        f2bi_json_fail(r, "shard %" PRId64 " is not an object", m->n);
        return r->status;
    }
    s.images = f2bi_json_integer(r, object, "images", -1, 0, F2BI_STORE_MAX_IMAGES);
    s.duplicates = f2bi_json_integer(r, object, "duplicates", -1, 0, INT32_MAX);
    s.size = f2bi_json_integer(r, object, "size", -1, 0, INT64_MAX / 2);
    s.offset = f2bi_json_integer(r, object, "tokens_offset", -1, 0, INT64_MAX / 4);
    take_text(r, object, "xxh3_128", s.checksum, sizeof s.checksum);
    take_text(r, object, "xxh3_128_without_tokens", s.rest, sizeof s.rest);
    const char *file = f2bi_json_string(r, object, "file", "");
    if (s.images < 0 || s.duplicates < 0 || s.size < 0 || s.offset < 0)
        f2bi_json_fail(r, "shard %" PRId64 ": a size is missing", m->n);
    else if (s.offset % 2 != 0 || f2bi_store_token_bytes(m, s.images) > s.size - s.offset)
        f2bi_json_fail(r, "shard %" PRId64 ": the tokens do not lie in the file", m->n);
    if (r->status != F2B_OK) return r->status;
    F2B_TRY(f2bi_store_manifest_add(m, s));
    if (strcmp(strrchr(m->shards[m->n - 1].path, '/') + 1, file) != 0)
        f2bi_json_fail(r, "shard %" PRId64 " is called %.40s", m->n - 1, file);
    return r->status;
}

static f2b_status read_manifest(f2bi_store_manifest *m, const char *file, const json_t *root)
{
    static const char *const keys[] = { "format",  "version",   "tokens",  "width",  "base_model",
                                        "adapter", "precision", "weights", "method", "shards" };
    f2bi_json_reader r = { file, F2B_OK };
    const char *format = f2bi_json_string(&r, root, "format", "");
    const int64_t version = f2bi_json_integer(&r, root, "version", 0, 0, INT64_MAX);
    if (strcmp(format, FORMAT) != 0) f2bi_json_fail(&r, "its format is not " FORMAT);
    if (version != VERSION)
        f2bi_json_fail(&r, "its version is %" PRId64 "; this program reads %d", version, VERSION);
    f2bi_json_known_keys(&r, root, keys, 10);
    take_identity(&r, root, &m->identity);
    const json_t *shards = json_object_get(root, "shards");
    if (!json_is_array(shards) || json_array_size(shards) > MAX_SHARDS)
        f2bi_json_fail(&r, "`shards` is not a list");
    if (r.status == F2B_OK && !(m->method = f2b_method_to_json(&m->identity.method)))
        return f2b_last_status();
    for (size_t i = 0; r.status == F2B_OK && i < json_array_size(shards); i++)
        F2B_TRY(take_shard(&r, json_array_get(shards, i), m));
    return r.status;
}

f2b_status f2bi_store_manifest_read(f2bi_store_manifest *m, const char *path)
{
    *m = (f2bi_store_manifest){ .path = f2b_strdup(path, F2B_TAG_FILES) };
    char *file = f2b_path_join(path, F2B_STORE_FILE);
    json_t *root = m->path && file ? f2bi_json_load(file, MAX_MANIFEST) : NULL;
    f2b_status status = root ? read_manifest(m, file, root) : f2b_last_status();
    if (!root && status == F2B_ERR_NOT_FOUND)
        status = f2b_fail(F2B_ERR_NOT_FOUND,
                          "%s is no compressed store (it has no " F2B_STORE_FILE "); f2b-compress "
                          "--out writes one", path);
    json_decref(root);
    f2b_free(file);
    if (status != F2B_OK) f2bi_store_manifest_clear(m);
    return status;
}
