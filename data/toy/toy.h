/*
 * The toy world: a small visual-language problem that is drawn, not downloaded.
 *
 * A scene is a few coloured shapes on a grid of places. Of each scene there is a PNG, a conversation
 * of short questions that cannot be answered without the image, and a caption that nearly determines
 * it. A tokenizer and the config.json of a small LLaVA without weights make the folder complete: a
 * base is trained on it from nothing, then Fwd2Bot on the base.
 *
 * Everything is a pure function of the options: the same options give the same bytes.
 */
#ifndef F2B_DATA_TOY_TOY_H
#define F2B_DATA_TOY_TOY_H

#include <stdint.h>

#include "autograd/core/status.h"

typedef struct f2b_toy_options {
    uint64_t seed;
    int64_t train, val;         /* images of each part */
    int image_size;             /* side of the PNG and of the model's input; a multiple of 8 */
    int objects;                /* at most so many objects a scene, 1..grid*grid */
    int grid;                   /* places: grid x grid, 2 or 3 */
    int colours, shapes;        /* how many of each are used */
    int jitter;                 /* how far objects are off the middle of their places, 0..100 % */
    int turns;                  /* at most so many questions of a training conversation */
    int described_percent;      /* images of 100 that have a record whose answer is the caption */
    int text_only_percent;      /* text-only records per 100 training conversations */
} f2b_toy_options;

/** The world that the quickstart uses. */
f2b_toy_options f2b_toy_defaults(void);

/** Check the options. errors: F2B_ERR_USAGE naming the option, its value and its range. */
f2b_status f2b_toy_check(const f2b_toy_options *options) F2B_MUST_USE;

/**
 * Write the world into `dir` (made if it does not exist):
 *   images/t000000.png, images/v000000.png ...
 *   train.json, val.json               LLaVA conversations
 *   language.json                      the same questions without images: the caption describes the
 *                                      scene. What a language model learns before it sees
 *   captions_train.tsv, captions_val.tsv   caption<TAB>file
 *   conversation_captions.json         COCO captions of the training images, joined by file name
 *   model/                             config.json, tokenizer.model, tokenizer_config.json, ...
 *   README.txt                         what is there, and with which options it was written
 *
 * progress  called after every image with the number done and the total, or NULL; returning nonzero
 *           stops with F2B_ERR_STOPPED.
 * errors    those of f2b_toy_check; F2B_ERR_IO with the path; F2B_ERR_MEMORY.
 */
f2b_status f2b_toy_write(const char *dir, const f2b_toy_options *options,
                         int (*progress)(int64_t done, int64_t total, void *user), void *user)
    F2B_MUST_USE;

#endif
