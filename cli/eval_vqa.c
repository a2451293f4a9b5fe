/* f2b-eval --task vqa: answers to the questions of a LLaVA JSON. */
#include <stdio.h>
#include <string.h>

#include "cli/answer_line.h"
#include "cli/eval_tasks.h"

/* A line as LLaVA's answer files have it; metadata says what we know beside. */
static f2b_status write_answer(void *context, const f2b_vqa_answer *a)
{
    const f2b_eval_settings *s = context;
    if (s->answers == NULL) return F2B_OK;
    char question[64];
    snprintf(question, sizeof question, "%lld:%lld", (long long)a->record, (long long)a->question);
    json_t *metadata = json_pack("{s:s, s:s, s:b, s:s}", "image", a->image, "answer", a->truth,
                                 "correct", a->correct, "tokens", s->tokens);
    return f2b_answer_line_write(s->answers, s->out, json_string(question), a->prompt, a->text,
                                 s->model_id, metadata);
}

static f2b_status evaluate(f2b_eval_settings *s, const f2b_trained_model *m,
                           const f2b_source *source, f2b_vqa_result *result)
{
    s->model_id = m->path;
    if (s->out != NULL && (s->answers = fopen(s->out, "w")) == NULL)
        return f2b_fail_errno(F2B_ERR_IO, "cannot write %s", s->out);
    const f2b_infer in = { m->model, m->tokenizer, &m->image };
    const f2b_vqa_options o = {
        .tokens = f2b_vqa_tokens_of(s->tokens),
        .batch = s->batch,
        .limit = s->limit,
        .max_new_tokens = s->max_new_tokens,
        .choice = s->choice,
        .answer = write_answer,
        .hooks = f2b_eval_hooks(s),
    };
    f2b_status status = f2b_evaluate_vqa(&in, source, &o, result);
    if (s->answers != NULL && fclose(s->answers) != 0 && status == F2B_OK)
        status = f2b_fail_errno(F2B_ERR_IO, "writing %s", s->out);
    s->answers = NULL;
    return status;
}

json_t *f2b_eval_vqa(f2b_eval_settings *s)
{
    if (s->tokens == NULL) s->tokens = "compressed";
    f2b_trained_model *m = f2b_eval_open_model(s, false);
    f2b_source *source = m != NULL ? f2b_eval_open_data(s, F2B_SOURCE_CONVERSATIONS) : NULL;
    const double start = f2b_seconds();
    f2b_vqa_result r;
    json_t *results = NULL;
    if (source != NULL && evaluate(s, m, source, &r) == F2B_OK)
        results = f2b_eval_object(json_pack(
            "{s:s, s:s, s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:I, s:f}", "task", "vqa", "tokens",
            s->tokens, "accuracy", (double)r.correct / (double)r.questions, "correct",
            (json_int_t)r.correct, "questions", (json_int_t)r.questions, "records",
            (json_int_t)r.records, "skipped", (json_int_t)r.skipped, "text_only",
            (json_int_t)r.text_only, "image_rows", (json_int_t)r.image_rows, "model", m->path,
            "step", (json_int_t)m->step, "seconds", f2b_seconds() - start));
    f2b_eval_tell_choice(s, results);
    f2b_source_free(source);
    f2b_trained_model_close(m);
    return results;
}
