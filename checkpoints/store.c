/* Reading a compressed store. See store.h for the contract. */
#include "checkpoints/store.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "autograd/core/alloc.h"
#include "autograd/core/dtype.h"
#include "checkpoints/store_internal.h"

static f2b_status open_store(f2b_store *store, const char *path)
{
    f2bi_store_manifest *m = &store->manifest;
    F2B_TRY(f2bi_store_manifest_read(m, path));
    store->shards = f2b_calloc((size_t)m->n, sizeof *store->shards, F2B_TAG_FILES);
    if (!store->shards) return f2b_last_status();
    for (int64_t i = 0; i < m->n; i++) {
        F2B_TRY(f2bi_store_shard_read(m, i, false, &store->catalog));
        const f2bi_store_entry *s = &m->shards[i];
        store->shards[i] = (f2b_store_shard){
            .path = s->path, .checksum = s->checksum, .first = s->first, .images = s->images,
            .offset = s->offset, .bytes = f2bi_store_token_bytes(m, s->images) };
    }
    return F2B_OK;
}

f2b_store *f2b_store_open(const char *path)
{
    f2b_store *store = f2b_calloc(1, sizeof *store, F2B_TAG_FILES);
    if (!store) return NULL;
    if (open_store(store, path) == F2B_OK) return store;
    f2b_store_close(store);
    return NULL;
}

void f2b_store_close(f2b_store *store)
{
    if (!store) return;
    f2bi_store_manifest_clear(&store->manifest);
    f2bi_catalog_clear(&store->catalog);
    f2b_free(store->shards);
    f2b_free(store);
}

const char *f2b_store_path(const f2b_store *store) { return store->manifest.path; }
const f2b_store_identity *f2b_store_get_identity(const f2b_store *store)
{
    return &store->manifest.identity;
}
int64_t f2b_store_count(const f2b_store *store) { return store->catalog.ids.n; }
int64_t f2b_store_duplicates(const f2b_store *store) { return store->catalog.duplicates.n; }
int64_t f2b_store_shards(const f2b_store *store) { return store->manifest.n; }

f2b_status f2b_store_check_model(const f2b_store *store, const char *base, const char *adapter)
{
    const f2b_store_identity *id = &store->manifest.identity;
    if (strcmp(id->base, base) == 0 && strcmp(id->adapter, adapter) == 0) return F2B_OK;
    return f2b_fail(F2B_ERR_FORMAT,
                    "%s holds tokens of another model (base %s, trained tensors %s), not of this "
                    "one (base %s, trained tensors %s): name the checkpoint that it was made with, "
                    "or compress the images into a new store", store->manifest.path, id->base,
                    id->adapter, base, adapter);
}

/* ---- Names ---- */

const char *f2b_store_id(const f2b_store *store, int64_t row)
{
    F2B_CHECK(row >= 0 && row < store->catalog.ids.n);
    return f2bi_names_at(&store->catalog.ids, row);
}

const uint8_t *f2b_store_hash(const f2b_store *store, int64_t row)
{
    F2B_CHECK(row >= 0 && row < store->catalog.ids.n);
    return store->catalog.hashes[row];
}

int64_t f2b_store_lookup(const f2b_store *store, const char *id)
{
    return f2bi_catalog_find(&store->catalog, id);
}

f2b_status f2b_store_find(const f2b_store *store, const char *id, int64_t *row)
{
    *row = f2b_store_lookup(store, id);
    if (*row >= 0) return F2B_OK;
    if (f2b_store_count(store) == 0)
        return f2b_fail(F2B_ERR_NOT_FOUND, "%s holds no images yet", store->manifest.path);
    return f2b_fail(F2B_ERR_NOT_FOUND, "%s holds no image \"%.300s\"; its ids are like \"%.300s\"",
                    store->manifest.path, id, f2b_store_id(store, 0));
}

/* ---- Tokens ---- */

const f2b_store_shard *f2b_store_shard_at(const f2b_store *store, int64_t shard)
{
    F2B_CHECK(shard >= 0 && shard < store->manifest.n);
    return &store->shards[shard];
}

