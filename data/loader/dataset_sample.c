/*
 * From records to samples: prompts, labels, pixels; faults and stand-ins. See dataset.h.
 */
#include <string.h>

#include "autograd/core/alloc.h"
#include "autograd/core/rng.h"
#include "data/loader/dataset_internal.h"

/* Candidates tried for a bad record with an image that the step does not have; then with any. */
enum { DISTINCT_ATTEMPTS = 256, ALL_ATTEMPTS = 4096 };

static void sequence_clear(f2b_sequence *s)
{
    f2b_free(s->ids);
    f2b_free(s->labels);
    *s = (f2b_sequence){ 0 };
}

void f2bi_sample_clear(f2b_sample *sample)
{
    f2b_free(sample->id);
    f2b_free(sample->pixels);
    sequence_clear(&sample->conversation);
    sequence_clear(&sample->image_prompt);
    sequence_clear(&sample->caption_prompt);
    *sample = (f2b_sample){ 0 };
}

/* A bad prompt becomes the record's fault; other failures stay what they are. */
static f2b_status take_fault(f2b_status status, f2b_prompt_fault fault, f2b_record *record)
{
    if (status != F2B_ERR_DATA) return status;
    f2b_clear_error();
    f2b_record_fail(record, (f2b_fault)(F2B_FAULT_PROMPT + fault), "%s",
                    f2b_prompt_fault_text(fault));
    return F2B_OK;
}

static f2b_status add_conversation(const f2b_dataset *d, f2b_record *record, f2b_sample *sample,
                                   char **text)
{
    f2b_prompt_fault fault = F2B_PROMPT_OK;
    const f2b_status status = f2b_prompt_conversation(
        d->tokenizer, record->turns, record->n_turns, record->image != NULL, d->options.limits,
        &sample->conversation, text, &fault);
    return take_fault(status, fault, record);
}

static f2b_status add_caption(const f2b_dataset *d, f2b_record *record, f2b_sample *sample)
{
    f2b_prompt_fault fault = F2B_PROMPT_OK;
    const f2b_status status = f2b_prompt_caption(d->tokenizer, d->options.form, d->prompt,
                                                 record->caption, d->options.max_caption_length,
                                                 &sample->caption_prompt, &fault);
    F2B_TRY(take_fault(status, fault, record));
    const f2b_compress_rows *c = &d->options.compress;
    if (c->context > 0 && sample->caption_prompt.n + c->summary > c->context)
        F2B_TRY(take_fault(F2B_ERR_DATA, F2B_PROMPT_LONG_CAPTION, record));
    return F2B_OK;
}

static f2b_status add_image_prompt(const f2b_dataset *d, f2b_sample *sample)
{
    const size_t bytes = (size_t)d->image_prompt.n * sizeof *d->image_prompt.ids;
    sample->image_prompt.ids = f2b_alloc_host(bytes, F2B_TAG_DATA);
    if (sample->image_prompt.ids == NULL) return F2B_ERR_MEMORY;
    memcpy(sample->image_prompt.ids, d->image_prompt.ids, bytes);
    sample->image_prompt.n = d->image_prompt.n;
    return F2B_OK;
}

static f2b_status add_pixels(const f2b_dataset *d, const f2b_source *source, f2b_record *record,
                             bool prepare, f2b_sample *sample)
{
    uint8_t *bytes;
    int64_t n;
    f2b_image image = { 0 };
    F2B_TRY(f2b_source_image(source, record, &bytes, &n));
    if (record->fault != F2B_FAULT_NONE) return F2B_OK;
    sample->has_image = true;
    f2b_content_hash(bytes, n, sample->image_hash);
    if (prepare && d->known != NULL && d->known(d->known_user, sample->image_hash)) {
        f2b_free(bytes);
        return F2B_OK;
    }
    f2b_status status = f2b_image_decode(bytes, n, record->image, &image);
    f2b_free(bytes);
    if (status == F2B_ERR_FORMAT) {
        f2b_record_fail(record, F2B_FAULT_IMAGE_BROKEN, "%s", f2b_last_error());
        f2b_clear_error();
        return F2B_OK;
    }
    const int size = d->options.image.size;
    if (status == F2B_OK && prepare) {
        sample->pixels = f2b_alloc_host((size_t)size * (size_t)size * 3, F2B_TAG_IMAGES);
        status = sample->pixels == NULL ? F2B_ERR_MEMORY
                                        : f2b_image_prepare(&image, d->options.aspect, size,
                                                            d->options.image.background,
                                                            sample->pixels);
    }
    f2b_image_free(&image);
    return status;
}

