/* Searching stores and rows, and what queries are. See search.h for the contract. */
#include "infer/search.h"

#include <string.h>

#include "autograd/core/alloc.h"
#include "autograd/device/device.h"
#include "infer/search_means.h"
#include "infer/search_scan.h"
#include "infer/unit_row.h"

/* One pass: lets all items go by. */
typedef f2b_status pass(const void *items, f2b_search *search, const f2b_search_hooks *hooks);

/* In as many passes as keep the memory small. */
static f2b_status run(const void *items, pass *go_by, const f2b_tensor *queries, int64_t k,
                      const f2b_search_hooks *hooks, f2b_search_hit *hits)
{
    const int64_t n = queries->shape[0], d = queries->shape[1], most = f2b_search_most_queries(k);
    for (int64_t q = 0; q < n; q += most) {
        f2b_search *search = f2b_search_new((const float *)queries->data + q * d,
                                            n - q < most ? n - q : most, d, k);
        if (search == NULL) return f2b_last_status();
        const f2b_status status = go_by(items, search, hooks);
        if (status == F2B_OK) f2b_search_finish(search, hits + q * k);
        f2b_search_free(search);
        F2B_TRY(status);
    }
    return F2B_OK;
}

static f2b_status check(const f2b_tensor *queries, int64_t n, int64_t d, int64_t k)
{
    if (queries->ndim != 2 || queries->dtype != F2B_F32 || queries->shape[1] != d)
        return f2b_fail(F2B_ERR_SHAPE, "queries are %s, not f32 [n, %lld]",
                        f2b_tensor_describe(queries), (long long)d);
    if (k < 1 || k > n)
        return f2b_fail(F2B_ERR_INVALID, "the best %lld of %lld", (long long)k, (long long)n);
    return F2B_OK;
}

/* ---- A store ---- */

static f2b_status pass_store(const void *items, f2b_search *search, const f2b_search_hooks *hooks)
{
    const f2b_store *store = items;
    const int64_t total = f2b_store_count(store);
    for (int64_t i = 0; i < f2b_store_shards(store); i++) {
        if (hooks->stop != NULL && hooks->stop(hooks->user))
            return f2b_fail(F2B_ERR_STOPPED, "the search was stopped");
        F2B_TRY(f2b_search_shard(search, store, i, hooks));
        const f2b_store_shard *s = f2b_store_shard_at(store, i);
        if (hooks->progress != NULL)
            hooks->progress(hooks->user, "images", s->first + s->images, total);
    }
    return F2B_OK;
}

/* Under `single` an embedding is an output of the language model, and no mean of stored tokens. */
static f2b_status check_method(const f2b_store *store)
{
    if (f2b_store_get_identity(store)->method.forward == F2B_FORWARD_DOUBLE) return F2B_OK;
    return f2b_fail(F2B_ERR_CONFIG, "%s is of method.forward single, whose embeddings are not means "
                    "of stored tokens; search a store of method.forward double, or compare images "
                    "and captions with f2b-eval --task retrieval", f2b_store_path(store));
}

f2b_status f2b_search_store(const f2b_store *store, const f2b_tensor *queries, int64_t k,
                            const f2b_search_hooks *hooks, f2b_search_hit *hits)
{
    if (f2b_store_count(store) == 0)
        return f2b_fail(F2B_ERR_DATA, "%s holds no images yet; add some with f2b-compress",
                        f2b_store_path(store));
    F2B_TRY(check_method(store));
    F2B_TRY(check(queries, f2b_store_count(store), f2b_store_get_identity(store)->width, k));
    return run(store, pass_store, queries, k, hooks, hits);
}

/* ---- Rows in memory ---- */

static f2b_status fetch_row(const void *context, int64_t row, int64_t n, void *scratch, float *out)
{
    (void)scratch;
    const f2b_tensor *items = context;
    const int64_t d = items->shape[1];
    memcpy(out, (const float *)items->data + row * d, (size_t)(n * d) * sizeof *out);
    for (int64_t i = 0; i < n; i++)
        if (!f2b_unit_row(out + i * d, d))
            return f2b_fail(F2B_ERR_NUMBERS, "the embedding of row %lld is not finite",
                            (long long)(row + i));
    return F2B_OK;
}

static f2b_status pass_rows(const void *context, f2b_search *search, const f2b_search_hooks *hooks)
{
    (void)hooks;
    const f2b_tensor *rows = context;
    const f2b_search_items items = { .n = rows->shape[0], .fetch = fetch_row, .context = rows };
    return f2b_search_scan(search, &items);
}

