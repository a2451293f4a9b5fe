/* What the files of this folder share. */
#ifndef F2B_DATA_PROMPT_PROMPT_INTERNAL_H
#define F2B_DATA_PROMPT_PROMPT_INTERNAL_H

#include "data/prompt/prompt.h"

/* conv_vicuna_v1.system and the space after it. */
#define F2BI_VICUNA_SYSTEM                                                                         \
    "A chat between a curious user and an artificial intelligence assistant. "                    \
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
#define F2BI_VICUNA_USER "USER: "
#define F2BI_VICUNA_ASSISTANT " ASSISTANT:"

/**
 * Append the ids of a text around its `<image>` marks, F2B_IMAGE_ID at each. Every chunk is
 * tokenised by itself; the first goes on from earlier text if `flags` has F2B_ENCODE_CONTINUE.
 */
F2B_MUST_USE f2b_status f2bi_prompt_chunks(const f2b_tokenizer *tokenizer, const char *text,
                                           size_t bytes, unsigned flags, f2b_ids *out);

/** Set *fault (may be NULL) and this thread's error; returns F2B_ERR_DATA. */
f2b_status f2bi_prompt_fail(f2b_prompt_fault *fault, f2b_prompt_fault why);

#endif