/* An image that is not opened counts as one by its name. */
static void name_image(const f2b_dataset *d, f2bi_place place, f2b_sample *sample)
{
    const uint64_t name = f2bi_image_of(d, d->first[place.source] + place.record);
    sample->has_image = true;
    memcpy(sample->image_hash, &name, sizeof name);
}

static f2b_status add_id(const f2b_dataset *d, const f2bi_request *q, f2b_sample *sample)
{
    const char *name = f2b_source_name(d->sources[q->place.source]);
    sample->id = q->caption == NULL
        ? f2b_sprintf(F2B_TAG_DATA, "%s:%lld", name, (long long)q->place.record)
        : f2b_sprintf(F2B_TAG_DATA, "%s:%lld+%s:%lld", name, (long long)q->place.record,
                      f2b_source_name(d->sources[q->caption->source]),
                      (long long)q->caption->record);
    return sample->id != NULL ? F2B_OK : F2B_ERR_MEMORY;
}

/* Cheap things first: an image is decoded only for a record that is good otherwise. */
f2b_status f2bi_build(f2b_dataset *d, const f2bi_request *q, f2b_record *record, f2bi_place *bad,
                      f2b_sample *sample)
{
    const f2b_source *source = d->sources[q->place.source];
    if (q->caption != NULL) {
        *bad = *q->caption;
        F2B_TRY(f2b_source_read(d->sources[q->caption->source], q->caption->record, record));
        if (record->fault == F2B_FAULT_NONE) F2B_TRY(add_caption(d, record, sample));
        if (record->fault != F2B_FAULT_NONE) return F2B_OK;
    }
    *bad = q->place;
    F2B_TRY(f2b_source_read(source, q->place.record, record));
    if (record->fault == F2B_FAULT_NONE && q->kind != F2B_BATCH_CAPTION)
        F2B_TRY(add_conversation(d, record, sample, q->text));
    if (record->fault == F2B_FAULT_NONE && q->kind == F2B_BATCH_CAPTION && q->caption == NULL)
        F2B_TRY(add_caption(d, record, sample));
    if (q->kind != F2B_BATCH_CONVERSATION && record->image == NULL)
        f2b_record_fail(record, F2B_FAULT_FIELD, "no image to set a caption against");
    if (record->fault != F2B_FAULT_NONE) return F2B_OK;
    if (record->image != NULL && q->decode)
        F2B_TRY(add_pixels(d, source, record, q->prepare, sample));
    else if (record->image != NULL)
        name_image(d, q->place, sample);
    if (record->fault != F2B_FAULT_NONE) return F2B_OK;
    if (record->image != NULL && !d->options.base) F2B_TRY(add_image_prompt(d, sample));
    return add_id(d, q, sample);
}

/* Whoever does not open the images only looks ahead, and reports nothing. */
static f2b_status report(f2b_dataset *d, const f2bi_request *q, f2bi_place bad,
                         const f2b_record *record)
{
    if (!q->decode) return F2B_OK;
    return f2b_fault_log_add(d->faults, bad.source, bad.record, record->fault, record->detail);
}

/*
 * One of the captions joined to a conversation, by (seed, epoch, sample); of bad ones the next of
 * the same image. *good is false where the conversation or all its captions are bad.
 */
static f2b_status build_joined(f2b_dataset *d, f2bi_request *q, int64_t epoch, f2b_record *record,
                               f2b_sample *sample, bool *good)
{
    int64_t first;
    const int64_t n = f2bi_joined(d, q->place, &first);
    f2b_rng rng = f2b_rng_new(d->options.seed, F2B_RNG_CAPTION, (uint64_t)q->place.source,
                              (uint64_t)epoch, (uint64_t)q->place.record);
    const int64_t chosen = (int64_t)f2b_rng_below(&rng, (uint64_t)n);
    for (int64_t i = 0; i < n; i++) {
        const f2bi_place caption = f2bi_place_of(d, d->joins[first + (chosen + i) % n].global);
        if (f2b_fault_log_knows(d->faults, caption.source, caption.record)) continue;
        f2bi_place bad;
        q->caption = &caption;
        const f2b_status status = f2bi_build(d, q, record, &bad, sample);
        q->caption = NULL;
        F2B_TRY(status);
        *good = record->fault == F2B_FAULT_NONE;
        if (*good) return F2B_OK;
        F2B_TRY(report(d, q, bad, record));
        f2bi_sample_clear(sample);
        if (bad.source == q->place.source) return F2B_OK;
    }
    return F2B_OK;
}