f2b_status f2b_search_rows(const f2b_tensor *items, const f2b_tensor *queries, int64_t k,
                           f2b_search_hit *hits)
{
    if (items->ndim != 2 || items->dtype != F2B_F32)
        return f2b_fail(F2B_ERR_SHAPE, "items are %s, not f32 [m, d]", f2b_tensor_describe(items));
    F2B_TRY(check(queries, items->shape[0], items->shape[1], k));
    const f2b_search_hooks none = { 0 };
    return run(items, pass_rows, queries, k, &none, hits);
}

/* ---- Queries ---- */

static f2b_tensor *new_rows(int64_t n, int64_t d)
{
    return f2b_tensor_new(F2B_HOST, F2B_F32, 2, (int64_t[]){ n, d }, F2B_TAG_ACTIVATIONS);
}

f2b_tensor *f2b_search_embed_stored(const f2b_store *store, int64_t row)
{
    const f2b_store_identity *id = f2b_store_get_identity(store);
    const int64_t K = id->tokens, d = id->width;
    f2b_tensor *mean = check_method(store) == F2B_OK ? new_rows(1, d) : NULL;
    float *tokens = mean != NULL ? f2b_calloc((size_t)K, (size_t)d * sizeof(float), F2B_TAG_FILES)
                                 : NULL;
    if (tokens != NULL && f2b_store_read(store, row, tokens) == F2B_OK) {
        for (int64_t j = 0; j < d; j++) {
            double sum = 0;
            for (int64_t k = 0; k < K; k++) sum += (double)tokens[k * d + j];
            ((float *)mean->data)[j] = (float)(sum / (double)K);
        }
    } else {
        f2b_tensor_free(mean);
        mean = NULL;
    }
    f2b_free(tokens);
    return mean;
}

/* The embeddings of a result, which is cleared; on the host, whatever the device. */
static f2b_status take_embeddings(f2b_compressed *c, float *out)
{
    const f2b_tensor *e = c->embeddings;
    const f2b_status status =
        e->dtype == F2B_F32 ? f2b_copy(out, F2B_HOST, e->data, e->device, f2b_tensor_bytes(e))
                            : f2b_fail(F2B_ERR_DTYPE, "embeddings are %s", f2b_tensor_describe(e));
    f2b_compressed_clear(c);
    return status;
}

f2b_tensor *f2b_search_embed_image(const f2b_infer *in, const f2b_image *image)
{
    const size_t side = (size_t)in->image->size;
    uint8_t *pixels = f2b_calloc(side * side, 3, F2B_TAG_IMAGES);
    const uint8_t *const one[] = { pixels };
    f2b_tensor *rows = NULL;
    f2b_compressed c;
    if (pixels != NULL && f2b_infer_prepare(in, image, pixels) == F2B_OK &&
        f2b_compress_images(in, one, 1, true, &c) == F2B_OK) {
        rows = new_rows(1, c.embeddings->shape[1]);
        if (rows == NULL) f2b_compressed_clear(&c);
        else if (take_embeddings(&c, rows->data) != F2B_OK) {
            f2b_tensor_free(rows);
            rows = NULL;
        }
    }
    f2b_free(pixels);
    return rows;
}

static f2b_status embed_batch(const f2b_infer *in, const char *const *texts, int64_t n,
                              int64_t max_ids, float *out)
{
    f2b_compressed c;
    F2B_TRY(f2b_compress_captions(in, texts, n, max_ids, &c));
    return take_embeddings(&c, out);
}

f2b_tensor *f2b_search_embed_texts(const f2b_infer *in, const char *const *texts, int64_t n,
                                   int64_t max_ids, int64_t batch, const f2b_search_hooks *hooks)
{
    const int64_t d = in->model->config.text.hidden;
    f2b_tensor *rows = new_rows(n, d);
    f2b_status status = rows != NULL ? F2B_OK : f2b_last_status();
    for (int64_t i = 0; status == F2B_OK && i < n; i += batch) {
        const int64_t step = n - i < batch ? n - i : batch;
        if (hooks->stop != NULL && hooks->stop(hooks->user))
            status = f2b_fail(F2B_ERR_STOPPED, "the search was stopped");
        else status = embed_batch(in, texts + i, step, max_ids, (float *)rows->data + i * d);
        if (status == F2B_OK && hooks->progress != NULL)
            hooks->progress(hooks->user, "texts", i + step, n);
    }
    if (status == F2B_OK) return rows;
    f2b_tensor_free(rows);
    return NULL;
}
