/* See step_internal.h: how a batch is cut into chunks. */
#include "nn/step_internal.h"

#include <string.h>

/* Whether two samples' sequences of pass 1 are one and the same. */
static bool same_prompt(const f2b_step_sample *a, const f2b_step_sample *b)
{
    const int64_t n = a->image_prompt.n;
    return a->image == b->image && n == b->image_prompt.n &&
           (n == 0 || memcmp(a->image_prompt.ids, b->image_prompt.ids,
                             (size_t)n * sizeof *a->image_prompt.ids) == 0);
}

static f2b_status find_owners(f2bi_stepper *s)
{
    s->owner = f2b_calloc((size_t)s->in->n, sizeof *s->owner, F2B_TAG_OTHER);
    if (s->owner == NULL) return F2B_ERR_MEMORY;
    for (int64_t i = 0; i < s->in->n; i++) {
        const f2b_step_sample *all = s->in->samples;
        int64_t j = all[i].has_image && all[i].image > 0 ? 0 : i;
        while (j < i && !(all[j].has_image && same_prompt(&all[j], &all[i]))) j++;
        s->owner[i] = j;
    }
    return F2B_OK;
}

static int64_t sample_rows(const f2bi_stepper *s, const f2b_step_sample *sample, bool shares)
{
    const f2b_pack_options one = f2b_pass_compress_options(s->model);
    const f2b_pack_options two = f2b_pass_generate_options(s->model);
    const bool summary = s->model->method.forward == F2B_FORWARD_DOUBLE;
    int64_t rows = 0;
    f2b_pack_item item = f2bi_step_item(sample->image_prompt, 0, summary, 0);
    if (sample->image_prompt.n > 0 && !shares) rows += f2b_pack_item_rows(&item, &one);
    item = f2bi_step_item(sample->caption_prompt, 0, summary, 0);
    if (sample->caption_prompt.n > 0) rows += f2b_pack_item_rows(&item, &one);
    item = f2bi_step_item(sample->conversation, 0, false, 0);
    if (sample->conversation.n > 0) rows += f2b_pack_item_rows(&item, &two);
    return rows;
}

static f2b_status cut(f2bi_stepper *s)
{
    s->first = f2b_calloc((size_t)s->in->n + 1, sizeof *s->first, F2B_TAG_OTHER);
    if (s->first == NULL) return F2B_ERR_MEMORY;
    int64_t rows = 0;
    for (int64_t i = 0; i < s->in->n; i++) {
        int64_t j = s->first[s->chunks];        /* is there one in this chunk that it shares with? */
        while (j < i && s->owner[j] != s->owner[i]) j++;
        int64_t more = sample_rows(s, &s->in->samples[i], j < i);
        if (i > 0 && rows + more > s->in->micro_batch_tokens) {
            s->first[++s->chunks] = i;
            rows = 0;
            more = sample_rows(s, &s->in->samples[i], false);
        }
        rows += more;
        if (rows > s->result->most_rows) s->result->most_rows = rows;
    }
    s->first[++s->chunks] = s->in->n;
    return F2B_OK;
}

static f2b_status check(const f2bi_stepper *s)
{
    const f2b_step_input *in = s->in;
    s->result->labelled = 0;
    for (int64_t i = 0; i < in->n; i++) {
        const f2b_step_sample *sample = &in->samples[i];
        const f2b_pack_item item = f2bi_step_item(sample->conversation, 0, false, 0);
        if (in->autoregressive) s->result->labelled += f2b_pack_item_labels(&item);
        if (in->contrastive && (!sample->has_image || sample->image_prompt.n == 0 ||
                                sample->caption_prompt.n == 0))
            return f2b_fail(F2B_ERR_DATA, "sample %lld of a contrastive batch lacks its image or "
                            "its caption", (long long)i);
    }
    if (in->n == 0 || (in->autoregressive && s->result->labelled == 0))
        return f2b_fail(F2B_ERR_DATA, "a batch has no %s", in->n == 0 ? "samples" : "labelled token");
    return F2B_OK;
}

f2b_status f2bi_step_plan(f2bi_stepper *s)
{
    F2B_TRY(check(s));
    F2B_TRY(find_owners(s));
    return cut(s);
}
