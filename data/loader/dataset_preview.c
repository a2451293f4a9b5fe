/* Single records of a dataset: checked for `f2b-data check`, shown for `f2b-data preview`. */
#include <stdlib.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "data/loader/dataset_internal.h"

static f2b_batch_kind kind_of(const f2b_dataset *d, int source)
{
    return source < d->n_conversations ? F2B_BATCH_CONVERSATION : F2B_BATCH_CAPTION;
}

f2b_status f2b_dataset_check(f2b_dataset *d, int source, int64_t record, f2b_fault *fault)
{
    const bool joined = source >= d->n_conversations + d->n_captions;
    const f2bi_request q = { .kind = kind_of(d, source), .place = { source, record },
                             .decode = !joined };
    f2b_record r = { 0 };
    f2b_sample sample = { 0 };
    f2bi_place bad;
    f2b_status status = f2bi_build(d, &q, &r, &bad, &sample);
    *fault = r.fault;
    if (status == F2B_OK && r.fault != F2B_FAULT_NONE)
        status = f2b_fault_log_add(d->faults, source, record, r.fault, r.detail);
    f2bi_sample_clear(&sample);
    f2b_record_clear(&r);
    return status;
}

/* "captions[0]:17" up to `end`. */
static f2b_status parse_place(const f2b_dataset *d, const char *id, const char *end,
                              f2bi_place *out)
{
    const char *colon = memchr(id, ':', (size_t)(end - id));
    for (int i = 0; colon != NULL && i < d->n_sources; i++) {
        const char *name = f2b_source_name(d->sources[i]);
        if (strlen(name) != (size_t)(colon - id) || memcmp(name, id, strlen(name)) != 0) continue;
        char *stop;
        const long long record = strtoll(colon + 1, &stop, 10);
        if (stop != end || colon[1] < '0' || colon[1] > '9' ||
            record >= f2b_source_count(d->sources[i]))
            return f2b_fail(F2B_ERR_USAGE, "%s: %s has records 0 to %lld", id, name,
                            (long long)f2b_source_count(d->sources[i]) - 1);
        *out = (f2bi_place){ i, record };
        return F2B_OK;
    }
    f2b_text names = { 0 };
    f2b_status status = F2B_OK;
    for (int i = 0; i < d->n_sources && status == F2B_OK; i++) {
        if (i > 0) status = f2b_text_add(&names, ", ");
        if (status == F2B_OK) status = f2b_text_add(&names, f2b_source_name(d->sources[i]));
    }
    if (status == F2B_OK)
        status = f2b_fail(F2B_ERR_USAGE, "%s: a sample is called SOURCE:RECORD, as in "
                          "conversations[0]:3; the sources are %s", id, names.text);
    f2b_free(names.text);
    return status;
}

static f2b_status parse_id(const f2b_dataset *d, const char *id, f2bi_request *q,
                           f2bi_place *caption)
{
    const char *plus = strchr(id, '+');
    F2B_TRY(parse_place(d, id, plus != NULL ? plus : id + strlen(id), &q->place));
    const int joined = d->n_conversations + d->n_captions;
    const bool conversation = q->place.source < d->n_conversations;
    if (plus == NULL && q->place.source >= joined)
        return f2b_fail(F2B_ERR_USAGE, "%s: captions of conversations are shown with their "
                        "conversation: conversations[0]:3+%s", id, id);
    q->kind = kind_of(d, q->place.source);
    if (plus == NULL) return F2B_OK;
    F2B_TRY(parse_place(d, plus + 1, id + strlen(id), caption));
    if (!conversation || caption->source < joined)
        return f2b_fail(F2B_ERR_USAGE, "%s: what is joined is a record of conversations and one of "
                        "conversation_captions", id);
    if (f2b_source_stem_key(d->sources[q->place.source], q->place.record) !=
        f2b_source_stem_key(d->sources[caption->source], caption->record))
        return f2b_fail(F2B_ERR_USAGE, "%s: the caption is of another image", id);
    q->kind = F2B_BATCH_BOTH;
    q->caption = caption;
    return F2B_OK;
}

/* Tokens do not depend on the image: they can be shown without it. */
static f2b_status build_without_image(f2b_dataset *d, f2bi_request *q, f2b_record *record,
                                      f2bi_place *bad, f2b_preview *preview)
{
    preview->note = f2b_sprintf(F2B_TAG_DATA, "%s: %s", f2b_fault_name(record->fault),
                                record->detail != NULL ? record->detail : "");
    if (preview->note == NULL) return F2B_ERR_MEMORY;
    f2b_record_clear(record);
    f2bi_sample_clear(&preview->sample);
    f2b_free(preview->text);
    preview->text = NULL;
    q->decode = false;
    return f2bi_build(d, q, record, bad, &preview->sample);
}

static bool is_image_fault(f2b_fault fault)
{
    return fault == F2B_FAULT_IMAGE_NAME || fault == F2B_FAULT_IMAGE_MISSING ||
           fault == F2B_FAULT_IMAGE_BROKEN;
}

f2b_status f2b_dataset_preview(f2b_dataset *d, const char *id, f2b_preview *preview)
{
    *preview = (f2b_preview){ 0 };
    f2bi_place caption, bad = { 0 };
    f2bi_request q = { .decode = true, .prepare = true, .text = &preview->text };
    F2B_TRY(parse_id(d, id, &q, &caption));
    preview->kind = q.kind;
    f2b_record record = { 0 };
    f2b_sample *sample = &preview->sample;
    f2b_status status = f2bi_build(d, &q, &record, &bad, sample);
    if (status == F2B_OK && is_image_fault(record.fault))
        status = build_without_image(d, &q, &record, &bad, preview);
    if (status == F2B_OK && record.fault != F2B_FAULT_NONE)
        status = f2b_fail(F2B_ERR_DATA, "%s:%lld is a bad record: %s: %s",
                          f2b_source_name(d->sources[bad.source]), (long long)bad.record,
                          f2b_fault_name(record.fault), record.detail != NULL ? record.detail : "");
    if (status == F2B_OK && preview->text == NULL) {
        preview->text = f2b_tokenizer_decode(d->tokenizer, sample->caption_prompt.ids,
                                             sample->caption_prompt.n);
        if (preview->text == NULL) status = f2b_last_status();
    }
    preview->image = record.image;
    record.image = NULL;
    f2b_record_clear(&record);
    if (status != F2B_OK) f2b_preview_clear(preview);
    return status;
}

void f2b_preview_clear(f2b_preview *preview)
{
    f2b_free(preview->text);
    f2b_free(preview->image);
    f2b_free(preview->note);
    f2bi_sample_clear(&preview->sample);
    *preview = (f2b_preview){ 0 };
}
