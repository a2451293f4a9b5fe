/* Retrieval over an image-caption source. See evaluate.h for the contract. */
#include <stdlib.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "data/prompt/prompt.h"
#include "infer/evaluate_internal.h"

/* Embeddings as they come, batch by batch: [n, d] f32. */
typedef struct table {
    float *rows;
    int64_t n, d, capacity;
} table;

/* An image that has been met: the number of its row, found by its key in the source. */
typedef struct seen_image {
    uint64_t key;
    int64_t row;
} seen_image;

typedef struct retrieval_run {
    const f2b_infer *in;
    const f2b_source *source;
    const f2b_retrieval_options *o;
    f2b_retrieval_result *result;
    table images, captions;
    int64_t n_images, n_captions; /* with those that wait in the batches below */
    int64_t *image_of;            /* [records] of each caption */
    seen_image *seen;             /* open addressing, power-of-two size; key 0: free */
    int64_t seen_size;
    uint8_t **pixels; /* [batch] waiting */
    char **texts;     /* [batch] waiting */
    int64_t n_pixels, n_texts;
} retrieval_run;

static f2b_status append(table *t, const f2b_tensor *x)
{
    const int64_t n = x->shape[0], d = x->shape[1];
    if (t->n + n > t->capacity) {
        const int64_t capacity = 2 * t->capacity > t->n + n ? 2 * t->capacity : t->n + n;
        float *grown =
            f2b_realloc(t->rows, (size_t)(capacity * d) * sizeof *grown, F2B_TAG_ACTIVATIONS);
        if (grown == NULL) return f2b_last_status();
        t->rows = grown, t->capacity = capacity;
    }
    f2b_tensor *here = f2b_tensor_on_host(x);
    if (here == NULL) return f2b_last_status();
    f2b_convert(t->rows + t->n * d, F2B_F32, here->data, x->dtype, (size_t)(n * d));
    f2b_tensor_free(here);
    t->n += n, t->d = d;
    return F2B_OK;
}

static f2b_status flush_images(retrieval_run *r)
{
    if (r->n_pixels == 0) return F2B_OK;
    f2b_compressed c;
    f2b_status status =
        f2b_compress_images(r->in, (const uint8_t *const *)r->pixels, r->n_pixels, true, &c);
    if (status == F2B_OK)
        status = f2b_compressed_choose(&c, &r->o->choice, &r->in->model->method);
    if (status == F2B_OK) status = append(&r->images, c.embeddings);
    f2b_compressed_clear(&c);
    for (int64_t i = 0; i < r->n_pixels; i++) f2b_free(r->pixels[i]);
    r->n_pixels = 0;
    return status;
}

static f2b_status flush_captions(retrieval_run *r)
{
    if (r->n_texts == 0) return F2B_OK;
    f2b_compressed c;
    f2b_status status = f2b_compress_captions(r->in, (const char *const *)r->texts, r->n_texts,
                                              r->o->max_caption_ids, &c);
    if (status == F2B_OK)
        status = f2b_compressed_choose(&c, &r->o->choice, &r->in->model->method);
    if (status == F2B_OK) status = append(&r->captions, c.embeddings);
    f2b_compressed_clear(&c);
    for (int64_t i = 0; i < r->n_texts; i++) f2b_free(r->texts[i]);
    r->n_texts = 0;
    return status;
}

static seen_image *place_of(const retrieval_run *r, uint64_t key)
{
    const uint64_t mask = (uint64_t)r->seen_size - 1;
    uint64_t at = key & mask;
    while (r->seen[at].key != 0 && r->seen[at].key != key) at = (at + 1) & mask;
    return &r->seen[at];
}

/* The row of the record's image, which is decoded the first time; -1 where it cannot be. */
static f2b_status image_row(retrieval_run *r, f2b_record *record, uint64_t key, int64_t *row)
{
    seen_image *place = place_of(r, key);
    *row = place->key != 0 ? place->row : -1;
    if (*row >= 0) return F2B_OK;
    uint8_t *pixels;
    F2B_TRY(f2bi_evaluate_pixels(r->in, r->source, record, &pixels));
    if (pixels == NULL) return F2B_OK;
    *place = (seen_image){ key, *row = r->n_images++ };
    r->pixels[r->n_pixels++] = pixels;
    return r->n_pixels == r->o->batch ? flush_images(r) : F2B_OK;
}

/* What a caption's prompt would refuse is a fault of the record. */
static f2b_status check_caption(const retrieval_run *r, f2b_record *record)
{
    f2b_sequence prompt = { 0 };
    f2b_prompt_fault fault = F2B_PROMPT_OK;
    const f2b_status status =
        f2b_prompt_caption(r->in->tokenizer, F2B_TEMPLATE_PLAIN, "", record->caption,
                           r->o->max_caption_ids, &prompt, &fault);
    f2b_free(prompt.ids);
    f2b_free(prompt.labels);
    if (status != F2B_ERR_DATA || fault == F2B_PROMPT_OK) return status;
    f2b_record_fail(record, (f2b_fault)(F2B_FAULT_PROMPT + fault), "%s", f2b_last_error());
    return F2B_OK;
}

