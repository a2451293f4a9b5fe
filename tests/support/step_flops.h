/*
 * How many floating-point operations a training step needs, from its shapes alone: what a rate in
 * samples/s is held against.
 */
#ifndef F2B_TESTS_SUPPORT_STEP_FLOPS_H
#define F2B_TESTS_SUPPORT_STEP_FLOPS_H

#include "nn/model_config.h"

/** One sample: rows of each sequence that it brings, 0 for those that it has not. */
typedef struct f2b_sample_shape {
    int64_t image;        /* pass 1 with the image: image rows, prompt, K */
    int64_t caption;      /* pass 1 with a caption */
    int64_t conversation; /* pass 2: text and K */
    int64_t labelled;     /* rows of pass 2 with a label */
} f2b_sample_shape;

/**
 * Multiply-adds as two, in training with LoRA of rank r on all linear layers and everything else frozen:
 * the tower's and the projector's forward; a layer's products forward and for the gradient of its
 * input; LoRA's products forward, for its input and for its weights; causal attention forward (half of
 * the square) and 2.5 times that backward; the head on labelled rows, both directions.
 * Nothing that is computed twice to save memory is counted twice, and every row goes through every
 * layer. For LLaVA-1.5-7B, r 128, 604 and 216 rows with 100 labels: 23.6e12.
 */
double f2b_sample_flops(const f2b_model_config *model, int64_t r, const f2b_sample_shape *sample);

#endif
