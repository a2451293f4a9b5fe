/* Questions on images, answered greedily. See evaluate.h for the contract. */
#include <string.h>

#include "autograd/core/alloc.h"
#include "infer/evaluate_internal.h"

/* ---- Texts ---- */

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c; }

/* The text without white space around it; and without the dots at its end. */
static const char *stripped(const char *text, size_t *n)
{
    while (is_space(*text)) text++;
    *n = strlen(text);
    while (*n > 0 && is_space(text[*n - 1])) --*n;
    return text;
}

static const char *bare(const char *text, size_t *n)
{
    text = stripped(text, n);
    while (*n > 0 && text[*n - 1] == '.') --*n;
    return text;
}

bool f2b_vqa_match(const char *answer, const char *truth)
{
    size_t n, m;
    answer = bare(answer, &n);
    truth = bare(truth, &m);
    bool same = n == m;
    for (size_t i = 0; same && i < n; i++) same = lower(answer[i]) == lower(truth[i]);
    return same;
}

/* ---- A group of records, whose images are compressed together ---- */

typedef struct question {
    int64_t record, number;
    int64_t image; /* of the group */
    f2b_sequence prompt;
    char *text, *truth, *image_name;
} question;

typedef struct vqa_run {
    const f2b_infer *in;
    const f2b_source *source;
    const f2b_vqa_options *o;
    f2b_vqa_result *result;
    f2b_answerer answerer;
    uint8_t **pixels; /* [batch] of the group's images */
    int64_t n_images;
    question *questions;
    int64_t n_questions, capacity;
} vqa_run;

static void question_clear(question *q)
{
    f2b_free(q->prompt.ids);
    f2b_free(q->prompt.labels);
    f2b_free(q->text);
    f2b_free(q->truth);
    f2b_free(q->image_name);
}

/* Forget the group's questions from `first` on, and with the first one its images too. */
static void clear_from(vqa_run *r, int64_t first)
{
    for (int64_t i = first; i < r->n_questions; i++) question_clear(&r->questions[i]);
    r->n_questions = first;
    for (int64_t i = 0; first == 0 && i < r->n_images; i++) f2b_free(r->pixels[i]);
    if (first == 0) r->n_images = 0;
}

static question *new_question(vqa_run *r)
{
    if (r->n_questions == r->capacity) {
        const int64_t capacity = r->capacity > 0 ? 2 * r->capacity : 64;
        question *grown = f2b_realloc(r->questions, (size_t)capacity * sizeof *grown, F2B_TAG_DATA);
        if (grown == NULL) return NULL;
        r->questions = grown, r->capacity = capacity;
    }
    question *q = &r->questions[r->n_questions++];
    *q = (question){ 0 };
    return q;
}

/* The open prompt of turns [0, n), the last of which asks. The prompt with the image is made in
 * every mode, so that every mode leaves the same records out. */
static f2b_status open_prompt(const vqa_run *r, const f2b_turn *turns, int64_t n, question *q,
                              f2b_prompt_fault *fault)
{
    F2B_TRY(f2b_prompt_open(r->in->tokenizer, turns, n, true, &q->prompt, NULL, fault));
    if (r->o->tokens != F2B_VQA_NONE) return F2B_OK;
    f2b_free(q->prompt.ids);
    f2b_free(q->prompt.labels);
    q->prompt = (f2b_sequence){ 0 };
    return f2b_answer_prompt(r->in->tokenizer, turns, n, false, &q->prompt, fault);
}

