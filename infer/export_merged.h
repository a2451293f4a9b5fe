/*
 * A trained model as a plain Hugging Face folder: base and what was trained become one set of
 * weights, with one stage's adapter merged in (W + alpha/r * B A). How a base trained from nothing
 * becomes the `model.path` of the next run, and how other tools get a model without adapters.
 */
#ifndef F2B_INFER_EXPORT_MERGED_H
#define F2B_INFER_EXPORT_MERGED_H

#include "infer/trained_model.h"

typedef struct f2b_merge_options {
    const char *from;           /* a run, a checkpoint or an export */
    const char *to;             /* the folder; an earlier one is replaced */
    const char *model, *vision; /* base folders, NULL where the run says where they are */
    f2b_stage stage;            /* whose adapter is merged: F2B_STAGE_NONE for none */
    int64_t shard_bytes;        /* most bytes of a file of weights; 0: 4 GiB */
} f2b_merge_options;

/** What was written. */
typedef struct f2b_merge_result {
    int64_t tensors, merged;    /* all; of them changed by an adapter */
    int64_t files;              /* of weights */
    double change;              /* |W' - W| / |W| over the merged tensors */
    double output;              /* of the proof: |with - without| / |without| of the output (logits
                                   of a fixed text; of the tower, rows of a fixed picture) */
    double rounding;            /* the same of the merged model against base and adapter apart */
} f2b_merge_result;

/**
 * Write config.json, tokenizer and image settings as the base has them, and all weights by their
 * names on disk, in the base's types (f32 for a base without weights, and for what was trained in
 * full). A base of another layout, or with its tower in another folder, gets the config.json of the
 * Hugging Face layout; its vocabulary stays as it is, without a row for `<image>`. Summary tokens,
 * which no such model has, go beside in summary_tokens.safetensors. Layers that LLaVA never runs
 * are copied, or drawn where the base has no weights, so that transformers finds every tensor. Its
 * f2b_merged.json says what it is of. Before it is put in place every tensor is read back and
 * compared, and the folder is opened as a model: it must compute something else than the base, and
 * be nearer to base and adapter than those two are to each other.
 * errors  F2B_ERR_INVALID: `to` holds anything but an earlier merged export, or is the base itself;
 *         no adapter of that stage, or one that changes nothing or is lost in the base's type;
 *         those of the parts.
 */
f2b_status f2b_export_merged(const f2b_merge_options *options, f2b_merge_result *result) F2B_MUST_USE;

#endif
