/*
 * A model ready for use: base, what was trained, tokenizer, image settings. What every program that
 * takes `--checkpoint` or `--model` opens.
 */
#ifndef F2B_INFER_TRAINED_MODEL_H
#define F2B_INFER_TRAINED_MODEL_H

#include "checkpoints/model_folder.h"
#include "data/image/image_settings.h"
#include "data/tokenizer/tokenizer.h"
#include "checkpoints/trained_tensors.h"
#include "nn/model.h"

/** For `storage`: frozen tensors as the base's files have them, mapped and never copied. */
enum { F2B_STORAGE_OF_FILE = F2B_DTYPES };

typedef struct f2b_trained_model_options {
    const char *checkpoint;     /* run, checkpoint or export; NULL: the base alone, untrained */
    const char *model;          /* base folder; NULL: where the run says it is */
    const char *vision;         /* CLIP folder of a base without tower; NULL: as the run says */
    f2b_device device;
    f2b_dtype compute;          /* activations: f32, bf16 */
    int storage;                /* of frozen tensors: f2b_dtype, or F2B_STORAGE_OF_FILE */
    bool text_only;             /* leave out tower and projector (text through the language model);
                                   only without a checkpoint */
    f2b_state_notify *notify;   /* of checkpoints passed over, or NULL */
    void *user;
} f2b_trained_model_options;

typedef struct f2b_trained_model {
    f2b_model *model;           /* frozen: no tensor wants a gradient */
    f2b_tokenizer *tokenizer;
    f2b_image_settings image;
    const char *path;           /* the checkpoint's folder, or the base's */
    int64_t step;               /* updates done; 0 for an untrained base */
    f2b_model_folder *folder;   /* the base; the model's frozen tensors point into both files */
    f2b_trained *file;     /* NULL: untrained */
} f2b_trained_model;

/**
 * Open base and checkpoint, check that they belong together (F2B_ERR_FORMAT names both
 * fingerprints and folders), and build the model with every trained tensor in its place.
 * An untrained base is a model of `method.forward: base` without adapters.
 * errors  F2B_ERR_USAGE: neither checkpoint nor model, or an export without model;
 *         F2B_ERR_FORMAT: a base without weights, tensors that do not fit (named); those of the
 *         parts.
 */
f2b_trained_model *f2b_trained_model_open(const f2b_trained_model_options *options);
void f2b_trained_model_close(f2b_trained_model *opened);

/**
 * The same tensors seen as the base model alone: all image tokens, no adapters, no summary tokens
 * (method.forward base, language_model frozen). Where the language model itself was trained that
 * is the trained one. Borrows everything from `model`; nothing to free.
 */
f2b_model f2b_model_base_view(const f2b_model *model);

#endif
