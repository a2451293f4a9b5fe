/* What the tasks of f2b-eval share. See eval_tasks.h. */
#include <stdlib.h>
#include <string.h>

#include "cli/eval_tasks.h"
#include "cli/model_choice.h"

enum { NOTES = 10 }; /* records left out are shown up to so many, then only counted */

static void note(void *user, const char *text)
{
    f2b_eval_settings *s = user;
    f2b_progress_note(&s->progress, "%s", text);
}

f2b_trained_model *f2b_eval_open_model(f2b_eval_settings *s, bool text_only)
{
    const f2b_model_choice choice = { s->checkpoint, s->model,   s->vision,
                                      s->precision,  s->weights, text_only };
    return f2b_model_choice_open(&choice, s->arguments.device, note, s);
}

f2b_source *f2b_eval_open_data(const f2b_eval_settings *s, f2b_source_role role)
{
    const f2b_source_options o = {
        .role = role, .name = s->data, .path = s->data, .images = s->images
    };
    return f2b_source_open(&o);
}

/* "FROM:TO", two whole numbers; TO is not included. */
static f2b_status slice(const char *option, const char *text, int64_t *from, int64_t *to)
{
    const char *colon = strchr(text, ':');
    if (colon != NULL && text[strspn(text, "0123456789:")] == '\0' && colon - text > 0 &&
        colon - text < 10 && strlen(colon + 1) > 0 && strlen(colon + 1) < 10 &&
        strchr(colon + 1, ':') == NULL) {
        *from = strtol(text, NULL, 10), *to = strtol(colon + 1, NULL, 10);
        if (*from < *to) return F2B_OK;
    }
    return f2b_fail(F2B_ERR_USAGE, "--%s reads FROM:TO, such as 0:8 for the first eight, not %s",
                    option, text);
}

f2b_status f2b_eval_read_choice(f2b_eval_settings *s)
{
    f2b_token_choice *c = &s->choice;
    if (s->use_tokens != NULL) F2B_TRY(slice("use-tokens", s->use_tokens, &c->from, &c->to));
    if (s->mask_tokens != NULL)
        F2B_TRY(slice("mask-tokens", s->mask_tokens, &c->mask_from, &c->mask_to));
    return F2B_OK;
}

void f2b_eval_tell_choice(const f2b_eval_settings *s, json_t *results)
{
    if (results == NULL) return;
    if (s->use_tokens != NULL)
        json_object_set_new(results, "use_tokens", json_string(s->use_tokens));
    if (s->mask_tokens != NULL)
        json_object_set_new(results, "mask_tokens", json_string(s->mask_tokens));
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
