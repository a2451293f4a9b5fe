/*
 * The dataset: configured sources, tokenizer and image settings, from which samples are made.
 *
 * It joins captions to conversations, forms the sampler's pools, and turns a draw into an
 * f2b_sample: token ids and labels of both passes, and pixels. Bad records are reported to its
 * fault log and replaced by a stand-in that is a pure function of the record (sampler.h), so that
 * what a step holds never depends on what was loaded before. May be used from many threads at once.
 */
#ifndef F2B_DATA_LOADER_DATASET_H
#define F2B_DATA_LOADER_DATASET_H

#include "data/batch.h"
#include "data/image/image.h"
#include "data/image/image_settings.h"
#include "data/prompt/prompt.h"
#include "data/sampler/sampler.h"
#include "data/source/source.h"

/** One entry of data.conversations, data.captions or data.conversation_captions. */
typedef struct f2b_data_entry {
    const char *path, *images;      /* as in f2b_source_options */
} f2b_data_entry;
typedef struct f2b_data_list {
    const f2b_data_entry *entries;
    int n;
} f2b_data_list;

/** Which losses a run has; decides what the sampler gives (DESIGN section 8). */
typedef enum f2b_data_loss {
    F2B_DATA_BOTH_LOSSES, F2B_DATA_AUTOREGRESSIVE, F2B_DATA_CONTRASTIVE
} f2b_data_loss;

/** Rows of pass 1: of an image, and behind each prompt; and how many the model was made for (its
 *  max_position_embeddings), 0 where that is not known. */
typedef struct f2b_compress_rows {
    int64_t image, summary, context;
} f2b_compress_rows;

typedef struct f2b_dataset_options {
    f2b_data_list conversations, captions, conversation_captions;
    const char *tokenizer;          /* model folder with tokenizer.model, or that file */
    f2b_data_loss loss;
    bool base;                      /* method.forward: base: conversations only, no pass 1 */
    f2b_prompt_template form;       /* summary.template */
    const char *prompt;             /* summary.prompt */
    f2b_prompt_limits limits;       /* image rows of pass 2 (K, or all in `base`), max_length */
    int64_t max_caption_length;
    f2b_compress_rows compress;     /* pass 1 */
    f2b_image_settings image;       /* side and background; see f2b_image_settings_load */
    f2b_image_aspect aspect;
    int64_t conversation_batch, contrastive_batch;
    double ratio;
    bool group_images;              /* sampler.h */
    uint64_t seed;
    f2b_fault_policy faults;
    const char *cache;              /* folder of cached indices, or NULL */
} f2b_dataset_options;

typedef struct f2b_dataset f2b_dataset;

/**
 * Open everything that the losses use: with `autoregressive` or `base` no captions are opened.
 * The options are copied.
 * errors  those of tokenizer and sources; F2B_ERR_CONFIG: nothing to train on for a loss (named), or an
 *         image and its prompt are more than the model was made for.
 */
f2b_dataset *f2b_dataset_open(const f2b_dataset_options *options);
void f2b_dataset_free(f2b_dataset *dataset);

/** What was opened; borrowed. A source's number is also its number in the fault log. */
int f2b_dataset_sources(const f2b_dataset *dataset);
const f2b_source *f2b_dataset_source(const f2b_dataset *dataset, int source);
const f2b_tokenizer *f2b_dataset_tokenizer(const f2b_dataset *dataset);
const f2b_sampler *f2b_dataset_sampler(const f2b_dataset *dataset);
f2b_fault_log *f2b_dataset_faults(f2b_dataset *dataset);
const f2b_dataset_options *f2b_dataset_settings(const f2b_dataset *dataset);

/** Members of the pool of a kind: the samples that such batches are drawn from. */
int64_t f2b_dataset_pool(const f2b_dataset *dataset, f2b_batch_kind kind);

/** How many images the pools show, each counted once whatever the number of its records; images of
 *  one content under two names are two. errors: -1 with F2B_ERR_MEMORY. */
int64_t f2b_dataset_images(const f2b_dataset *dataset);

/**
 * Say which images need not be decoded, because what is made of them is at hand: samples with an
 * image for whose hash `known` is true come without pixels. It is called by any thread; set it before
 * loaders start. NULL: none, as at first.
 */
typedef bool f2b_known_image(void *user, const uint8_t hash[F2B_CONTENT_HASH_BYTES]);
void f2b_dataset_set_known(f2b_dataset *dataset, f2b_known_image *known, void *user);

/**
 * Row `row` of step `step`, given the step's draws (f2b_sampler_draw): a complete sample, bad
 * records replaced. `sample` is filled on success (f2b_sample_clear) and untouched otherwise.
 * errors  F2B_ERR_DATA: the fault policy stops, or no stand-in is usable; F2B_ERR_IO,
 *         F2B_ERR_MEMORY.
 */
f2b_status f2b_dataset_row(f2b_dataset *dataset, f2b_batch_kind kind, const f2b_draw *draws,
                           int64_t n, int64_t row, f2b_sample *sample) F2B_MUST_USE;

/**
 * The batch of a step without its images, for planning: pixels are NULL, image_hash is of the image's
 * name. Bad records have stand-ins as ever, but are not reported, and an image that cannot be used is
 * not noticed. Free with f2b_batch_free; NULL with F2B_ERR_DATA where there is no stand-in.
 */
f2b_batch *f2b_dataset_outline(f2b_dataset *dataset, int64_t step);

/**
 * Check one record as training would meet it (read, prompt, mask, image) and report a fault to the
 * log. Joined captions are checked for their text. *fault receives what was found.
 * errors  F2B_ERR_DATA by the fault policy; F2B_ERR_IO, F2B_ERR_MEMORY.
 */
f2b_status f2b_dataset_check(f2b_dataset *dataset, int source, int64_t record, f2b_fault *fault)
    F2B_MUST_USE;

/** What a sample looks like to a person or another program. */
typedef struct f2b_preview {
    f2b_batch_kind kind;
    char *text;                     /* the prompt: pass 2 of conversations, pass 1 of captions */
    char *image;                    /* the image's name in its file, or NULL */
    char *note;                     /* why the image cannot be used; NULL: it can, or there is none */
    f2b_sample sample;
} f2b_preview;

/**
 * The sample called `id`: "conversations[0]:3", "captions[0]:5", or both joined with '+'. Bad
 * records are errors here, by their fault; but one whose image alone cannot be used is shown without
 * pixels, and `note` says why.
 * errors  F2B_ERR_USAGE: no such form, source or record (what there is, is named); F2B_ERR_DATA.
 */
f2b_status f2b_dataset_preview(f2b_dataset *dataset, const char *id, f2b_preview *preview)
    F2B_MUST_USE;
void f2b_preview_clear(f2b_preview *preview);

#endif
