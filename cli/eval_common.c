/* What the tasks of f2b-eval share. See eval_tasks.h. */
#include <string.h>

#include "cli/eval_tasks.h"

enum { NOTES = 10 }; /* records left out are shown up to so many, then only counted */

static void note(void *user, const char *text)
{
    f2b_eval_settings *s = user;
    f2b_progress_note(&s->progress, "%s", text);
}

f2b_trained_model *f2b_eval_open_model(f2b_eval_settings *s, bool text_only)
{
    int storage = F2B_STORAGE_OF_FILE;
    if (strcmp(s->weights, "f32") == 0) storage = F2B_F32;
    if (strcmp(s->weights, "bf16") == 0) storage = F2B_BF16;
    if (strcmp(s->weights, "f16") == 0) storage = F2B_F16;
    const f2b_trained_model_options o = {
        .checkpoint = s->checkpoint,
        .model = s->model,
        .vision = s->vision,
        .device = s->arguments.device,
        .storage = storage,
        .text_only = text_only,
        .compute = strcmp(s->precision, "bf16") == 0 ? F2B_BF16 : F2B_F32,
        .notify = note,
        .user = s,
    };
    return f2b_trained_model_open(&o);
}

f2b_source *f2b_eval_open_data(const f2b_eval_settings *s, f2b_source_role role)
{
    const f2b_source_options o = {
        .role = role, .name = s->data, .path = s->data, .images = s->images
    };
    return f2b_source_open(&o);
}

static void skipped(void *context, const char *source, int64_t record, const char *reason)
{
    f2b_eval_settings *s = context;
    if (++s->notes <= NOTES)
        f2b_progress_note(&s->progress, "%s: record %lld left out: %s", source, (long long)record,
                          reason);
    else if (s->notes == NOTES + 1)
        f2b_progress_note(&s->progress, "further records that are left out are only counted");
}

static void progress(void *context, int64_t done, int64_t total)
{
    f2b_eval_settings *s = context;
    f2b_progress_show(&s->progress, done == total, "%s: %lld/%lld records | ETA %s", s->task,
                      (long long)done, (long long)total,
                      f2b_format_duration(f2b_progress_eta(&s->progress, done, total)).text);
}

f2b_evaluate_hooks f2b_eval_hooks(f2b_eval_settings *s)
{
    return (f2b_evaluate_hooks){ .skipped = skipped, .progress = progress, .context = s };
}

json_t *f2b_eval_object(json_t *object)
{
    if (object == NULL) (void)f2b_fail(F2B_ERR_MEMORY, "no memory for the results");
    return object;
}
