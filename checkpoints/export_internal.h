/* The parts of peft.h: which tensors the method adds, and PEFT's own file formats. */
#ifndef F2B_CHECKPOINTS_EXPORT_INTERNAL_H
#define F2B_CHECKPOINTS_EXPORT_INTERNAL_H

#include <jansson.h>

#include "checkpoints/gguf.h"
#include "checkpoints/peft.h"
#include "checkpoints/safetensors.h"

#define F2BI_EXPORT_FILE "f2b.json"
#define F2BI_SUMMARY_FILE "summary_tokens.safetensors"
#define F2BI_TRAINED_FILE "trained.safetensors"
#define F2BI_ADAPTER_CONFIG "adapter_config.json"
#define F2BI_ADAPTER_FILE "adapter_model.safetensors"
#define F2BI_SUMMARY_GGUF "summary_tokens.gguf"
/* All that an export for llama.cpp can have, f2b.json apart: what that has checksums of. */
#define F2BI_GGUF_FILES "compression.gguf", "generation.gguf", F2BI_SUMMARY_GGUF, F2BI_TRAINED_FILE

/* Adapters by the word in their tensors' names. */
typedef enum f2bi_adapter {
    F2BI_ADAPTER_COMPRESSION, F2BI_ADAPTER_GENERATION, F2BI_ADAPTER_SHARED, F2BI_ADAPTERS
} f2bi_adapter;
const char *f2bi_adapter_name(f2bi_adapter adapter);

/* A tensor that the method adds to the base model. */
typedef struct f2bi_added {
    char *name;                 /* in the registry; owned */
    char *module;               /* what the adapter adapts; NULL for summary_tokens; owned */
    bool is_b;                  /* lora_B */
    f2bi_adapter adapter;
    int ndim;
    int64_t shape[2];
} f2bi_added;

typedef struct f2bi_plan {
    f2bi_added *items;          /* sorted by name */
    int64_t n, capacity;
    bool has[F2BI_ADAPTERS];
} f2bi_plan;

/** All adapter tensors and summary_tokens of a method on a model, with their shapes; `has` alone
 *  where the model is NULL. */
F2B_MUST_USE f2b_status f2bi_plan_new(f2bi_plan *plan, const f2b_method *method,
                                      const f2b_model_config *model);
void f2bi_plan_free(f2bi_plan *plan);
const f2bi_added *f2bi_plan_find(const f2bi_plan *plan, const char *name);

/** Names for F2B_EXPORT_NAMES_OF_BASE; F2B_ERR_INVALID for names that the base cannot have. */
F2B_MUST_USE f2b_status f2bi_export_names(f2b_export_names *names, const f2b_model_config *model);

/** adapter_config.json of one adapter as an object. NULL with the error set. */
json_t *f2bi_adapter_config(const f2bi_plan *plan, f2bi_adapter adapter,
                            const f2b_export_info *info, const f2b_model_config *model,
                            f2b_export_names names);

/** Is this config what `method` says, with nothing in it that we would not apply? */
F2B_MUST_USE f2b_status f2bi_adapter_config_check(const char *path, const f2b_method *method);

/** The key of a tensor in adapter_model.safetensors; f2b_free. NULL when out of memory. */
char *f2bi_adapter_key(const f2bi_added *added, f2b_export_names names);

/** The registry's name for a key of an adapter's file, in any layout; f2b_free. NULL with
 *  F2B_ERR_FORMAT for a key that is no LoRA tensor. */
char *f2bi_adapter_key_name(const char *key, f2bi_adapter adapter, const char *path);

/* ---- Writing ---- */

typedef struct f2bi_export_writer {
    const char *folder;                 /* under its temporary name */
    const f2b_export_info *info;
    const f2b_model_config *model;
    f2b_export_names names;
    const f2b_named_array *tensors;
    int64_t n;
    f2bi_plan plan;
} f2bi_export_writer;

/** Can llama.cpp take it? F2B_ERR_INVALID says what not, and what to do instead. */
F2B_MUST_USE f2b_status f2bi_gguf_check(const f2bi_export_writer *w);

/** Write an adapter, and the summary tokens, to the file of that name in the folder. */
F2B_MUST_USE f2b_status f2bi_gguf_write_adapter(const f2bi_export_writer *w, f2bi_adapter adapter,
                                                const char *name);
F2B_MUST_USE f2b_status f2bi_gguf_write_summary(const f2bi_export_writer *w,
                                                const f2b_named_array *summary);

/* ---- Reading ---- */

enum { F2BI_EXPORT_MAX_FILES = 4 };

struct f2b_export {
    char *folder, *base_path, *base_fingerprint, *fingerprint;
    f2b_export_info info;
    const f2b_model_config *model;      /* while it is read; NULL: the plan has no tensors */
    f2bi_plan plan;
    f2b_safetensors *files[F2BI_EXPORT_MAX_FILES];
    int n_files;
    f2b_gguf *gguf[F2BI_EXPORT_MAX_FILES];
    float *reordered[F2BI_EXPORT_MAX_FILES];    /* of a GGUF file: rows of q and k put back */
    int n_gguf;
    f2b_named_array *tensors;           /* sorted by name; names owned, data in the files */
    int64_t n, capacity;
};

/** Take over a tensor that `path` has under `key`, checked against the plan where that is known.
 *  `name`, its name in the registry, is taken over, also on failure. */
F2B_MUST_USE f2b_status f2bi_export_add(f2b_export *e, const char *path, const char *key,
                                        f2b_named_array t, char *name);

/** The adapter or the summary tokens in the file of that name. */
F2B_MUST_USE f2b_status f2bi_gguf_read_adapter(f2b_export *e, f2bi_adapter adapter,
                                               const char *name);
F2B_MUST_USE f2b_status f2bi_gguf_read_summary(f2b_export *e);

#endif