static f2b_status add_question(vqa_run *r, int64_t record, f2b_record *from, const f2b_turn *turns,
                               int64_t asking)
{
    question *q = new_question(r);
    if (q == NULL) return f2b_last_status();
    q->record = record, q->number = asking / 2, q->image = r->n_images;
    q->text = f2b_answer_without_image(turns[asking].value);
    q->truth = f2b_strdup(turns[asking + 1].value, F2B_TAG_DATA);
    q->image_name = f2b_strdup(from->image, F2B_TAG_DATA);
    if (!q->text || !q->truth || !q->image_name) return f2b_last_status();
    f2b_prompt_fault fault = F2B_PROMPT_OK;
    const f2b_status status = open_prompt(r, turns, asking + 1, q, &fault);
    if (status != F2B_ERR_DATA || fault == F2B_PROMPT_OK) return status;
    f2b_record_fail(from, (f2b_fault)(F2B_FAULT_PROMPT + fault), "question %lld",
                    (long long)q->number);
    return F2B_OK;
}

/* All questions of a record; a record with a fault leaves none. As in training, a first turn that
 * is not a question is dropped. */
static f2b_status add_questions(vqa_run *r, int64_t record, f2b_record *from)
{
    const bool skip = from->n_turns > 0 && strcmp(from->turns[0].from, "human") != 0;
    const f2b_turn *turns = from->turns + skip;
    const int64_t n = from->n_turns - skip, first = r->n_questions;
    if (n < 2)
        f2b_record_fail(from, (f2b_fault)(F2B_FAULT_PROMPT + F2B_PROMPT_NO_TURNS), "%lld turns",
                        (long long)from->n_turns);
    else if (n % 2 != 0)
        f2b_record_fail(from, (f2b_fault)(F2B_FAULT_PROMPT + F2B_PROMPT_ODD_TURNS), "%lld turns",
                        (long long)from->n_turns);
    f2b_status status = F2B_OK;
    for (int64_t i = 0; status == F2B_OK && from->fault == F2B_FAULT_NONE && i < n; i += 2)
        status = add_question(r, record, from, turns, i);
    if (from->fault != F2B_FAULT_NONE) clear_from(r, first);
    return status;
}

/* The picture is decoded in every mode, so that every mode is asked the same questions. */
static f2b_status add_record(vqa_run *r, int64_t i, f2b_record *record)
{
    F2B_TRY(f2b_source_read(r->source, i, record));
    r->result->records++;
    if (record->fault == F2B_FAULT_NONE && record->image == NULL) {
        r->result->text_only++;
        return F2B_OK;
    }
    uint8_t *pixels = NULL;
    const int64_t before = r->n_questions;
    if (record->fault == F2B_FAULT_NONE)
        F2B_TRY(f2bi_evaluate_pixels(r->in, r->source, record, &pixels));
    f2b_status status = pixels != NULL ? add_questions(r, i, record) : F2B_OK;
    if (r->n_questions > before && status == F2B_OK) {
        r->pixels[r->n_images++] = pixels;
        return F2B_OK;
    }
    f2b_free(pixels);
    char *reason = status == F2B_OK ? f2bi_evaluate_reason(record) : NULL;
    if (reason == NULL) return f2b_last_status();
    r->result->skipped++;
    f2bi_evaluate_skip(&r->o->hooks, r->source, i, reason);
    f2b_free(reason);
    return F2B_OK;
}

/* ---- Answering ---- */

static f2b_status tell(vqa_run *r, const question *q, f2b_ids *ids)
{
    char *text = f2b_answer_text(r->in->tokenizer, ids->ids, ids->n);
    if (text == NULL) return f2b_last_status();
    const f2b_vqa_answer answer = {
        .record = q->record,
        .question = q->number,
        .prompt = q->text,
        .text = text,
        .truth = q->truth,
        .image = q->image_name,
        .correct = f2b_vqa_match(text, q->truth),
    };
    r->result->questions++;
    r->result->correct += answer.correct;
    const f2b_status status =
        r->o->answer != NULL ? r->o->answer(r->o->hooks.context, &answer) : F2B_OK;
    f2b_free(text);
    return status;
}

