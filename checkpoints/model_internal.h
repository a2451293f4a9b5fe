/* The parts of model_folder.h: config.json, names of weights, and the set of files. */
#ifndef F2B_CHECKPOINTS_MODEL_INTERNAL_H
#define F2B_CHECKPOINTS_MODEL_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "autograd/core/status.h"
#include "checkpoints/safetensors.h"
#include "nn/model_config.h"

/**
 * Read config.json in `folder`; the vision sizes come from the config.json of the CLIP folder
 * `vision_folder` where that is not NULL. *aspect_ratio gets the key's text (f2b_free) or NULL.
 * Unsupported settings are refused by name, never ignored.
 */
F2B_MUST_USE f2b_status f2bi_model_config_read(const char *folder, const char *vision_folder,
                                               f2b_model_config *config, char **aspect_ratio);

/** The one name of a tensor that a file calls `stored`, in any layout (f2b_free), or NULL when out
 *  of memory. Names that no layout knows stay as they are. */
char *f2bi_weight_name(const char *stored);

/** Buffers and heads that are no part of the model: *.inv_freq, *.position_ids, CLIP's text
 * side. */
bool f2bi_weight_is_ignored(const char *stored);

typedef struct f2bi_tensor_files {
    f2b_safetensors **files;
    int64_t n;                  /* 0: the folder has no weights */
} f2bi_tensor_files;

/**
 * Open the weights of a folder: the shards of model.safetensors.index.json, or model.safetensors,
 * or all *.safetensors. Every tensor of an index must be in its shard; a folder with nothing but
 * pickle weights is refused.
 */
F2B_MUST_USE f2b_status f2bi_tensor_files_open(f2bi_tensor_files *set, const char *folder);
void f2bi_tensor_files_close(f2bi_tensor_files *set);

#endif