/* The sample of a member, if it is good; a bad one is reported. */
static f2b_status try_member(f2b_dataset *d, f2b_batch_kind kind, int64_t member, int64_t epoch,
                             bool images, f2b_sample *sample, bool *good)
{
    f2bi_request q = { .kind = kind, .decode = images, .prepare = images,
                       .place = f2bi_place_of(d, f2bi_member(&d->pools[kind], member)) };
    *good = false;
    if (f2b_fault_log_knows(d->faults, q.place.source, q.place.record)) return F2B_OK;
    const bool joined = kind != F2B_BATCH_CONVERSATION && q.place.source < d->n_conversations;
    f2b_record record = { 0 };
    f2bi_place bad;
    f2b_status status = joined ? build_joined(d, &q, epoch, &record, sample, good)
                               : f2bi_build(d, &q, &record, &bad, sample);
    if (status == F2B_OK && !joined) {
        *good = record.fault == F2B_FAULT_NONE;
        if (!*good) status = report(d, &q, bad, &record);
    }
    f2b_record_clear(&record);
    if (status != F2B_OK || !*good) f2bi_sample_clear(sample);
    return status;
}

/* Whether a stand-in shows an image that the step has already. */
static bool shows_planned(const f2b_dataset *d, f2b_batch_kind kind, const f2b_draw *draws,
                          int64_t n, int64_t member)
{
    const f2bi_members *pool = &d->pools[kind];
    const uint64_t image = f2bi_image_of(d, f2bi_member(pool, member));
    for (int64_t i = 0; i < n; i++)
        if (f2bi_image_of(d, f2bi_member(pool, draws[i].member)) == image) return true;
    return false;
}

static f2b_status make_row(f2b_dataset *d, f2b_batch_kind kind, const f2b_draw *draws, int64_t n,
                           int64_t row, bool images, f2b_sample *sample)
{
    F2B_CHECK(row >= 0 && row < n);
    const f2b_draw draw = draws[row];
    f2b_sample made = { 0 };
    bool good;
    F2B_TRY(try_member(d, kind, draw.member, draw.epoch, images, &made, &good));
    for (int64_t i = 0; i < ALL_ATTEMPTS && !good; i++) {
        const int64_t member = f2b_sampler_substitute(d->sampler, kind, draw, i);
        if (member == draw.member) continue;
        if (kind != F2B_BATCH_CONVERSATION && i < DISTINCT_ATTEMPTS &&
            shows_planned(d, kind, draws, n, member))
            continue;
        F2B_TRY(try_member(d, kind, member, draw.epoch, images, &made, &good));
    }
    if (!good) {
        const f2bi_place p = f2bi_place_of(d, f2bi_member(&d->pools[kind], draw.member));
        return f2b_fail(F2B_ERR_DATA,
                        "%s:%lld is bad, and no good record was found to stand in for "
                        "it; `f2b-data check` lists the bad ones",
                        f2b_source_name(d->sources[p.source]), (long long)p.record);
    }
    *sample = made;
    return F2B_OK;
}

f2b_status f2b_dataset_row(f2b_dataset *d, f2b_batch_kind kind, const f2b_draw *draws, int64_t n,
                           int64_t row, f2b_sample *sample)
{
    return make_row(d, kind, draws, n, row, true, sample);
}

f2b_batch *f2b_dataset_outline(f2b_dataset *d, int64_t step)
{
    const f2b_plan plan = f2b_sampler_plan(d->sampler, step);
    f2b_batch *batch = f2b_calloc(1, sizeof *batch, F2B_TAG_DATA);
    f2b_draw *draws = f2b_calloc((size_t)plan.n, sizeof *draws, F2B_TAG_DATA);
    f2b_status status = batch != NULL && draws != NULL ? F2B_OK : F2B_ERR_MEMORY;
    if (status == F2B_OK) {
        *batch = (f2b_batch){ .kind = plan.kind, .step = step, .n = plan.n,
                              .image_size = d->options.image.size,
                              .samples = f2b_calloc((size_t)plan.n, sizeof *batch->samples,
                                                    F2B_TAG_DATA) };
        if (batch->samples == NULL) status = F2B_ERR_MEMORY, batch->n = 0;
    }
    if (status == F2B_OK) status = f2b_sampler_draw(d->sampler, step, draws);
    for (int64_t i = 0; status == F2B_OK && i < plan.n; i++)
        status = make_row(d, plan.kind, draws, plan.n, i, false, &batch->samples[i]);
    f2b_free(draws);
    if (status == F2B_OK) return batch;
    f2b_batch_free(batch);
    return NULL;
}
