/*
 * Generation with a key/value cache: several sequences at once, each in a slot of its own. A row's
 * values do not depend on what runs beside it, so that a batch gives the same ids as one by one,
 * and the cache the same ids as running everything again for each token.
 */
#ifndef F2B_INFER_GENERATE_H
#define F2B_INFER_GENERATE_H

#include "data/tokenizer/buffers.h"
#include "nn/model.h"
#include "nn/pack.h"

typedef struct f2b_generator f2b_generator;

/**
 * slots     sequences at a time.
 * capacity  rows of a slot: prompt (an image is image_rows of them) and what is generated; at most
 *           the model's max_positions.
 * stage     adapters that apply; F2B_STAGE_NONE with a base view (trained_model.h).
 * return    NULL with F2B_ERR_INVALID or F2B_ERR_MEMORY. The model is borrowed.
 */
f2b_generator *f2b_generator_new(const f2b_model *model, f2b_stage stage, int64_t slots,
                                 int64_t capacity);
void f2b_generator_free(f2b_generator *generator);

/** Rows that a slot holds; forget all but the first `rows` of them. */
int64_t f2b_generator_rows(const f2b_generator *generator, int64_t slot);
void f2b_generator_rewind(f2b_generator *generator, int64_t slot, int64_t rows);

/**
 * Let n sequences go on: the rows of items[i] follow what slots[i] holds already (a prompt, one
 * token, the next turn of a chat). labels, summary and key of the items are not read here.
 *
 * slots   [n], different from each other.
 * images  rows that F2B_ROW_IMAGE points to, f2b_model_image_rows an image, any float type: a leaf
 *         (tokens out of a store) or of any tape; NULL where no item has one.
 * return  logits [n, vocab] after each sequence's last row, valid until the next call; NULL with
 *         F2B_ERR_DATA (a sequence does not fit its slot; its number is named), F2B_ERR_MEMORY.
 */
f2b_tensor *f2b_generator_feed(f2b_generator *generator, const f2b_pack_item *items,
                               const int64_t *slots, int64_t n, f2b_tensor *images);

/** How the next id is chosen. All zero: greedy, the id of the highest logit (of equal ones the
 *  lowest id). */
typedef struct f2b_sampling {
    double temperature;         /* ids are drawn from softmax(logits / temperature); 0: greedy */
    double top_p;               /* in (0, 1): only from the likeliest ids that together reach it, of
                                   equal ones the lower first; 0 or 1: from all */
    uint64_t seed;              /* a draw is a function of seed, the prompt's key and the place in
                                   its answer: what runs beside it has no say */
} f2b_sampling;

typedef struct f2b_generate_options {
    f2b_stage stage;            /* of f2b_generate; f2b_generator_answer has its generator's */
    int64_t max_new_tokens;
    int32_t eos_id;
    f2b_sampling sampling;
    f2b_status (*token)(void *context, int64_t prompt, int32_t id);   /* every id as it is chosen,
                                   the eos that ends an answer too; or NULL */
    bool (*stop)(void *context);        /* asked before every token, or NULL; true ends with
                                           F2B_ERR_STOPPED */
    void *context;
} f2b_generate_options;

/** F2B_ERR_DATA where a prompt leaves no room for a token within the model's context. */
f2b_status f2b_generate_check(const f2b_model *model, const f2b_pack_item *prompt) F2B_MUST_USE;

/**
 * Answers to n prompts, greedy or drawn: each until eos, max_new_tokens, or the end of the model's
 * context.
 *
 * prompts, images  as above; the keys of the prompts name their draws.
 * out     [n], zero-initialised by the caller; gets the new ids, without eos (f2b_ids_free).
 * errors  F2B_ERR_DATA: as f2b_generate_check, with the prompt's number; F2B_ERR_INVALID: sampling
 *         out of range; F2B_ERR_NUMBERS: logits that are not finite; F2B_ERR_STOPPED (out has what
 *         was said so far); F2B_ERR_MEMORY; what `token` returns.
 */
f2b_status f2b_generate(const f2b_model *model, const f2b_pack_item *prompts, int64_t n,
                        f2b_tensor *images, const f2b_generate_options *options,
                        f2b_ids *out) F2B_MUST_USE;

/** The same where slots 0 to n-1 hold earlier rows: prompt i goes on in slot i, to the end of the
 *  slot at most. Of an answer the last id is not in the slot, unless eos followed it. */
f2b_status f2b_generator_answer(f2b_generator *generator, const f2b_pack_item *prompts, int64_t n,
                                f2b_tensor *images, const f2b_generate_options *options,
                                f2b_ids *out) F2B_MUST_USE;

#endif
