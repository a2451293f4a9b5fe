/*
 * A LLaVA with what the method adds to it: the frozen or trained base, adapters a stage, learnable
 * summary tokens, temperature. Owns every tensor; `parameters` lists what is trained.
 */
#ifndef F2B_NN_MODEL_H
#define F2B_NN_MODEL_H

#include "nn/clip.h"
#include "nn/llama.h"
#include "nn/method.h"
#include "nn/model_config.h"
#include "nn/weights.h"

typedef struct f2b_model_options {
    f2b_model_config config;
    f2b_method method;
    const f2b_weight_file *file;        /* NULL: random start; needed only while building */
    f2b_device device;
    f2b_dtype storage;                  /* of frozen tensors: f32, bf16, f16 */
    f2b_dtype compute;                  /* of activations: f32, bf16 (f64 in tests) */
    bool fp8;                           /* frozen matrices as fp8 where it takes them (nn/weights.h) */
    uint64_t seed;                      /* of everything drawn */
    bool train_projector, train_vision;
    bool frozen;                        /* for use, not training: adapters load, nothing else trains */
    const int32_t *init_ids;            /* tokens whose embeddings summary tokens may start as, */
    int64_t n_init_ids;                 /* or none: N(0, 0.02^2) */
} f2b_model_options;

typedef struct f2b_model {
    f2b_model_config config;
    f2b_method method;
    f2b_device device;
    f2b_dtype compute;
    f2b_parameters parameters;
    f2b_weight_builder weights;
    f2b_llama *llama;
    f2b_clip *clip;                     /* NULL: a plain Llama */
    f2b_projector projector;
    bool train_projector, train_vision;
    f2b_tensor *summary_tokens;         /* [K, d] (single: [K, vision width]); NULL in base */
    f2b_tensor *log_temperature;        /* [1]; NULL unless learned */
} f2b_model;

/** Build; NULL on error (with the tensor that is missing or does not fit). */
f2b_model *f2b_model_new(const f2b_model_options *options);
void f2b_model_free(f2b_model *model);

/** Rows that an image takes in pass 2: K, or all its tokens in base. */
int64_t f2b_model_image_rows(const f2b_model *model);

/** alpha / r; 0 without LoRA. */
double f2b_model_lora_scale(const f2b_model *model);

/** Does the gradient reach the vision tower's or the projector's output? */
bool f2b_model_trains_images(const f2b_model *model);

#endif
