/*
 * Plain text through the language model alone: mean negative log-likelihood a token.
 */
#ifndef F2B_INFER_NLL_H
#define F2B_INFER_NLL_H

#include "data/tokenizer/tokenizer.h"
#include "nn/model.h"

typedef struct f2b_nll_result {
    int64_t tokens;             /* predicted ids */
    int64_t chunks;
    double mean;                /* nats a token */
} f2b_nll_result;

/** Rows of logits that f2b_nll gives for n ids: n, and one for the start token of each chunk. */
int64_t f2b_nll_rows(const f2b_model *model, int64_t n);

/**
 * Predict each of n ids from those before it. The text is cut into chunks of max_positions - 1 ids;
 * each begins anew behind a start token, which is given and not predicted. (The last id of a chunk
 * predicts nothing.)
 *
 * logits  called with `rows` rows of logits [rows, vocab] f32, all rows in order; may be NULL.
 * errors  F2B_ERR_DATA: no ids, or one outside the vocabulary; F2B_ERR_NUMBERS: a loss that is not
 *         finite; F2B_ERR_MEMORY; what `logits` returns.
 */
f2b_status f2b_nll(const f2b_model *model, int32_t start, const int32_t *ids, int64_t n,
                   f2b_status (*logits)(void *context, const float *values, int64_t rows),
                   void *context, f2b_nll_result *result) F2B_MUST_USE;

#endif
