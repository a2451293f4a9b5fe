/*
 * Answering: what stands for the image, which adapters read it, and prompts as LLaVA's evaluation
 * builds them. Programs and evaluations share this; infer/generate.h does the work.
 */
#ifndef F2B_INFER_ANSWER_H
#define F2B_INFER_ANSWER_H

#include "data/prompt/prompt.h"
#include "infer/generate.h"
#include "infer/token_choice.h"

/** What stands for the image. */
typedef enum f2b_vqa_tokens {
    F2B_VQA_COMPRESSED,         /* K tokens of pass 1, then pass 2 with the generation adapter */
    F2B_VQA_FULL,               /* all visual tokens and the base model alone, without adapters (a
                                   model of method.forward base: as it was trained) */
    F2B_VQA_NONE,               /* the question alone, without `<image>`, generation adapter */
} f2b_vqa_tokens;

/** "compressed", "full", "none", as command lines have it. */
f2b_vqa_tokens f2b_vqa_tokens_of(const char *name);

/** A model as it answers. Borrows everything from `in`; nothing to free. */
typedef struct f2b_answerer {
    f2b_infer in;
    f2b_vqa_tokens tokens;
    f2b_token_choice choice;    /* of compressed tokens */
    f2b_model view;             /* what answers, */
    f2b_stage stage;            /* with which adapters */
} f2b_answerer;

/**
 * choice  which compressed tokens are used; NULL: all.
 * errors  F2B_ERR_CONFIG: compressed tokens of a base model; F2B_ERR_USAGE: a choice that does not
 *         fit.
 */
f2b_status f2b_answerer_init(f2b_answerer *answerer, const f2b_infer *in, f2b_vqa_tokens tokens,
                             const f2b_token_choice *choice) F2B_MUST_USE;

/** Rows that an image takes in a prompt; 0 where no image is read. */
int64_t f2b_answerer_image_rows(const f2b_answerer *answerer);

/** Rows of a prompt, and of them those of an image. */
int64_t f2b_answerer_rows(const f2b_answerer *answerer, const f2b_pack_item *prompt,
                          int64_t *visual);

/**
 * What stands for n images: [n * f2b_answerer_image_rows, d], a leaf for f2b_tensor_free; *rows is
 * NULL where no image is read. pixels: [n] of f2b_infer_prepare.
 */
f2b_status f2b_answerer_images(const f2b_answerer *answerer, const uint8_t *const *pixels,
                               int64_t n, f2b_tensor **rows) F2B_MUST_USE;

/**
 * The prompt of the last question of a conversation (question, answer, ..., question).
 * image   true: `<image>` and a line end stand before the first question, or where the conversation
 *         has `<image>` already; false: the mark is taken out wherever it stands.
 * out, fault, errors  as f2b_prompt_open.
 */
f2b_status f2b_answer_prompt(const f2b_tokenizer *tokenizer, const f2b_turn *turns, int64_t n,
                             bool image, f2b_sequence *out, f2b_prompt_fault *fault) F2B_MUST_USE;

/** A copy of a question without `<image>` and, where that stood, the white space around the rest;
 *  f2b_free. NULL: no memory. */
char *f2b_answer_without_image(const char *question);

/** Whether an id adds to an answer's text: special tokens don't, nor do ids beyond the tokenizer's
 *  pieces (a model's padding rows), nor the byte zero, which would end the text. */
bool f2b_answer_has_text(const f2b_tokenizer *tokenizer, int32_t id);

/** An answer's text, without white space around it; f2b_free. NULL: no memory. */
char *f2b_answer_text(const f2b_tokenizer *tokenizer, const int32_t *ids, int64_t n);

#endif
