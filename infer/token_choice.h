/*
 * Which of an image's K compressed tokens are used: any slice of them, with another left out. For
 * measuring a model with fewer tokens than it was trained with (the paper's Figures 5 and 6).
 */
#ifndef F2B_INFER_TOKEN_CHOICE_H
#define F2B_INFER_TOKEN_CHOICE_H

#include "infer/compress.h"

/** Tokens [from, to) are used, and of these [mask_from, mask_to) are not. All zero: every token. */
typedef struct f2b_token_choice {
    int64_t from, to, mask_from, mask_to;
} f2b_token_choice;

static inline bool f2b_token_choice_is_all(const f2b_token_choice *choice)
{
    return choice->to == 0 && choice->mask_to == 0;
}

/** How many of K tokens are used, into *used. F2B_ERR_USAGE: a slice that is empty or goes beyond
 *  K, or no token left. */
f2b_status f2b_token_choice_count(const f2b_token_choice *choice, int64_t K,
                                  int64_t *used) F2B_MUST_USE;

/**
 * Keep the chosen tokens alone: tokens become [n * used, d], and embeddings (where they are there)
 * the mean over the used ones. Every token chosen leaves everything as it is.
 *
 * method  of the model that compressed. errors: F2B_ERR_USAGE as above; F2B_ERR_CONFIG: embeddings
 *         of method.forward single, which are no mean of tokens; F2B_ERR_MEMORY.
 */
f2b_status f2b_compressed_choose(f2b_compressed *result, const f2b_token_choice *choice,
                                 const f2b_method *method) F2B_MUST_USE;

#endif
