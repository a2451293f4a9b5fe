/*
 * Evaluations, callable from programs and from training. Each reads a source record by record; a
 * record that cannot be used is told to the caller and counted, never silently left out.
 */
#ifndef F2B_INFER_EVALUATE_H
#define F2B_INFER_EVALUATE_H

#include "infer/answer.h"

/** A record that was left out, with the reason; progress. Texts are valid during the call. */
typedef struct f2b_evaluate_hooks {
    void (*skipped)(void *context, const char *source, int64_t record, const char *reason);
    void (*progress)(void *context, int64_t done, int64_t total);      /* records */
    bool (*stop)(void *context);        /* true: end with F2B_ERR_STOPPED */
    void *context;                      /* any function may be NULL */
} f2b_evaluate_hooks;

/* ---- Questions on images ---- */

/** One answered question; borrowed. */
typedef struct f2b_vqa_answer {
    int64_t record, question;   /* record of the source, human turn within it; both from 0 */
    const char *prompt;         /* the question as it stands in the file, without `<image>` */
    const char *text;           /* the model's answer, stripped */
    const char *truth;          /* the file's answer */
    const char *image;          /* its name in the file */
    bool correct;
} f2b_vqa_answer;

typedef struct f2b_vqa_options {
    f2b_vqa_tokens tokens;
    int64_t batch;              /* questions a forward pass, and images */
    int64_t limit;              /* the first so many records; 0: all */
    int64_t max_new_tokens;
    f2b_token_choice choice;    /* of compressed tokens */
    f2b_status (*answer)(void *context, const f2b_vqa_answer *answer);     /* in order; or NULL */
    f2b_evaluate_hooks hooks;   /* its context is `answer`'s too */
} f2b_vqa_options;

typedef struct f2b_vqa_result {
    int64_t records, skipped;   /* read; of them unusable */
    int64_t text_only;          /* of them without image: not asked */
    int64_t questions, correct;
    int64_t image_rows;         /* rows that an image took */
} f2b_vqa_result;

/**
 * Every question of a LLaVA JSON is asked with the file's own answers as history, and answered
 * greedily. An answer is right if it equals the file's by f2b_vqa_match.
 * errors  F2B_ERR_CONFIG: compressed tokens of a base model; F2B_ERR_USAGE: a choice that does not
 *         fit; F2B_ERR_DATA: no question at all.
 */
f2b_status f2b_evaluate_vqa(const f2b_infer *in, const f2b_source *source,
                            const f2b_vqa_options *options, f2b_vqa_result *result) F2B_MUST_USE;

/** Equal after white space around, then dots at the end, are removed, and without regard to the
 *  case of ASCII letters (as LLaVA's GQA evaluation does). */
bool f2b_vqa_match(const char *answer, const char *truth);

/* ---- Retrieval ---- */

/** Recall at 1, 5, 10, as fractions. */
typedef struct f2b_recall {
    double at1, at5, at10;
} f2b_recall;

typedef struct f2b_retrieval_result {
    int64_t records, skipped;
    int64_t images, captions;
    f2b_recall image_to_text, text_to_image;
} f2b_retrieval_result;

/**
 * Recall from embeddings by cosine. Text to image: the caption's one image is among the first k
 * images. Image to text: any of the image's captions is among the first k captions. Of equal
 * similarities the lower index comes first.
 *
 * images [n, d], captions [m, d] f32 leaves; image_of [m]: the image of each caption. Every image
 * has at least one.
 * errors  F2B_ERR_SHAPE; F2B_ERR_DATA (image_of outside, an image without caption);
 *         F2B_ERR_NUMBERS.
 */
f2b_status f2b_retrieval_recall(f2b_tensor *images, f2b_tensor *captions, const int64_t *image_of,
                                f2b_retrieval_result *result) F2B_MUST_USE;

typedef struct f2b_retrieval_options {
    int64_t batch;              /* images, or captions, a forward pass */
    int64_t limit;              /* the first so many records; 0: all */
    int64_t max_caption_ids;    /* data.max_caption_length */
    f2b_token_choice choice;    /* embeddings are means over these tokens */
    f2b_evaluate_hooks hooks;
} f2b_retrieval_options;

/**
 * Both directions over an image-caption source (TSV, COCO, LLaVA JSON, webdataset). Records that
 * name the same image are captions of one image.
 * errors  F2B_ERR_CONFIG: a base model; F2B_ERR_USAGE: a choice that does not fit; F2B_ERR_DATA: no
 *         usable pair.
 */
f2b_status f2b_evaluate_retrieval(const f2b_infer *in, const f2b_source *source,
                                  const f2b_retrieval_options *options,
                                  f2b_retrieval_result *result) F2B_MUST_USE;

#endif
