/*
 * Conversations to ids and labels. A conversation is rounds of `USER: q ASSISTANT: a</s>`, the
 * first with the system line before it. No token crosses `</s>`, so a round is tokenised by itself;
 * within it the ids up to `ASSISTANT:` are the instruction, and the rest, with `</s>`, is what the
 * model learns to say.
 */
#include <string.h>

#include "autograd/core/alloc.h"
#include "data/prompt/prompt.h"
#include "data/prompt/prompt_internal.h"
#include "data/tokenizer/utf8.h"

typedef struct builder {
    const f2b_tokenizer *tokenizer;
    f2b_text text;                  /* the whole prompt */
    f2b_ids ids, labels;            /* labels stay empty for an open prompt */
    f2b_ids instruction;            /* scratch */
    int64_t rounds;
} builder;

static void builder_free(builder *b)
{
    f2b_text_free(&b->text);
    f2b_ids_free(&b->ids);
    f2b_ids_free(&b->labels);
    f2b_ids_free(&b->instruction);
}

/* ---- checks of the record -------------------------------------------------------------------- */

static int64_t count_marks(const char *text)
{
    int64_t n = 0;
    for (; (text = strstr(text, F2B_IMAGE_MARK)) != NULL; text += strlen(F2B_IMAGE_MARK)) n++;
    return n;
}

static bool is_blank(const char *text)
{
    size_t bytes = strlen(text);
    (void)f2bi_strip(text, &bytes);
    return bytes == 0;
}

/* Speakers: known, and in turn. */
static f2b_prompt_fault check_speakers(const f2b_turn *turns, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const bool human = strcmp(turns[i].from, "human") == 0;
        if (!human && strcmp(turns[i].from, "gpt") != 0) return F2B_PROMPT_UNKNOWN_SPEAKER;
        if (human != (i % 2 == 0)) return F2B_PROMPT_TURN_ORDER;
    }
    return F2B_PROMPT_OK;
}

static f2b_prompt_fault check_messages(const f2b_turn *turns, int64_t n, bool has_image)
{
    int64_t marks = 0;
    bool in_answer = false;
    for (int64_t i = 0; i < n; i++) {
        const int64_t here = count_marks(turns[i].value);
        marks += here;
        in_answer = in_answer || (here > 0 && i % 2 == 1);
        if (is_blank(turns[i].value))
            return i % 2 == 0 ? F2B_PROMPT_EMPTY_QUESTION : F2B_PROMPT_EMPTY_ANSWER;
    }
    if (!has_image) return marks > 0 ? F2B_PROMPT_IMAGE_IN_TEXT : F2B_PROMPT_OK;
    if (marks == 0) return F2B_PROMPT_NO_IMAGE_MARK;
    if (marks > 1) return F2B_PROMPT_TWO_IMAGE_MARKS;
    return in_answer ? F2B_PROMPT_IMAGE_IN_ANSWER : F2B_PROMPT_OK;
}

/* Drop a first turn that is an answer; then check. `open`: the last turn is a question. */
static f2b_prompt_fault check_turns(const f2b_turn **turns, int64_t *n, bool has_image, bool open)
{
    if (*n > 0 && strcmp((*turns)[0].from, "gpt") == 0) *turns += 1, *n -= 1;
    if (*n == 0) return F2B_PROMPT_NO_TURNS;
    f2b_prompt_fault fault = check_speakers(*turns, *n);
    if (fault != F2B_PROMPT_OK) return fault;
    if (open && *n % 2 == 0) return F2B_PROMPT_TURN_ORDER;
    if (!open && *n % 2 == 1) return F2B_PROMPT_ODD_TURNS;
    return check_messages(*turns, *n, has_image);
}

/* ---- text of a round ------------------------------------------------------------------------- */

/* The question as it is; one with the mark becomes "<image>\n" and the rest, stripped. */
static f2b_status put_question(f2b_text *text, const char *value)
{
    const char *mark = strstr(value, F2B_IMAGE_MARK);
    if (mark == NULL) return f2b_text_add(text, value);
    f2b_text rest = { 0 };
    f2b_status status = f2b_text_append(&rest, value, (size_t)(mark - value));
    if (status == F2B_OK) status = f2b_text_add(&rest, mark + strlen(F2B_IMAGE_MARK));
    if (status == F2B_OK) {
        size_t bytes = rest.n;
        const char *stripped = f2bi_strip(rest.text, &bytes);
        status = f2b_text_add(text, F2B_IMAGE_MARK);
        if (status == F2B_OK && bytes > 0) status = f2b_text_add(text, "\n");
        if (status == F2B_OK) status = f2b_text_append(text, stripped, bytes);
    }
    f2b_text_free(&rest);
    return status;
}