static f2b_status take(retrieval_run *r, f2b_record *record, uint64_t key)
{
    int64_t row = -1;
    if (record->image == NULL) f2b_record_fail(record, F2B_FAULT_MEMBER, "no image");
    if (record->fault == F2B_FAULT_NONE) F2B_TRY(check_caption(r, record));
    if (record->fault == F2B_FAULT_NONE) F2B_TRY(image_row(r, record, key, &row));
    if (record->fault != F2B_FAULT_NONE) return F2B_OK;
    char *text = f2b_strdup(record->caption, F2B_TAG_DATA);
    if (text == NULL) return f2b_last_status();
    r->texts[r->n_texts++] = text;
    r->image_of[r->n_captions++] = row;
    return r->n_texts == r->o->batch ? flush_captions(r) : F2B_OK;
}

static f2b_status add_record(retrieval_run *r, int64_t i, f2b_record *record)
{
    F2B_TRY(f2b_source_read(r->source, i, record));
    r->result->records++;
    if (record->fault == F2B_FAULT_NONE)
        F2B_TRY(take(r, record, f2b_source_image_key(r->source, i)));
    if (record->fault == F2B_FAULT_NONE) return F2B_OK;
    char *reason = f2bi_evaluate_reason(record);
    if (reason == NULL) return f2b_last_status();
    r->result->skipped++;
    f2bi_evaluate_skip(&r->o->hooks, r->source, i, reason);
    f2b_free(reason);
    return F2B_OK;
}

static f2b_status recall(retrieval_run *r)
{
    const int64_t shape[2][2] = { { r->images.n, r->images.d }, { r->captions.n, r->captions.d } };
    f2b_tensor *images = f2b_tensor_borrow(F2B_HOST, F2B_F32, 2, shape[0], r->images.rows);
    f2b_tensor *captions = f2b_tensor_borrow(F2B_HOST, F2B_F32, 2, shape[1], r->captions.rows);
    const f2b_status status = images != NULL && captions != NULL
                                  ? f2b_retrieval_recall(images, captions, r->image_of, r->result)
                                  : f2b_last_status();
    f2b_tensor_free(images);
    f2b_tensor_free(captions);
    return status;
}

static f2b_status run(retrieval_run *r, int64_t total)
{
    f2b_record record = { 0 };
    f2b_status status = F2B_OK;
    for (int64_t i = 0; status == F2B_OK && i < total; i++) {
        status = add_record(r, i, &record);
        if (status == F2B_OK) status = f2bi_evaluate_tick(&r->o->hooks, i + 1, total);
    }
    f2b_record_clear(&record);
    if (status == F2B_OK) status = flush_images(r);
    if (status == F2B_OK) status = flush_captions(r);
    if (status != F2B_OK) return status;
    if (r->n_captions == 0)
        return f2b_fail(F2B_ERR_DATA,
                        "%s: none of %lld records is a usable pair of image and "
                        "caption",
                        f2b_source_name(r->source), (long long)total);
    return recall(r);
}

static f2b_status allocate(retrieval_run *r, int64_t total)
{
    r->seen_size = 16;
    while (r->seen_size < 2 * total) r->seen_size *= 2;
    r->seen = f2b_calloc((size_t)r->seen_size, sizeof *r->seen, F2B_TAG_DATA);
    r->image_of = f2b_calloc((size_t)total, sizeof *r->image_of, F2B_TAG_DATA);
    r->pixels = f2b_calloc((size_t)r->o->batch, sizeof *r->pixels, F2B_TAG_IMAGES);
    r->texts = f2b_calloc((size_t)r->o->batch, sizeof *r->texts, F2B_TAG_DATA);
    return r->seen && r->image_of && r->pixels && r->texts ? F2B_OK : f2b_last_status();
}

f2b_status f2b_evaluate_retrieval(const f2b_infer *in, const f2b_source *source,
                                  const f2b_retrieval_options *o, f2b_retrieval_result *result)
{
    *result = (f2b_retrieval_result){ 0 };
    if (in->model->method.forward == F2B_FORWARD_BASE)
        return f2b_fail(F2B_ERR_CONFIG, "a base model (method.forward: base) has no embeddings to "
                                        "search with; name a Fwd2Bot checkpoint");
    if (o->batch < 1) return f2b_fail(F2B_ERR_INVALID, "a batch of %lld", (long long)o->batch);
    int64_t used;
    F2B_TRY(f2b_token_choice_count(&o->choice, in->model->method.tokens, &used));
    const int64_t total = f2bi_evaluate_count(source, o->limit);
    retrieval_run r = { .in = in, .source = source, .o = o, .result = result };
    f2b_status status = allocate(&r, total);
    if (status == F2B_OK) status = run(&r, total);
    for (int64_t i = 0; i < r.n_pixels; i++) f2b_free(r.pixels[i]);
    for (int64_t i = 0; i < r.n_texts; i++) f2b_free(r.texts[i]);
    f2b_free(r.pixels);
    f2b_free(r.texts);
    f2b_free(r.seen);
    f2b_free(r.image_of);
    f2b_free(r.images.rows);
    f2b_free(r.captions.rows);
    return status;
}
