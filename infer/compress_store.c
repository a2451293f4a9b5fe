/*
 * The order of work: images come decoded from f2b_image_stream, wait until a batch is full, and go
 * through pass 1. A row is taken for an image as soon as it waits, so that its copies among the next
 * ones are known. Neither batches nor threads change a row's values, so the store's bytes depend on
 * the images alone.
 */
#include "infer/compress_store.h"

#include <math.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "data/loader/image_stream.h"

typedef struct compress_run {
    const f2b_infer *in;
    const f2b_source *source;
    f2b_store_writer *writer;
    const f2b_compress_options *o;
    f2b_compress_counts *counts;
    uint8_t **pixels;           /* [batch] waiting */
    uint16_t **tokens;          /* [batch] where theirs go */
    char **ids;                 /* [batch] for messages */
    int64_t n;
} compress_run;

/* ---- Batches ---- */

/* Row i of the result, which is on the host, as f16 into its place. */
static f2b_status take_tokens(const compress_run *r, const f2b_tensor *x, int64_t i)
{
    const size_t n = (size_t)(r->in->model->method.tokens * x->shape[1]);
    const char *from = (const char *)x->data + (size_t)i * n * f2b_dtype_size(x->dtype);
    f2b_convert(r->tokens[i], F2B_F16, from, x->dtype, n);
    for (size_t j = 0; j < n; j++)
        if ((r->tokens[i][j] & 0x7c00) == 0x7c00)
            return f2b_fail(F2B_ERR_NUMBERS, "%s: its tokens are not finite in f16; nothing of this "
                            "model can be stored", r->ids[i]);
    return F2B_OK;
}

static void drop_batch(compress_run *r)
{
    for (int64_t i = 0; i < r->n; i++) {
        f2b_free(r->pixels[i]);
        f2b_free(r->ids[i]);
    }
    r->n = 0;
}

static f2b_status flush(compress_run *r)
{
    if (r->n == 0) return F2B_OK;
    f2b_compressed c;
    F2B_TRY(f2b_compress_images(r->in, (const uint8_t *const *)r->pixels, r->n, false, &c));
    f2b_tensor *here = f2b_tensor_on_host(c.tokens);
    f2b_status status = here != NULL ? F2B_OK : f2b_last_status();
    for (int64_t i = 0; i < r->n && status == F2B_OK; i++) status = take_tokens(r, here, i);
    f2b_tensor_free(here);
    f2b_compressed_clear(&c);
    if (status == F2B_OK) r->counts->compressed += r->n;
    drop_batch(r);
    return status;
}

static f2b_status commit(compress_run *r)
{
    F2B_TRY(flush(r));
    return f2b_store_writer_commit(r->writer);
}

/* ---- Images ---- */

static f2b_status tell_bad(compress_run *r, const f2b_stream_image *image, const char *fault,
                           const char *detail)
{
    r->counts->bad++;
    const f2b_compress_fault f = { .source = f2b_source_name(r->source), .record = image->record,
                                   .id = image->id, .fault = fault,
                                   .detail = detail != NULL ? detail : "" };
    return r->o->bad != NULL ? r->o->bad(r->o->user, &f) : F2B_OK;
}

/* A new image: it gets a row, and waits for its batch. */
static f2b_status add_image(compress_run *r, f2b_stream_image *image)
{
    F2B_CHECK(image->pixels != NULL);
    if (f2b_store_writer_is_full(r->writer)) F2B_TRY(commit(r));
    F2B_TRY(f2b_store_writer_add(r->writer, image->id, image->hash, &r->tokens[r->n]));
    r->pixels[r->n] = image->pixels;
    r->ids[r->n] = image->id;
    image->pixels = NULL;
    image->id = NULL;
    return ++r->n == r->o->batch ? flush(r) : F2B_OK;
}

