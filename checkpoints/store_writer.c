/* Writing a compressed store. See store_writer.h for the contract. */
#include "checkpoints/store_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"
#include "checkpoints/method_json.h"
#include "checkpoints/store_internal.h"

#define LOCK_FILE "store.lock"

struct f2b_store_writer {
    f2b_store *store;           /* what is written; its catalog also has what is in hand */
    int lock;
    int64_t shard_images, written_duplicates;
    uint16_t *tokens;           /* [shard_images, K, d] */
    pthread_mutex_t contents_lock;
    f2bi_slots contents;        /* rows by their content's hash */
};

/* ---- Contents ---- */

static uint64_t content_key(const uint8_t *hash)
{
    uint64_t key;
    memcpy(&key, hash, sizeof key);
    return key;
}

static f2b_status know_content(f2b_store_writer *w, int64_t row)
{
    pthread_mutex_lock(&w->contents_lock);
    const f2b_status status =
        f2bi_slots_add(&w->contents, content_key(w->store->catalog.hashes[row]), row);
    pthread_mutex_unlock(&w->contents_lock);
    return status;
}

int64_t f2b_store_writer_find_content(f2b_store_writer *w, const uint8_t *hash)
{
    const uint64_t key = content_key(hash);
    uint64_t place = key;
    int64_t row;
    pthread_mutex_lock(&w->contents_lock);
    do row = f2bi_slots_next(&w->contents, key, &place);
    while (row >= 0 && memcmp(w->store->catalog.hashes[row], hash, F2BI_STORE_HASH_BYTES) != 0);
    pthread_mutex_unlock(&w->contents_lock);
    return row;
}

/* ---- Opening ---- */

/* Released by the system when the process ends, however it ends. The file stays: to remove it would
 * let two processes lock two files of one name. */
static f2b_status lock_folder(f2b_store_writer *w, const char *path)
{
    char *name = f2b_path_join(path, LOCK_FILE);
    if (!name) return f2b_last_status();
    w->lock = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    f2b_free(name);
    if (w->lock < 0) return f2b_fail_errno(F2B_ERR_IO, "cannot open %s/" LOCK_FILE, path);
    if (flock(w->lock, LOCK_EX | LOCK_NB) == 0) return F2B_OK;
    if (errno == EWOULDBLOCK)
        return f2b_fail(F2B_ERR_BUSY, "%s is being written by another process; wait for it, or "
                        "name another folder", path);
    return f2b_fail_errno(F2B_ERR_IO, "cannot lock %s (does its file system have locks?)", path);
}

static f2b_status check_identity(const f2b_store *store, const f2b_store_identity *want)
{
    const f2b_store_identity *have = f2b_store_get_identity(store);
    const char *path = f2b_store_path(store);
    F2B_TRY(f2b_store_check_model(store, want->base, want->adapter));
    char *method = f2b_method_to_json(&want->method);
    if (!method) return f2b_last_status();
    const bool same = have->tokens == want->tokens && have->width == want->width &&
                      strcmp(method, store->manifest.method) == 0;
    f2b_free(method);
    if (!same)
        return f2b_fail(F2B_ERR_FORMAT, "%s holds tokens of another method (%lld tokens of width "
                        "%lld; this model makes %lld of %lld): compress into a new store", path,
                        (long long)have->tokens, (long long)have->width, (long long)want->tokens,
                        (long long)want->width);
    if (strcmp(have->precision, want->precision) == 0 && strcmp(have->weights, want->weights) == 0)
        return F2B_OK;
    return f2b_fail(F2B_ERR_CONFIG, "%s was made with --precision %s and weights in %s; go on with "
                    "the same (not %s and %s), or compress into a new store", path,
                    have->precision, have->weights, want->precision, want->weights);
}

static bool there(const char *path)
{
    char *name = f2b_path_join(path, F2B_STORE_FILE);
    const bool yes = name && access(name, F_OK) == 0;
    f2b_free(name);
    return yes;
}

static f2b_status begin_store(const char *path, const f2b_store_identity *identity)
{
    f2bi_store_manifest m;
    f2b_status status = f2bi_store_manifest_init(&m, path, identity);
    if (status == F2B_OK) status = f2bi_store_manifest_write(&m);
    f2bi_store_manifest_clear(&m);
    return status;
}

static f2b_status open_writer(f2b_store_writer *w, const char *path,
                              const f2b_store_identity *identity)
{
    if (!there(path)) {
        F2B_TRY(f2b_folder_check_free(path, LOCK_FILE));
        F2B_TRY(f2b_make_folders(path));
    }
    F2B_TRY(lock_folder(w, path));
    if (!there(path)) F2B_TRY(begin_store(path, identity));
    w->store = f2b_store_open(path);
    if (!w->store) return f2b_last_status();
    F2B_TRY(check_identity(w->store, identity));
    w->written_duplicates = f2b_store_duplicates(w->store);
    for (int64_t row = 0; row < f2b_store_count(w->store); row++) F2B_TRY(know_content(w, row));
    w->tokens = f2b_alloc_host((size_t)f2bi_store_token_bytes(&w->store->manifest, w->shard_images),
                               F2B_TAG_FILES);
    return w->tokens ? F2B_OK : f2b_last_status();
}