/* Append a round's text without `</s>`; answer NULL leaves it open. */
static f2b_status put_round(builder *b, const char *question, const char *answer)
{
    if (b->rounds == 0) F2B_TRY(f2b_text_add(&b->text, F2BI_VICUNA_SYSTEM));
    F2B_TRY(f2b_text_add(&b->text, F2BI_VICUNA_USER));
    F2B_TRY(put_question(&b->text, question));
    F2B_TRY(f2b_text_add(&b->text, F2BI_VICUNA_ASSISTANT));
    if (answer == NULL) return F2B_OK;
    F2B_TRY(f2b_text_add(&b->text, " "));
    return f2b_text_add(&b->text, answer);
}

/* The first round begins the text; the later ones follow `</s>`. */
static f2b_status encode_round(const builder *b, const char *round, size_t bytes, f2b_ids *out)
{
    const bool goes_on = b->rounds > 0 && !f2b_tokenizer_legacy(b->tokenizer);
    return f2bi_prompt_chunks(b->tokenizer, round, bytes, goes_on ? F2B_ENCODE_CONTINUE : 0, out);
}

/* ---- labels ---------------------------------------------------------------------------------- */

/* `</s>` */
static const char *end_piece(const f2b_tokenizer *t)
{
    return f2b_tokenizer_piece(t, f2b_tokenizer_eos(t));
}

/*
 * Bytes of the round's instruction, up to and with `ASSISTANT:`; 0 if the mask would not fit. LLaVA
 * splits the prompt on `</s>` and each round on " ASSISTANT: ", and counts ids other than `<unk>`,
 * its padding: any of these inside a message voids the sample.
 */
static size_t instruction_bytes(const f2b_tokenizer *t, const char *round)
{
    static const char separator[] = F2BI_VICUNA_ASSISTANT " ";
    if (strstr(round, end_piece(t)) != NULL ||
        strstr(round, f2b_tokenizer_piece(t, f2b_tokenizer_unk(t))) != NULL)
        return 0;
    const char *first = strstr(round, separator);
    if (first == NULL || strstr(first + strlen(separator), separator) != NULL) return 0;
    return (size_t)(first - round) + strlen(F2BI_VICUNA_ASSISTANT);
}

/* Ids and labels of the round whose text begins at `start`, and its `</s>`. */
static f2b_status label_round(builder *b, size_t start, f2b_prompt_fault *fault)
{
    const char *round = b->text.text + start;
    const size_t bytes = instruction_bytes(b->tokenizer, round);
    if (bytes == 0) return f2bi_prompt_fail(fault, F2B_PROMPT_MASK_MISMATCH);
    const int64_t from = b->ids.n;
    b->instruction.n = 0;
    F2B_TRY(encode_round(b, round, bytes, &b->instruction));
    F2B_TRY(encode_round(b, round, b->text.n - start, &b->ids));
    const int64_t n = b->instruction.n;
    if (n > b->ids.n - from ||
        memcmp(b->instruction.ids, b->ids.ids + from, (size_t)n * sizeof *b->ids.ids) != 0)
        return f2bi_prompt_fail(fault, F2B_PROMPT_MASK_MISMATCH);   /* a piece spans the boundary */
    for (int64_t i = 0; i < n; i++) F2B_TRY(f2b_ids_push(&b->labels, F2B_NO_LABEL));
    F2B_TRY(f2b_ids_append(&b->labels, b->ids.ids + from + n, b->ids.n - from - n));
    F2B_TRY(f2b_ids_push(&b->ids, f2b_tokenizer_eos(b->tokenizer)));
    return f2b_ids_push(&b->labels, f2b_tokenizer_eos(b->tokenizer));
}

static int64_t rows_of(const f2b_ids *ids, int64_t image_rows)
{
    int64_t rows = 0;
    for (int64_t i = 0; i < ids->n; i++) rows += ids->ids[i] == F2B_IMAGE_ID ? image_rows : 1;
    return rows;
}