static f2b_status take_image(compress_run *r, f2b_stream_image *image)
{
    if (image->fault != F2B_FAULT_NONE)
        return tell_bad(r, image, f2b_fault_name(image->fault), image->detail);
    if (image->id == NULL) {
        r->counts->without_image++;
        return F2B_OK;
    }
    const int64_t row = f2b_store_writer_find(r->writer, image->id);
    if (row >= 0 && memcmp(f2b_store_writer_hash(r->writer, row), image->hash,
                           sizeof image->hash) != 0)
        return tell_bad(r, image, "changed_image",
                        "the file is not the one whose tokens the store has under this name: give "
                        "it another name, or compress into a new store");
    if (row >= 0) {
        r->counts->known++;
        return F2B_OK;
    }
    const int64_t same = f2b_store_writer_find_content(r->writer, image->hash);
    if (same < 0) return add_image(r, image);
    r->counts->duplicates++;
    return f2b_store_writer_add_duplicate(r->writer, image->id, same);
}

/* ---- The run ---- */

static bool known(void *user, const uint8_t hash[F2B_CONTENT_HASH_BYTES])
{
    return f2b_store_writer_find_content(user, hash) >= 0;
}

static void tell_progress(const compress_run *r, int64_t total)
{
    if (r->o->progress != NULL) r->o->progress(r->o->user, r->counts, total);
}

static f2b_status run(compress_run *r, f2b_image_stream *stream)
{
    const int64_t total = f2b_image_stream_count(stream);
    f2b_stream_image image = { 0 };
    f2b_status status = F2B_OK;
    for (bool more = true; status == F2B_OK;) {
        if (r->o->stop != NULL && r->o->stop(r->o->user))
            status = f2b_fail(F2B_ERR_STOPPED, "stopped after %lld of %lld images",
                              (long long)r->counts->records, (long long)total);
        if (status == F2B_OK) status = f2b_image_stream_next(stream, &image, &more);
        if (status != F2B_OK || !more) break;
        status = take_image(r, &image);
        r->counts->records++;
        if (status == F2B_OK && r->counts->records < total) tell_progress(r, total);
    }
    f2b_stream_image_clear(&image);
    if (status == F2B_OK) status = commit(r);
    if (status == F2B_OK) tell_progress(r, total);
    return status;
}

f2b_status f2b_compress_store(const f2b_infer *in, const f2b_source *source,
                              f2b_store_writer *writer, const f2b_compress_options *o,
                              f2b_compress_counts *counts)
{
    *counts = (f2b_compress_counts){ 0 };
    if (o->batch < 1) return f2b_fail(F2B_ERR_INVALID, "a batch of %lld", (long long)o->batch);
    compress_run r = { .in = in, .source = source, .writer = writer, .o = o, .counts = counts };
    const bool pad = in->model->method.image_aspect_ratio == F2B_ASPECT_PAD;
    const f2b_image_stream_options stream_options = {
        .image = *in->image, .aspect = pad ? F2B_IMAGE_PAD : F2B_IMAGE_CROP,
        .workers = o->workers, .ahead = 2 * o->batch + o->workers, .known = known, .user = writer };
    r.pixels = f2b_calloc((size_t)o->batch, sizeof *r.pixels, F2B_TAG_IMAGES);
    r.tokens = f2b_calloc((size_t)o->batch, sizeof *r.tokens, F2B_TAG_IMAGES);
    r.ids = f2b_calloc((size_t)o->batch, sizeof *r.ids, F2B_TAG_IMAGES);
    f2b_status status = r.pixels && r.tokens && r.ids ? F2B_OK : f2b_last_status();
    f2b_image_stream *stream =
        status == F2B_OK ? f2b_image_stream_new(source, &stream_options) : NULL;
    if (status == F2B_OK) status = stream != NULL ? run(&r, stream) : f2b_last_status();
    drop_batch(&r);
    f2b_image_stream_free(stream);
    f2b_free(r.pixels);
    f2b_free(r.tokens);
    f2b_free(r.ids);
    return status;
}
