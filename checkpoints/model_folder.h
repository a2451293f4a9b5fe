/*
 * A base model as Hugging Face folders hold it: config.json and safetensors, in any of the layouts
 * in use (LLaVA on disk, LLaVA as transformers >= 4.52 names it, haotian-liu's LLaVA, plain Llama,
 * and a separate CLIP folder). Whatever the layout, a tensor is asked for by its one name, that of
 * LLaVA on disk:
 *
 *   language_model.model.{embed_tokens,norm}.weight, language_model.model.layers.N.*,
 *   language_model.lm_head.weight, multi_modal_projector.linear_{1,2}.*,
 *   vision_tower.vision_model.*
 *
 * Files are mapped; nothing is copied. A handle serves one thread at a time.
 */
#ifndef F2B_CHECKPOINTS_MODEL_FOLDER_H
#define F2B_CHECKPOINTS_MODEL_FOLDER_H

#include "autograd/core/dtype.h"
#include "autograd/core/status.h"
#include "checkpoints/named_array.h"
#include "nn/model_config.h"

typedef struct f2b_model_folder f2b_model_folder;

/**
 * Open the model in `path`, with the tower from the CLIP folder `vision_path` where that is not
 * NULL (its sizes then take the place of any in the model's own config.json; a plain Llama becomes
 * a LLaVA-1.5 by it, whose projector is not there yet).
 * return: a handle to close, or NULL: F2B_ERR_NOT_FOUND (no config.json), F2B_ERR_FORMAT (unusable
 * or unsupported, with the key or tensor by name; pickle weights, with how to convert them),
 * F2B_ERR_IO, F2B_ERR_MEMORY.
 */
f2b_model_folder *f2b_model_folder_open(const char *path, const char *vision_path);
void f2b_model_folder_close(f2b_model_folder *folder);

/** Let go of the memory behind a tensor's data that was found here and has been copied. */
void f2b_model_folder_release(f2b_model_folder *folder, const void *data, int64_t bytes);

/** Its path, and that of its CLIP folder or NULL. */
const char *f2b_model_folder_path(const f2b_model_folder *folder);
const char *f2b_model_folder_vision_path(const f2b_model_folder *folder);
const f2b_model_config *f2b_model_folder_config(const f2b_model_folder *folder);

/** The sizes alone, from config.json: for programs that need no weights. errors as above. */
F2B_MUST_USE f2b_status f2b_model_config_load(const char *path, const char *vision_path,
                                              f2b_model_config *config);

/** config.json of a Hugging Face LLaVA of these sizes, whose weights have the type `dtype`.
 *  f2b_free; NULL when out of memory. */
char *f2b_model_config_write(const f2b_model_config *config, f2b_dtype dtype);

/** What config.json says of images: "pad", or NULL where it is silent (haotian-liu's key). */
const char *f2b_model_folder_image_aspect_ratio(const f2b_model_folder *folder);

/** False for a folder that has a config.json alone: the caller then starts from random weights. */
bool f2b_model_folder_has_weights(const f2b_model_folder *folder);

/** Is this the name of a tensor of the projector? Has the folder any of them? */
bool f2b_model_folder_is_projector(const char *name);
bool f2b_model_folder_has_projector(const f2b_model_folder *folder);

/** Is there such a tensor? Does not count as use. */
bool f2b_model_folder_contains(const f2b_model_folder *folder, const char *name);

/**
 * The tensor of that name, into *out, whose data and name are borrowed from the folder.
 * errors: F2B_ERR_FORMAT where it is missing or has another shape than [shape 0..ndim) (text:
 * tensor, its name and file on disk, both shapes), F2B_ERR_DTYPE where it is not f32, f16 or bf16.
 */
F2B_MUST_USE f2b_status f2b_model_folder_find(f2b_model_folder *folder, const char *name, int ndim,
                                              const int64_t *shape, f2b_named_array *out);

/** All tensors, used or not, by the names that find takes, sorted: count, and name of the i-th. */
int64_t f2b_model_folder_count(const f2b_model_folder *folder);
const char *f2b_model_folder_name(const f2b_model_folder *folder, int64_t i);

/** The i-th tensor as it is, used or not, into *out (borrowed; by its canonical name). Does not count
 *  as use. errors: F2B_ERR_DTYPE where it is not f32, f16 or bf16. */
F2B_MUST_USE f2b_status f2b_model_folder_get(const f2b_model_folder *folder, int64_t i,
                                             f2b_named_array *out);

/** Whether the i-th tensor was never asked for (buffers such as rotary inv_freq are not listed). */
bool f2b_model_folder_is_unused(const f2b_model_folder *folder, int64_t i);

/**
 * What identifies the base model: "xxh3:" and 32 hex digits over the sizes in the configuration
 * and, per tensor, name, type, shape and contents: all of a tensor of up to 64 KiB, else 8 blocks
 * of 4 KiB spread evenly, first and last included, so that a 7B model takes a fraction of a second.
 * The same for every layout of the same tensors. Without weights it stands for the sizes alone.
 */
const char *f2b_model_folder_fingerprint(f2b_model_folder *folder);

#endif