/* Keep the ids that fit into max_length rows; the image stays whole or the record is bad. */
static f2b_status cut(builder *b, bool has_image, f2b_prompt_limits limits, f2b_prompt_fault *fault)
{
    int64_t n = 0, rows = 0;
    bool image = false, label = false;
    for (; n < b->ids.n; n++) {
        const bool is_image = b->ids.ids[n] == F2B_IMAGE_ID;
        const int64_t next = is_image ? limits.image_rows : 1;
        if (next > limits.max_length - rows) break;
        rows += next;
        image = image || is_image;
        label = label || b->labels.ids[n] != F2B_NO_LABEL;
    }
    b->ids.n = b->labels.n = n;
    if (has_image && !image) return f2bi_prompt_fail(fault, F2B_PROMPT_IMAGE_CUT);
    return label ? F2B_OK : f2bi_prompt_fail(fault, F2B_PROMPT_NO_LABEL);
}

/* ---- public ---------------------------------------------------------------------------------- */

/* All rounds: text always, ids and labels until max_length rows are full. */
static f2b_status build_labelled(builder *b, const f2b_turn *turns, int64_t n,
                                 f2b_prompt_limits limits, f2b_prompt_fault *fault)
{
    F2B_TRY(f2b_ids_push(&b->ids, f2b_tokenizer_bos(b->tokenizer)));
    F2B_TRY(f2b_ids_push(&b->labels, F2B_NO_LABEL));
    for (int64_t i = 0; i < n; i += 2, b->rounds++) {
        const size_t start = b->text.n;
        F2B_TRY(put_round(b, turns[i].value, turns[i + 1].value));
        if (rows_of(&b->ids, limits.image_rows) < limits.max_length)
            F2B_TRY(label_round(b, start, fault));
        F2B_TRY(f2b_text_add(&b->text, end_piece(b->tokenizer)));
    }
    return F2B_OK;
}

static f2b_status build_open(builder *b, const f2b_turn *turns, int64_t n)
{
    F2B_TRY(f2b_ids_push(&b->ids, f2b_tokenizer_bos(b->tokenizer)));
    for (int64_t i = 0; i < n; i += 2, b->rounds++) {
        const size_t start = b->text.n;
        const bool last = i + 1 == n;
        F2B_TRY(put_round(b, turns[i].value, last ? NULL : turns[i + 1].value));
        F2B_TRY(encode_round(b, b->text.text + start, b->text.n - start, &b->ids));
        if (last) break;
        F2B_TRY(f2b_ids_push(&b->ids, f2b_tokenizer_eos(b->tokenizer)));
        F2B_TRY(f2b_text_add(&b->text, end_piece(b->tokenizer)));
    }
    return F2B_OK;
}

/* Hand over what the caller wants and free the rest. */
static f2b_status finish(f2b_status status, builder *b, f2b_sequence *out, char **text)
{
    if (status == F2B_OK) {
        *out = (f2b_sequence){ .n = b->ids.n, .ids = b->ids.ids, .labels = b->labels.ids };
        b->ids.ids = b->labels.ids = NULL;
        if (text != NULL) {
            *text = b->text.text;
            b->text.text = NULL;
        }
    }
    builder_free(b);
    return status;
}

f2b_status f2b_prompt_conversation(const f2b_tokenizer *tokenizer, const f2b_turn *turns,
                                   int64_t n_turns, bool has_image, f2b_prompt_limits limits,
                                   f2b_sequence *out, char **text, f2b_prompt_fault *fault)
{
    if (fault != NULL) *fault = F2B_PROMPT_OK;
    const f2b_prompt_fault why = check_turns(&turns, &n_turns, has_image, false);
    if (why != F2B_PROMPT_OK) return f2bi_prompt_fail(fault, why);
    builder b = { .tokenizer = tokenizer };
    f2b_status status = build_labelled(&b, turns, n_turns, limits, fault);
    if (status == F2B_OK) status = cut(&b, has_image, limits, fault);
    return finish(status, &b, out, text);
}

f2b_status f2b_prompt_open(const f2b_tokenizer *tokenizer, const f2b_turn *turns, int64_t n_turns,
                           bool has_image, f2b_sequence *out, char **text, f2b_prompt_fault *fault)
{
    if (fault != NULL) *fault = F2B_PROMPT_OK;
    const f2b_prompt_fault why = check_turns(&turns, &n_turns, has_image, true);
    if (why != F2B_PROMPT_OK) return f2bi_prompt_fail(fault, why);
    builder b = { .tokenizer = tokenizer };
    return finish(build_open(&b, turns, n_turns), &b, out, text);
}
