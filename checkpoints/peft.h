/*
 * The export: what was trained, in the forms other tools read (DESIGN section 4 "Export").
 *
 *   compression/, generation/      PEFT folders (adapter_config.json, adapter_model.safetensors);
 *                                  both hold the same adapter where one serves both stages
 *   summary_tokens.safetensors     `summary_tokens`, f32 [K, d]
 *   trained.safetensors            whatever else was trained, by its own names
 *   f2b.json                       the method's settings, the base model, the step
 *
 * Key names follow huggingface/peft (utils/save_and_load.py): for a LLaVA base the layout of
 * transformers before 4.52, unless another is asked for.
 *
 * The same for llama.cpp, whose loader (src/llama-adapter.cpp) knows no other file:
 *
 *   compression.gguf, generation.gguf   LoRA adapters; both hold the same where one serves both
 *   summary_tokens.gguf                 `summary_tokens`, f32 [K, d] (ne = d, K)
 *   trained.safetensors, f2b.json       as above; f2b.json has each file's size and checksum
 */
#ifndef F2B_CHECKPOINTS_PEFT_H
#define F2B_CHECKPOINTS_PEFT_H

#include <stdbool.h>

#include "autograd/core/status.h"
#include "checkpoints/fingerprint.h"
#include "checkpoints/named_array.h"
#include "nn/method.h"
#include "nn/model_config.h"

/** Whose files the adapters are in. */
typedef enum f2b_export_form { F2B_EXPORT_PEFT, F2B_EXPORT_GGUF } f2b_export_form;

/** How PEFT keys name the modules of the base. A plain Llama has the last one's names alone. */
typedef enum f2b_export_names {
    F2B_EXPORT_NAMES_OF_BASE,           /* LLAVA where there is a tower, else LLAMA */
    F2B_EXPORT_NAMES_LLAVA,             /* language_model.model.layers.N (transformers < 4.52) */
    F2B_EXPORT_NAMES_LLAVA_4_52,        /* model.language_model.layers.N (from 4.52 on) */
    F2B_EXPORT_NAMES_LLAMA              /* model.layers.N: Llama, and haotian-liu's LLaVA */
} f2b_export_names;

/** What an export says of itself. */
typedef struct f2b_export_info {
    f2b_export_form form;
    f2b_method method;
    const char *base_path;              /* the base model's folder, as the run named it */
    const char *base_fingerprint;       /* f2b_model_folder_fingerprint */
    bool base_drawn;                    /* the base has no weights: they are drawn from base_seed */
    int64_t base_seed;
    int64_t step;                       /* updates done */
    const char *fingerprint; /* f2b_fingerprint_tensors; set by reading, ignored by writing */
} f2b_export_info;

typedef struct f2b_export_options {
    f2b_export_names names;             /* of PEFT keys; GGUF has its own */
    /* Asked with the folder's temporary name when all is written and was read back, before it is
     * put in place; a failure keeps it from there. NULL: nothing is asked. */
    f2b_status (*prove)(void *user, const char *folder);
    void *user;
} f2b_export_options;

/**
 * Write the export `folder`, which must not be there, be empty, or be an earlier export. The
 * tensors are f32, by their names in the registry; each goes to the file that its name asks for.
 * What was written is read back and compared to the bit before it is put in place; until then, and
 * after any failure, what was at `folder` stays.
 * options  NULL for none.
 * errors: F2B_ERR_INVALID where the tensors are not what the method's settings ask for (an adapter
 * tensor missing, one too many, another rank or shape: the tensor is named), and for what the form
 * cannot hold (GGUF: an adapter of the vision tower, or no adapter at all); F2B_ERR_IO,
 * F2B_ERR_FORMAT (the read-back differs), F2B_ERR_MEMORY; what `prove` returned.
 */
F2B_MUST_USE f2b_status f2b_export_write(const char *folder, const f2b_export_info *info,
                                         const f2b_model_config *model,
                                         const f2b_named_array *tensors, int64_t n,
                                         const f2b_export_options *options);

typedef struct f2b_export f2b_export;

/**
 * Open an export. Stricter than PEFT: every target has its A and B once, with r as configured and
 * shapes as the model has them, no other key is there, no setting that we do not apply, and all
 * contents have the fingerprint that f2b.json names (GGUF: every file its checksum, too). Rows of q
 * and k, which GGUF has in llama.cpp's order, come in the model's own. `model` gives sizes and layers; where it is
 * NULL, because the base is not at hand, they are not checked, but the fingerprint is.
 * return: a handle to close, or NULL: F2B_ERR_NOT_FOUND (no f2b.json), F2B_ERR_FORMAT with file and
 * tensor or key, F2B_ERR_IO, F2B_ERR_MEMORY.
 */
f2b_export *f2b_export_open(const char *folder, const f2b_model_config *model);
void f2b_export_close(f2b_export *file);

/** Its settings, and its tensors by their names in the registry, sorted; borrowed. */
const f2b_export_info *f2b_export_get_info(const f2b_export *file);
int64_t f2b_export_count(const f2b_export *file);
const f2b_named_array *f2b_export_at(const f2b_export *file, int64_t i);

/** A tensor by its name, or NULL (no error is set). */
const f2b_named_array *f2b_export_find(const f2b_export *file, const char *name);

/** Does the folder look like an export (has it an f2b.json)? */
bool f2b_export_is_one(const char *folder);

#endif
