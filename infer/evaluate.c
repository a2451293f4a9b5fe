/* What the evaluations share. See evaluate_internal.h. */
#include "autograd/core/alloc.h"
#include "infer/evaluate_internal.h"

void f2bi_evaluate_skip(const f2b_evaluate_hooks *hooks, const f2b_source *source, int64_t record,
                        const char *reason)
{
    if (hooks->skipped != NULL)
        hooks->skipped(hooks->context, f2b_source_name(source), record, reason);
}

f2b_status f2bi_evaluate_tick(const f2b_evaluate_hooks *hooks, int64_t done, int64_t total)
{
    if (hooks->stop != NULL && hooks->stop(hooks->context))
        return f2b_fail(F2B_ERR_STOPPED, "stopped after %lld of %lld records", (long long)done,
                        (long long)total);
    if (hooks->progress != NULL) hooks->progress(hooks->context, done, total);
    return F2B_OK;
}

int64_t f2bi_evaluate_count(const f2b_source *source, int64_t limit)
{
    const int64_t n = f2b_source_count(source);
    return limit > 0 && limit < n ? limit : n;
}

char *f2bi_evaluate_reason(const f2b_record *record)
{
    return f2b_sprintf(F2B_TAG_DATA, "%s: %s", f2b_fault_name(record->fault),
                       record->detail != NULL ? record->detail : f2b_fault_text(record->fault));
}

/* A picture that cannot be decoded is the record's fault; anything else is an error. */
static f2b_status decode(const f2b_infer *in, f2b_record *record, const uint8_t *bytes, int64_t n,
                         uint8_t *pixels)
{
    f2b_image image = { 0 };
    f2b_status status = f2b_image_decode(bytes, n, record->image, &image);
    if (status == F2B_ERR_FORMAT) {
        f2b_record_fail(record, F2B_FAULT_IMAGE_BROKEN, "%s", f2b_last_error());
        return F2B_OK;
    }
    if (status == F2B_OK) status = f2b_infer_prepare(in, &image, pixels);
    f2b_image_free(&image);
    return status;
}

f2b_status f2bi_evaluate_pixels(const f2b_infer *in, const f2b_source *source, f2b_record *record,
                                uint8_t **pixels)
{
    const size_t side = (size_t)in->image->size;
    uint8_t *bytes = NULL;
    int64_t n = 0;
    *pixels = NULL;
    F2B_TRY(f2b_source_image(source, record, &bytes, &n));
    if (record->fault != F2B_FAULT_NONE) return F2B_OK;
    uint8_t *out = f2b_alloc_host(side * side * 3, F2B_TAG_IMAGES);
    const f2b_status status = out != NULL ? decode(in, record, bytes, n, out) : f2b_last_status();
    f2b_free(bytes);
    if (status == F2B_OK && record->fault == F2B_FAULT_NONE) *pixels = out;
    else f2b_free(out);
    return status;
}
