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
 * transformers before 4.52, which later versions convert themselves.
 */
#ifndef F2B_CHECKPOINTS_PEFT_H
#define F2B_CHECKPOINTS_PEFT_H

#include <stdbool.h>

#include "autograd/core/status.h"
#include "checkpoints/fingerprint.h"
#include "checkpoints/named_array.h"
#include "nn/method.h"
#include "nn/model_config.h"

/** What an export says of itself. */
typedef struct f2b_export_info {
    f2b_method method;
    const char *base_path;              /* the base model's folder, as the run named it */
    const char *base_fingerprint;       /* f2b_model_folder_fingerprint */
    bool base_drawn;                    /* the base has no weights: they are drawn from base_seed */
    int64_t base_seed;
    int64_t step;                       /* updates done */
    const char *fingerprint; /* f2b_fingerprint_tensors; set by reading, ignored by writing */
} f2b_export_info;

/**
 * Write the export `folder`, which must not be there, be empty, or be an earlier export. The
 * tensors are f32, by their names in the registry; each goes to the file that its name asks for.
 * What was written is read back and compared to the bit before it is put in place.
 * errors: F2B_ERR_INVALID where the tensors are not what the method's settings ask for (an adapter
 * tensor missing, one too many, another rank or shape: the tensor is named); F2B_ERR_IO,
 * F2B_ERR_FORMAT (the read-back differs), F2B_ERR_MEMORY.
 */
F2B_MUST_USE f2b_status f2b_export_write(const char *folder, const f2b_export_info *info,
                                         const f2b_model_config *model,
                                         const f2b_named_array *tensors, int64_t n);

typedef struct f2b_export f2b_export;

/**
 * Open an export. Stricter than PEFT: every target has its A and B once, with r as configured and
 * shapes as the model has them, no other key is there, no setting that we do not apply, and all
 * contents have the fingerprint that f2b.json names. `model` gives sizes and layers; where it is
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
