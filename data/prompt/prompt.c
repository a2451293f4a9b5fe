/* Text to ids around images, the prompts of pass 1, and the names of faults. See prompt.h. */
#include "data/prompt/prompt.h"

#include <string.h>

#include "autograd/core/alloc.h"
#include "data/prompt/prompt_internal.h"
#include "data/tokenizer/utf8.h"

static const char *const fault_names[] = {
#define F2B_X(fault, name, text) name,
    F2B_PROMPT_FAULT_LIST(F2B_X)
#undef F2B_X
};
static const char *const fault_texts[] = {
#define F2B_X(fault, name, text) text,
    F2B_PROMPT_FAULT_LIST(F2B_X)
#undef F2B_X
};

const char *f2b_prompt_fault_name(f2b_prompt_fault fault) { return fault_names[fault]; }
const char *f2b_prompt_fault_text(f2b_prompt_fault fault) { return fault_texts[fault]; }

f2b_status f2bi_prompt_fail(f2b_prompt_fault *fault, f2b_prompt_fault why)
{
    if (fault != NULL) *fault = why;
    return f2b_fail(F2B_ERR_DATA, "%s", fault_texts[why]);
}

f2b_status f2bi_prompt_chunks(const f2b_tokenizer *tokenizer, const char *text, size_t bytes,
                              unsigned flags, f2b_ids *out)
{
    const size_t mark_bytes = strlen(F2B_IMAGE_MARK);
    for (;;) {
        const char *mark = memmem(text, bytes, F2B_IMAGE_MARK, mark_bytes);
        const size_t chunk = mark != NULL ? (size_t)(mark - text) : bytes;
        F2B_TRY(f2b_tokenizer_encode(tokenizer, text, chunk, flags | F2B_ENCODE_CONTROL, out));
        if (mark == NULL) return F2B_OK;
        F2B_TRY(f2b_ids_push(out, F2B_IMAGE_ID));
        text += chunk + mark_bytes, bytes -= chunk + mark_bytes;
        flags = 0;
    }
}

f2b_status f2b_prompt_encode(const f2b_tokenizer *tokenizer, const char *text, f2b_ids *out)
{
    F2B_TRY(f2b_ids_push(out, f2b_tokenizer_bos(tokenizer)));
    return f2bi_prompt_chunks(tokenizer, text, strlen(text), 0, out);
}

/* `before` X \n prompt `after`, for either template. */
static char *around(f2b_prompt_template form, const char *what, size_t bytes, const char *prompt)
{
    const bool plain = form == F2B_TEMPLATE_PLAIN;
    return f2b_sprintf(F2B_TAG_DATA, "%s%.*s\n%s%s",
                       plain ? "" : F2BI_VICUNA_SYSTEM F2BI_VICUNA_USER, (int)bytes, what, prompt,
                       plain ? "" : F2BI_VICUNA_ASSISTANT);
}

/* Hand the ids over as a sequence without labels, or free them. */
static f2b_status finish(f2b_status status, f2b_ids *ids, f2b_sequence *out)
{
    if (status == F2B_OK) *out = (f2b_sequence){ .n = ids->n, .ids = ids->ids };
    else f2b_ids_free(ids);
    return status;
}

f2b_status f2b_prompt_image(const f2b_tokenizer *tokenizer, f2b_prompt_template form,
                            const char *prompt, f2b_sequence *out)
{
    char *text = around(form, F2B_IMAGE_MARK, strlen(F2B_IMAGE_MARK), prompt);
    if (text == NULL) return F2B_ERR_MEMORY;
    f2b_ids ids = { 0 };
    const f2b_status status = f2b_prompt_encode(tokenizer, text, &ids);
    f2b_free(text);
    return finish(status, &ids, out);
}

/*
 * The text of a caption's first max_ids ids; NULL if it has no more than that (or on an error,
 * which *status tells). Encoding this text again gives just these ids: no merge of the whole
 * caption crossed the cut, so none of those before it changes.
 */
static char *cut_caption(const f2b_tokenizer *tokenizer, const char *caption, size_t bytes,
                         int64_t max_ids, f2b_status *status)
{
    f2b_ids ids = { 0 };
    f2b_text text = { 0 };
    f2b_decoder decoder = { 0 };
    bool cut = false;
    *status = f2b_tokenizer_encode(tokenizer, caption, bytes, F2B_ENCODE_PLAIN, &ids);
    if (*status == F2B_OK && ids.n > max_ids) {
        cut = true;
        *status = f2b_text_add(&text, "");
        for (int64_t i = 0; i < max_ids && *status == F2B_OK; i++)
            *status = f2b_tokenizer_decode_next(tokenizer, &decoder, ids.ids[i], &text);
        /* Without f2b_tokenizer_decode_end: the bytes of an incomplete character are dropped. */
    }
    f2b_ids_free(&ids);
    if (cut && *status == F2B_OK) return text.text;
    f2b_text_free(&text);
    return NULL;
}

f2b_status f2b_prompt_caption(const f2b_tokenizer *tokenizer, f2b_prompt_template form,
                              const char *prompt, const char *caption, int64_t max_ids,
                              f2b_sequence *out, f2b_prompt_fault *fault)
{
    size_t bytes = strlen(caption);
    const char *stripped = f2bi_strip(caption, &bytes);
    if (fault != NULL) *fault = F2B_PROMPT_OK;
    if (bytes == 0) return f2bi_prompt_fail(fault, F2B_PROMPT_EMPTY_CAPTION);
    if (bytes > INT32_MAX)
        return f2b_fail(F2B_ERR_DATA, "a caption of %zu bytes is too long", bytes);
    f2b_status status;
    char *shorter = cut_caption(tokenizer, stripped, bytes, max_ids, &status);
    F2B_TRY(status);
    if (shorter != NULL) stripped = shorter, bytes = strlen(shorter);

    f2b_ids ids = { 0 };
    char *text = around(form, stripped, bytes, prompt);
    if (text == NULL) status = F2B_ERR_MEMORY;
    if (status == F2B_OK) status = f2b_ids_push(&ids, f2b_tokenizer_bos(tokenizer));
    if (status == F2B_OK)
        status = f2b_tokenizer_encode(tokenizer, text, strlen(text), F2B_ENCODE_CONTROL, &ids);
    f2b_free(shorter);
    f2b_free(text);
    return finish(status, &ids, out);
}
