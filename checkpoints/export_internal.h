/* The parts of peft.h: which tensors the method adds, and PEFT's own file formats. */
#ifndef F2B_CHECKPOINTS_EXPORT_INTERNAL_H
#define F2B_CHECKPOINTS_EXPORT_INTERNAL_H

#include <jansson.h>

#include "checkpoints/peft.h"

#define F2BI_EXPORT_FILE "f2b.json"
#define F2BI_SUMMARY_FILE "summary_tokens.safetensors"
#define F2BI_TRAINED_FILE "trained.safetensors"
#define F2BI_ADAPTER_CONFIG "adapter_config.json"
#define F2BI_ADAPTER_FILE "adapter_model.safetensors"

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

/** adapter_config.json of one adapter as an object. NULL with the error set. */
json_t *f2bi_adapter_config(const f2bi_plan *plan, f2bi_adapter adapter,
                            const f2b_export_info *info, const f2b_model_config *model);

/** Is this config what `method` says, with nothing in it that we would not apply? */
F2B_MUST_USE f2b_status f2bi_adapter_config_check(const char *path, const f2b_method *method);

/** The key of a tensor in adapter_model.safetensors; f2b_free. NULL when out of memory. */
char *f2bi_adapter_key(const f2bi_added *added, const f2b_model_config *model);

/** The registry's name for a key of an adapter's file, in any layout; f2b_free. NULL with
 *  F2B_ERR_FORMAT for a key that is no LoRA tensor. */
char *f2bi_adapter_key_name(const char *key, f2bi_adapter adapter, const char *path);

#endif
