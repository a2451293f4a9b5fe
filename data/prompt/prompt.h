/*
 * From conversations and captions to token ids and labels: LLaVA's vicuna_v1 prompts, exactly as
 * its training code builds, tokenises and masks them, and the two prompts of pass 1.
 *
 * Ids begin with the start token; F2B_IMAGE_ID stands at `<image>`. Sequences are allocated with
 * f2b_alloc_host and owned by the caller (f2b_free of ids and labels, or f2b_batch_free of a
 * sample). Nothing here keeps state: all functions may be called from many threads.
 *
 * source  haotian-liu/LLaVA llava/train/train.py (preprocess_multimodal, preprocess_v1),
 *         llava/mm_utils.py (tokenizer_image_token), llava/conversation.py (conv_vicuna_v1).
 */
#ifndef F2B_DATA_PROMPT_PROMPT_H
#define F2B_DATA_PROMPT_PROMPT_H

#include <stdbool.h>
#include <stdint.h>

#include "autograd/core/status.h"
#include "data/batch.h"
#include "data/tokenizer/tokenizer.h"

/** Where an image goes in a text. */
#define F2B_IMAGE_MARK "<image>"

/* Why a record cannot be used: fault, name in counts and lists, text for people. */
#define F2B_PROMPT_FAULT_LIST(X)                                                                   \
    X(F2B_PROMPT_OK, "ok", "usable")                                                               \
    X(F2B_PROMPT_NO_TURNS, "no_turns", "the conversation has no question and answer")              \
    X(F2B_PROMPT_UNKNOWN_SPEAKER, "unknown_speaker", "a turn is from neither `human` nor `gpt`")   \
    X(F2B_PROMPT_TURN_ORDER, "turn_order", "questions and answers do not alternate")               \
    X(F2B_PROMPT_ODD_TURNS, "odd_turns", "the last question has no answer")                        \
    X(F2B_PROMPT_EMPTY_QUESTION, "empty_question", "a question is empty")                          \
    X(F2B_PROMPT_EMPTY_ANSWER, "empty_answer", "an answer is empty")                               \
    X(F2B_PROMPT_NO_IMAGE_MARK, "no_image_mark", "the record has an image but no <image>")         \
    X(F2B_PROMPT_TWO_IMAGE_MARKS, "two_image_marks", "the record has more than one <image>")       \
    X(F2B_PROMPT_IMAGE_IN_TEXT, "image_mark_without_image", "the record has <image> but no image") \
    X(F2B_PROMPT_IMAGE_IN_ANSWER, "image_mark_in_answer", "<image> stands in an answer")           \
    X(F2B_PROMPT_MASK_MISMATCH, "mask_mismatch",                                                   \
      "the label mask does not fit: ` ASSISTANT: `, `</s>` or "                                    \
      "`<unk>` stands in a message")                                                               \
    X(F2B_PROMPT_IMAGE_CUT, "image_beyond_max_length", "the image does not fit within max_length") \
    X(F2B_PROMPT_NO_LABEL, "no_labelled_token", "no labelled token is left within max_length")     \
    X(F2B_PROMPT_EMPTY_CAPTION, "empty_caption", "the caption is empty")                           \
    X(F2B_PROMPT_LONG_CAPTION, "caption_beyond_context",                                           \
      "with its prompt the caption is longer than the model's context; lower max_caption_length")

typedef enum f2b_prompt_fault {
#define F2B_X(fault, name, text) fault,
    F2B_PROMPT_FAULT_LIST(F2B_X)
#undef F2B_X
    F2B_PROMPT_FAULTS
} f2b_prompt_fault;

const char *f2b_prompt_fault_name(f2b_prompt_fault fault);
const char *f2b_prompt_fault_text(f2b_prompt_fault fault);

/** One message; both texts borrowed. `from` is "human" or "gpt". */
typedef struct f2b_turn {
    const char *from;
    const char *value;
} f2b_turn;