static f2b_status read_bytes(const char *path, int64_t at, void *out, size_t bytes)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return f2b_fail_errno(F2B_ERR_IO, "cannot open %s", path);
    f2b_status status = F2B_OK;
    for (size_t done = 0; done < bytes && status == F2B_OK;) {
        const ssize_t n = pread(fd, (char *)out + done, bytes - done, (off_t)at + (off_t)done);
        if (n > 0) done += (size_t)n;
        else if (n == 0) status = f2b_fail(F2B_ERR_IO, "%s became shorter while in use", path);
        else if (errno != EINTR) status = f2b_fail_errno(F2B_ERR_IO, "cannot read %s", path);
    }
    close(fd);
    return status;
}

static const f2b_store_shard *shard_of(const f2b_store *store, int64_t row)
{
    int64_t low = 0, high = store->manifest.n;      /* first[low] <= row < first[high] */
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if (store->shards[middle].first <= row) low = middle;
        else high = middle;
    }
    return &store->shards[low];
}

f2b_status f2b_store_read(const f2b_store *store, int64_t row, float *out)
{
    F2B_CHECK(row >= 0 && row < store->catalog.ids.n);
    const f2b_store_shard *s = shard_of(store, row);
    const int64_t bytes = f2bi_store_token_bytes(&store->manifest, 1);
    void *half = f2b_alloc_host((size_t)bytes, F2B_TAG_FILES);
    if (!half) return f2b_last_status();
    const f2b_status status =
        read_bytes(s->path, s->offset + (row - s->first) * bytes, half, (size_t)bytes);
    if (status == F2B_OK) f2b_convert(out, F2B_F32, half, F2B_F16, (size_t)bytes / 2);
    f2b_free(half);
    return status;
}

f2b_status f2b_store_map_shard(const f2b_store *store, int64_t shard, f2b_store_map *map)
{
    const f2b_store_shard *s = f2b_store_shard_at(store, shard);
    *map = (f2b_store_map){ .images = s->images };
    if (s->images == 0) return F2B_OK;
    int64_t size;
    const int fd = f2bi_file_open(s->path, &size);
    if (fd < 0) return f2b_last_status();
    f2b_status status = F2B_OK;
    const int64_t begin = s->offset / sysconf(_SC_PAGESIZE) * sysconf(_SC_PAGESIZE);
    const int64_t length = s->offset + s->bytes - begin;
    void *base = MAP_FAILED;
    if (size < s->offset + s->bytes)            /* reading beyond the end would be a SIGBUS */
        status = f2b_fail(F2B_ERR_IO, "%s became shorter while in use", s->path);
    else if ((base = mmap(NULL, (size_t)length, PROT_READ, MAP_SHARED, fd, (off_t)begin)) ==
             MAP_FAILED)
        status = f2b_fail_errno(F2B_ERR_IO, "cannot map %s", s->path);
    else (void)madvise(base, (size_t)length, MADV_SEQUENTIAL);
    close(fd);
    if (status != F2B_OK) return status;
    map->base = base;
    map->length = length;
    map->tokens = (const uint16_t *)(const void *)((const char *)base + (s->offset - begin));
    return F2B_OK;
}

void f2b_store_unmap(f2b_store_map *map)
{
    if (map->base) munmap(map->base, (size_t)map->length);
    *map = (f2b_store_map){ 0 };
}

/* ---- Checking ---- */

f2b_status f2b_store_check_shard(const f2b_store *store, int64_t shard)
{
    f2bi_catalog catalog = { 0 };
    const f2b_status status = f2bi_store_shard_read(&store->manifest, shard, true, &catalog);
    f2bi_catalog_clear(&catalog);
    return status;
}

f2b_status f2b_store_verify(const char *path, f2b_store_told *told, void *user)
{
    f2bi_store_manifest m;
    F2B_TRY(f2bi_store_manifest_read(&m, path));
    f2b_status status = F2B_OK;
    for (int64_t i = 0; i < m.n && status == F2B_OK; i++) {
        f2bi_catalog catalog = { 0 };
        const f2b_status found = f2bi_store_shard_read(&m, i, true, &catalog);
        f2bi_catalog_clear(&catalog);
        if (found == F2B_ERR_MEMORY) status = found;
        else told(user, m.shards[i].path, found == F2B_OK ? NULL : f2b_last_error());
    }
    f2bi_store_manifest_clear(&m);
    return status;
}
