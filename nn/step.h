/*
 * One training step: loss and every gradient of a batch of any size, in micro-batches that fit the
 * memory. L_AR is the mean over all labelled tokens of the step; L_disc is over the whole batch, by
 * GradCache (arXiv:2101.06983) where the batch takes more than one micro-batch: the same gradient as
 * one big batch.
 */
#ifndef F2B_NN_STEP_H
#define F2B_NN_STEP_H

#include "nn/passes.h"

/** Token ids, borrowed; labels may be NULL. n = 0: the sample has none. */
typedef struct f2b_tokens {
    const int32_t *ids, *labels;
    int64_t n;
} f2b_tokens;

typedef struct f2b_step_sample {
    f2b_tokens conversation;    /* pass 2 */
    f2b_tokens image_prompt;    /* pass 1, image side, up to the summary rows */
    f2b_tokens caption_prompt;  /* pass 1, caption side */
    bool has_image;
} f2b_step_sample;

typedef struct f2b_step_input {
    bool autoregressive, contrastive;   /* which losses apply to this batch */
    int64_t n;
    const f2b_step_sample *samples;     /* [n] */
    /** Writes the normalised pixels [3, S, S] of a sample. */
    f2b_status (*image)(void *context, int64_t sample, float *pixels);
    /** Asked between micro-batches; true stops the step with F2B_ERR_STOPPED. NULL: never. */
    bool (*stop)(void *context);
    void *context;
    int64_t micro_batch_tokens;         /* rows of both passes in one micro-batch, at most (at least one sample) */
    f2b_pass_settings settings;
} f2b_step_input;

typedef struct f2b_step_result {
    double loss_ar, loss_disc;          /* 0 where a loss does not apply */
    int64_t tokens;                     /* rows that went through the language model, forward */
    int64_t labelled;                   /* labelled tokens */
    int64_t micro_batches;
} f2b_step_result;

/**
 * Run forward and backward; gradients are added to the parameters' (zero them before).
 * errors  F2B_ERR_DATA: no labelled token in a batch that needs one, a sample without image or
 *         caption in a contrastive batch; F2B_ERR_STOPPED; F2B_ERR_MEMORY. Gradients are then partial.
 */
f2b_status f2b_step_run(f2b_model *model, const f2b_step_input *input, f2b_step_result *result)
    F2B_MUST_USE;

/** The loss alone, without gradients, dropout off. */
f2b_status f2b_step_evaluate(f2b_model *model, const f2b_step_input *input, f2b_step_result *result)
    F2B_MUST_USE;

#endif