/** What the room for a conversation is. */
typedef struct f2b_prompt_limits {
    int64_t image_rows;         /* rows at <image> in pass 2: K, or all visual tokens in `base` */
    int64_t max_length;         /* rows of pass 2; what goes beyond is cut at the end */
} f2b_prompt_limits;

/**
 * A conversation for training.
 *
 * A first turn that is not from `human` is dropped. The turn with `<image>` becomes `<image>\n` and
 * the rest, stripped. Text: SYS and a space, then for each round `USER: q ASSISTANT: a</s>`, no
 * space after `</s>`. Labels are the answers' tokens and each closing `</s>`. What goes beyond
 * max_length rows is cut off, and a mask that does not fit there is no fault, as in LLaVA.
 *
 * has_image  the record names an image; it must have exactly one `<image>`, in a question.
 * out        ids and labels [n] on success; untouched otherwise.
 * text       NULL, or receives the whole prompt before any cut, with `<image>` (f2b_free).
 * fault      NULL, or receives why the record is bad; F2B_PROMPT_OK if it is not.
 * return     F2B_ERR_DATA for a bad record; F2B_ERR_MEMORY.
 */
F2B_MUST_USE f2b_status f2b_prompt_conversation(const f2b_tokenizer *tokenizer,
                                                const f2b_turn *turns, int64_t n_turns,
                                                bool has_image, f2b_prompt_limits limits,
                                                f2b_sequence *out, char **text,
                                                f2b_prompt_fault *fault);

/**
 * The open prompt for generation: history and a last question, ending in `ASSISTANT:`. The same ids
 * as the training prompt of that conversation has before the last answer. No labels, no cut.
 *
 * turns   question, answer, ..., question.        Other arguments and errors as above.
 */
F2B_MUST_USE f2b_status f2b_prompt_open(const f2b_tokenizer *tokenizer, const f2b_turn *turns,
                                        int64_t n_turns, bool has_image, f2b_sequence *out,
                                        char **text, f2b_prompt_fault *fault);

/** What stands around image or caption in pass 1. */
typedef enum f2b_prompt_template {
    F2B_TEMPLATE_VICUNA_V1,     /* SYS USER: X\n{prompt} ASSISTANT: */
    F2B_TEMPLATE_PLAIN,         /* X\n{prompt}   (Eq. 1 to the letter) */
} f2b_prompt_template;

/**
 * Pass 1, image side, up to where the summary rows follow; also the prompt of `single`'s
 * contrastive output. Tokenised chunk by chunk around the image, as LLaVA does. No labels.
 */
F2B_MUST_USE f2b_status f2b_prompt_image(const f2b_tokenizer *tokenizer, f2b_prompt_template form,
                                         const char *prompt, f2b_sequence *out);

/**
 * Pass 1, caption side, likewise; tokenised as one text. The caption is stripped (Unicode white
 * space) and, if its own ids are more than max_ids, becomes the text of its first max_ids ids; a
 * character of which the cut leaves only some bytes is dropped. `<image>` in a caption is plain
 * text.
 *
 * max_ids  data.max_caption_length, > 0.
 * fault    NULL, or receives F2B_PROMPT_EMPTY_CAPTION with F2B_ERR_DATA.
 */
F2B_MUST_USE f2b_status f2b_prompt_caption(const f2b_tokenizer *tokenizer, f2b_prompt_template form,
                                           const char *prompt, const char *caption, int64_t max_ids,
                                           f2b_sequence *out, f2b_prompt_fault *fault);

/**
 * Any text, as LLaVA's tokenizer_image_token: start token, then the chunks around each `<image>`,
 * each tokenised by itself, with F2B_IMAGE_ID between them.
 */
F2B_MUST_USE f2b_status f2b_prompt_encode(const f2b_tokenizer *tokenizer, const char *text,
                                          f2b_ids *out);

#endif