static f2b_status answer_slice(vqa_run *r, question *q, int64_t n, f2b_tensor *images,
                               f2b_pack_item *items, f2b_ids *ids)
{
    const f2b_generate_options o = {
        .stage = r->answerer.stage,
        .max_new_tokens = r->o->max_new_tokens,
        .eos_id = f2b_tokenizer_eos(r->in->tokenizer),
        .stop = r->o->hooks.stop,
        .context = r->o->hooks.context,
    };
    for (int64_t i = 0; i < n; i++) {
        items[i] =
            (f2b_pack_item){ .ids = q[i].prompt.ids, .n = q[i].prompt.n, .image = q[i].image };
        ids[i].n = 0;
    }
    F2B_TRY(f2b_generate(&r->answerer.view, items, n, images, &o, ids));
    for (int64_t i = 0; i < n; i++) F2B_TRY(tell(r, &q[i], &ids[i]));
    return F2B_OK;
}

static f2b_status answer_group(vqa_run *r)
{
    if (r->n_questions == 0) return F2B_OK;
    const int64_t batch = r->o->batch;
    f2b_pack_item *items = f2b_calloc((size_t)batch, sizeof *items, F2B_TAG_OTHER);
    f2b_ids *ids = f2b_calloc((size_t)batch, sizeof *ids, F2B_TAG_OTHER);
    f2b_tensor *rows = NULL;
    f2b_status status = items != NULL && ids != NULL
                            ? f2b_answerer_images(&r->answerer, (const uint8_t *const *)r->pixels,
                                                  r->n_images, &rows)
                            : f2b_last_status();
    for (int64_t i = 0; status == F2B_OK && i < r->n_questions; i += batch) {
        const int64_t left = r->n_questions - i;
        status = answer_slice(r, r->questions + i, left < batch ? left : batch, rows, items, ids);
    }
    f2b_tensor_free(rows);
    for (int64_t i = 0; ids != NULL && i < batch; i++) f2b_ids_free(&ids[i]);
    f2b_free(ids);
    f2b_free(items);
    clear_from(r, 0);
    return status;
}

static f2b_status run(vqa_run *r)
{
    const int64_t total = f2bi_evaluate_count(r->source, r->o->limit);
    f2b_record record = { 0 };
    f2b_status status = F2B_OK;
    for (int64_t i = 0; status == F2B_OK && i < total; i++) {
        status = add_record(r, i, &record);
        const bool full = r->n_questions >= r->o->batch || r->n_images == r->o->batch;
        if (status == F2B_OK && (full || i + 1 == total)) {
            status = answer_group(r);
            if (status == F2B_OK) status = f2bi_evaluate_tick(&r->o->hooks, i + 1, total);
        }
    }
    f2b_record_clear(&record);
    if (status == F2B_OK && r->result->questions == 0)
        return f2b_fail(F2B_ERR_DATA,
                        "%s: no question on an image in %lld records (%lld unusable, "
                        "%lld without image)",
                        f2b_source_name(r->source), (long long)total, (long long)r->result->skipped,
                        (long long)r->result->text_only);
    return status;
}

f2b_status f2b_evaluate_vqa(const f2b_infer *in, const f2b_source *source, const f2b_vqa_options *o,
                            f2b_vqa_result *result)
{
    *result = (f2b_vqa_result){ 0 };
    if (o->batch < 1) return f2b_fail(F2B_ERR_INVALID, "a batch of %lld", (long long)o->batch);
    vqa_run r = { .in = in, .source = source, .o = o, .result = result };
    F2B_TRY(f2b_answerer_init(&r.answerer, in, o->tokens, &o->choice));
    result->image_rows = f2b_answerer_image_rows(&r.answerer);
    r.pixels = f2b_calloc((size_t)o->batch, sizeof *r.pixels, F2B_TAG_IMAGES);
    const f2b_status status = r.pixels != NULL ? run(&r) : f2b_last_status();
    clear_from(&r, 0);
    f2b_free(r.questions);
    f2b_free(r.pixels);
    return status;
}