f2b_store_writer *f2b_store_writer_open(const char *path, const f2b_store_identity *identity,
                                        int64_t shard_images)
{
    F2B_RETURN_NULL_IF(shard_images < 1 || shard_images > F2BI_STORE_MAX_IMAGES, F2B_ERR_INVALID,
                       "a shard of %lld images; 1 to %d are possible", (long long)shard_images,
                       F2BI_STORE_MAX_IMAGES);
    f2b_store_writer *w = f2b_calloc(1, sizeof *w, F2B_TAG_FILES);
    if (!w) return NULL;
    w->lock = -1;
    w->shard_images = shard_images;
    pthread_mutex_init(&w->contents_lock, NULL);
    if (open_writer(w, path, identity) == F2B_OK) return w;
    f2b_store_writer_close(w);
    return NULL;
}

void f2b_store_writer_close(f2b_store_writer *w)
{
    if (!w) return;
    f2b_store_close(w->store);
    if (w->lock >= 0) close(w->lock);
    pthread_mutex_destroy(&w->contents_lock);
    f2b_free(w->contents.at);
    f2b_free(w->tokens);
    f2b_free(w);
}

/* ---- What is in hand ---- */

int64_t f2b_store_writer_count(const f2b_store_writer *w) { return f2b_store_count(w->store); }
int64_t f2b_store_writer_duplicates(const f2b_store_writer *w)
{
    return f2b_store_duplicates(w->store);
}
int64_t f2b_store_writer_find(const f2b_store_writer *w, const char *id)
{
    return f2b_store_lookup(w->store, id);
}
const uint8_t *f2b_store_writer_hash(const f2b_store_writer *w, int64_t row)
{
    return f2b_store_hash(w->store, row);
}

static int64_t in_hand(const f2b_store_writer *w)
{
    return f2b_store_count(w->store) - f2bi_store_manifest_images(&w->store->manifest);
}

bool f2b_store_writer_is_full(const f2b_store_writer *w) { return in_hand(w) == w->shard_images; }

static f2b_status check_id(const char *id)
{
    const size_t n = strlen(id);
    if (n > 0 && n <= F2B_STORE_MAX_ID) return F2B_OK;
    return f2b_fail(F2B_ERR_INVALID, "an image's name of %zu bytes (1 to %d are possible): %.100s",
                    n, F2B_STORE_MAX_ID, id);
}

f2b_status f2b_store_writer_add(f2b_store_writer *w, const char *id, const uint8_t *hash,
                                uint16_t **tokens)
{
    F2B_CHECK(!f2b_store_writer_is_full(w));
    F2B_TRY(check_id(id));
    const int64_t row = f2b_store_count(w->store);
    *tokens = w->tokens + f2bi_store_token_bytes(&w->store->manifest, in_hand(w)) / 2;
    /* Other threads compare hashes, which may move. */
    pthread_mutex_lock(&w->contents_lock);
    const f2b_status status = f2bi_catalog_add(&w->store->catalog, id, strlen(id), hash);
    pthread_mutex_unlock(&w->contents_lock);
    return status == F2B_OK ? know_content(w, row) : status;
}

f2b_status f2b_store_writer_add_duplicate(f2b_store_writer *w, const char *id, int64_t row)
{
    F2B_CHECK(row >= 0 && row < f2b_store_count(w->store));
    F2B_TRY(check_id(id));
    return f2bi_catalog_add_duplicate(&w->store->catalog, id, strlen(id), row);
}

f2b_status f2b_store_writer_commit(f2b_store_writer *w)
{
    f2bi_store_manifest *m = &w->store->manifest;
    f2bi_store_entry entry = {
        .first = f2bi_store_manifest_images(m), .images = in_hand(w),
        .duplicates = f2b_store_duplicates(w->store) - w->written_duplicates };
    if (entry.images == 0 && entry.duplicates == 0) return F2B_OK;
    F2B_TRY(f2bi_store_manifest_add(m, entry));
    f2b_status status = f2bi_store_shard_write(m, &w->store->catalog, w->written_duplicates,
                                               w->tokens, &m->shards[m->n - 1]);
    if (status == F2B_OK) status = f2bi_store_manifest_write(m);
    if (status != F2B_OK) f2b_free(m->shards[--m->n].path);
    else w->written_duplicates += entry.duplicates;
    return status;
}
