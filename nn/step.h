/*
 * One training step: loss and every gradient of a batch of any size, in micro-batches that fit the
 * memory. L_AR is the mean over all labelled tokens of the step; L_disc is over the whole batch, by
 * GradCache (arXiv:2101.06983) where the batch takes more than one micro-batch: the same gradient as
 * one big batch.
 *
 * A shared pass 1 (f2b_step_sample.image) has one dropout mask, that of the first of its samples in
 * the batch, whatever the micro-batches; its gradient is the sum of its users'.
 */
#ifndef F2B_NN_STEP_H
#define F2B_NN_STEP_H

#include "autograd/device/readings.h"
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
    int64_t image;              /* samples of one number above 0 show the same image: where their
                                   prompts are equal too, one pass 1 serves all of them that are in
                                   one micro-batch. 0: shares with none */
} f2b_step_sample;

/** Where a step is: in which pass of which micro-batch (from 0; GradCache goes through them twice),
 *  and how much of that pass is done. */
typedef struct f2b_step_progress {
    const char *pass;                   /* "images", "pass 1", "pass 2", "backward" */
    int64_t done, of;                   /* layers; of backward, whatever was recorded */
    int64_t micro_batch, micro_batches;
} f2b_step_progress;

typedef struct f2b_step_input {
    bool autoregressive, contrastive;   /* which losses apply to this batch */
    int64_t n;
    const f2b_step_sample *samples;     /* [n] */
    /** Writes the normalised pixels [3, S, S] of a sample. */
    f2b_status (*image)(void *context, int64_t sample, float *pixels);
    /** What is kept of images between steps: the tower's rows in the model's compute type,
     *  f2b_image_tokens x vision width, on the host. `load` fills them where *found; then no pixels are
     *  asked for. `store` is handed what had to be made. Both or neither; only for a tower that is not
     *  trained (forward single trains it). */
    f2b_status (*load_features)(void *context, int64_t sample, void *rows, bool *found);
    void (*store_features)(void *context, int64_t sample, const void *rows);
    /** Asked between micro-batches; true stops the step with F2B_ERR_STOPPED. NULL: never. */
    bool (*stop)(void *context);
    /** Told at each layer where the step is; NULL: nobody. */
    void (*progress)(void *context, const f2b_step_progress *progress);
    void *context;
    int64_t micro_batch_tokens;         /* rows of both passes in one micro-batch, at most (at least one sample) */
    f2b_pass_settings settings;
    /** Where the losses are put aside; NULL: the step waits for them itself. With readings it is over
     *  when its work has been asked for, and the result has losses only after f2b_readings_fetch and
     *  f2b_step_settle. */
    f2b_readings *readings;
} f2b_step_input;

typedef struct f2b_step_result {
    double loss_ar, loss_disc;          /* 0 where a loss does not apply */
    struct {
        int64_t ar, n_ar, disc;         /* numbers of readings: sums of micro-batches from `ar` on; -1 */
    } numbers;
    int64_t tokens;                     /* rows of all sequences of both passes; shared ones (pack.h) count in each */
    int64_t labelled;                   /* labelled tokens */
    int64_t micro_batches;
    int64_t most_rows, most_computed;   /* of one micro-batch, all passes: of its sequences; shared ones once */
} f2b_step_result;

/**
 * Run forward and backward; gradients are added to the parameters' (zero them before). Between the
 * first op and the losses the host waits for nothing but images' features that are to be stored.
 * errors  F2B_ERR_DATA: no labelled token in a batch that needs one, a sample without image or
 *         caption in a contrastive batch; F2B_ERR_STOPPED; F2B_ERR_MEMORY. Gradients are then partial.
 */
f2b_status f2b_step_run(f2b_model *model, const f2b_step_input *input, f2b_step_result *result)
    F2B_MUST_USE;

/**
 * The step without its arithmetic, to find what it will take: what a ledger (core/alloc.h) counts
 * meanwhile is what f2b_step_run would allocate, gradients of parameters too where they have none. Images
 * are not asked for, and nothing is left behind.
 */
f2b_status f2b_step_rehearse(f2b_model *model, const f2b_step_input *input, f2b_step_result *result)
    F2B_MUST_USE;

/** The losses of a step that had readings, which have been fetched. */
void f2b_step_settle(f2b_step_result *result, const f2b_readings *readings);

/** The loss alone, without gradients, dropout off. */
f2b_status f2b_step_evaluate(f2b_model *model, const f2b_step_input *input, f2b_step_result *result)
    F2B_MUST_USE;

#endif
