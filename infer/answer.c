/* What stands for an image, and prompts of questions. See answer.h for the contract. */
#include "infer/answer.h"

#include <string.h>

#include "autograd/core/alloc.h"
#include "infer/trained_model.h"

/* ---- The model as it answers ---- */

f2b_vqa_tokens f2b_vqa_tokens_of(const char *name)
{
    if (strcmp(name, "full") == 0) return F2B_VQA_FULL;
    return strcmp(name, "none") == 0 ? F2B_VQA_NONE : F2B_VQA_COMPRESSED;
}

f2b_status f2b_answerer_init(f2b_answerer *a, const f2b_infer *in, f2b_vqa_tokens tokens,
                             const f2b_token_choice *choice)
{
    *a = (f2b_answerer){
        .in = *in, .tokens = tokens, .view = *in->model, .stage = F2B_STAGE_GENERATION
    };
    if (choice != NULL) a->choice = *choice;
    const bool base = in->model->method.forward == F2B_FORWARD_BASE;
    if (base && tokens == F2B_VQA_COMPRESSED)
        return f2b_fail(F2B_ERR_CONFIG,
                        "a base model (method.forward: base) has no compressed "
                        "tokens; ask with --tokens full, or name a Fwd2Bot checkpoint");
    if (!f2b_token_choice_is_all(&a->choice)) {
        if (tokens != F2B_VQA_COMPRESSED)
            return f2b_fail(F2B_ERR_USAGE, "only compressed tokens can be chosen from");
        F2B_TRY(f2b_token_choice_count(&a->choice, in->model->method.tokens,
                                       &a->view.method.tokens));
    }
    if (tokens == F2B_VQA_FULL && !base) {
        a->view = f2b_model_base_view(in->model);
        a->stage = F2B_STAGE_NONE;
    }
    return F2B_OK;
}

int64_t f2b_answerer_image_rows(const f2b_answerer *a)
{
    return a->tokens != F2B_VQA_NONE ? f2b_model_image_rows(&a->view) : 0;
}

int64_t f2b_answerer_rows(const f2b_answerer *a, const f2b_pack_item *prompt, int64_t *visual)
{
    const f2b_pack_options o = { .image_rows = f2b_model_image_rows(&a->view) };
    *visual = 0;
    for (int64_t i = 0; i < prompt->n; i++)
        if (prompt->ids[i] == F2B_ROW_IMAGE) *visual += o.image_rows;
    return f2b_pack_item_rows(prompt, &o);
}

f2b_status f2b_answerer_images(const f2b_answerer *a, const uint8_t *const *pixels, int64_t n,
                               f2b_tensor **rows)
{
    *rows = NULL;
    if (a->tokens == F2B_VQA_NONE) return F2B_OK;
    if (a->tokens == F2B_VQA_FULL) {
        *rows = f2b_infer_image_rows(&a->view, a->in.image, pixels, n);
        return *rows != NULL ? F2B_OK : f2b_last_status();
    }
    f2b_compressed compressed;
    F2B_TRY(f2b_compress_images(&a->in, pixels, n, false, &compressed));
    const f2b_status status = f2b_compressed_choose(&compressed, &a->choice, &a->in.model->method);
    if (status == F2B_OK) *rows = compressed.tokens;
    else f2b_compressed_clear(&compressed);
    return status;
}

/* ---- Prompts ---- */

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* Drop white space around, in place. */
static void strip(char *text)
{
    const char *begin = text;
    while (is_space(*begin)) begin++;
    size_t n = strlen(begin);
    while (n > 0 && is_space(begin[n - 1])) n--;
    memmove(text, begin, n);
    text[n] = '\0';
}

char *f2b_answer_without_image(const char *question)
{
    const char *mark = strstr(question, F2B_IMAGE_MARK);
    if (mark == NULL) return f2b_strdup(question, F2B_TAG_DATA);
    char *rest = f2b_sprintf(F2B_TAG_DATA, "%.*s%s", (int)(mark - question), question,
                             mark + strlen(F2B_IMAGE_MARK));
    if (rest != NULL) strip(rest);
    return rest;
}

static bool has_mark(const f2b_turn *turns, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (strstr(turns[i].value, F2B_IMAGE_MARK) != NULL) return true;
    return false;
}

/* The question with the mark before it. f2b_free. */
static char *marked(const char *question)
{
    return f2b_sprintf(F2B_TAG_DATA, F2B_IMAGE_MARK "\n%s", question);
}

f2b_status f2b_answer_prompt(const f2b_tokenizer *tokenizer, const f2b_turn *turns, int64_t n,
                             bool image, f2b_sequence *out, f2b_prompt_fault *fault)
{
    /* A blank question is a fault, which the mark before it would hide. */
    const bool blank = n > 0 && turns[0].value[strspn(turns[0].value, " \t\n\v\f\r")] == '\0';
    if (n == 0 || blank || has_mark(turns, n) == image)
        return f2b_prompt_open(tokenizer, turns, n, image && !blank, out, NULL, fault);
    f2b_turn *changed = f2b_calloc((size_t)n, sizeof *changed, F2B_TAG_DATA);
    f2b_status status = changed != NULL ? F2B_OK : f2b_last_status();
    for (int64_t i = 0; status == F2B_OK && i < n; i++) {
        const char *value = turns[i].value;
        changed[i].from = turns[i].from;
        changed[i].value = image && i == 0 ? marked(value) : f2b_answer_without_image(value);
        if (changed[i].value == NULL) status = f2b_last_status();
    }
    if (status == F2B_OK)
        status = f2b_prompt_open(tokenizer, changed, n, image, out, NULL, fault);
    for (int64_t i = 0; changed != NULL && i < n; i++)
        f2b_free((char *)(uintptr_t)changed[i].value);
    f2b_free(changed);
    return status;
}

/* ---- Texts of answers ---- */

bool f2b_answer_has_text(const f2b_tokenizer *tokenizer, int32_t id)
{
    if (id >= f2b_tokenizer_pieces(tokenizer)) return false;
    const f2b_piece_type type = f2b_tokenizer_piece_type(tokenizer, id);
    if (type == F2B_PIECE_BYTE) return strcmp(f2b_tokenizer_piece(tokenizer, id), "<0x00>") != 0;
    return type != F2B_PIECE_CONTROL && type != F2B_PIECE_UNKNOWN;
}

char *f2b_answer_text(const f2b_tokenizer *tokenizer, const int32_t *ids, int64_t n)
{
    f2b_decoder decoder = { 0 };
    f2b_text text = { 0 };
    f2b_status status = f2b_text_add(&text, "");
    for (int64_t i = 0; status == F2B_OK && i < n; i++)
        if (f2b_answer_has_text(tokenizer, ids[i]))
            status = f2b_tokenizer_decode_next(tokenizer, &decoder, ids[i], &text);
    if (status == F2B_OK) status = f2b_tokenizer_decode_end(&decoder, &text);
    if (status != F2B_OK) f2b_text_free(&text);
    else strip(text.text);
    return text.text;
}
