/* f2b-eval --task retrieval: recall between images and captions. */
#include "cli/eval_tasks.h"

static json_t *recall(const f2b_recall *r)
{
    return json_pack("{s:f, s:f, s:f}", "r@1", r->at1, "r@5", r->at5, "r@10", r->at10);
}

json_t *f2b_eval_retrieval(f2b_eval_settings *s)
{
    f2b_trained_model *m = f2b_eval_open_model(s, false);
    f2b_source *source = m != NULL ? f2b_eval_open_data(s, F2B_SOURCE_CAPTIONS) : NULL;
    const double start = f2b_seconds();
    json_t *results = NULL;
    f2b_retrieval_result r;
    if (source != NULL) {
        const f2b_infer in = { m->model, m->tokenizer, &m->image };
        const f2b_retrieval_options o = { .batch = s->batch,
                                          .limit = s->limit,
                                          .max_caption_ids = s->max_caption_length,
                                          .choice = s->choice,
                                          .hooks = f2b_eval_hooks(s) };
        if (f2b_evaluate_retrieval(&in, source, &o, &r) == F2B_OK)
            results = f2b_eval_object(
                json_pack("{s:s, s:o, s:o, s:I, s:I, s:I, s:I, s:s, s:I, s:f}", "task", "retrieval",
                          "image_to_text", recall(&r.image_to_text), "text_to_image",
                          recall(&r.text_to_image), "images", (json_int_t)r.images, "captions",
                          (json_int_t)r.captions, "records", (json_int_t)r.records, "skipped",
                          (json_int_t)r.skipped, "model", m->path, "step", (json_int_t)m->step,
                          "seconds", f2b_seconds() - start));
    }
    f2b_eval_tell_choice(s, results);
    f2b_source_free(source);
    f2b_trained_model_close(m);
    return results;
}
