/*
 * The sizes and constants of a base model: a Llama, or a LLaVA (Llama + CLIP tower + projector).
 * Plain values, read from config.json by checkpoints/model_folder.h and used by the model builders.
 * Every value is checked there: all sizes are positive, heads divide, layers exist.
 */
#ifndef F2B_NN_MODEL_CONFIG_H
#define F2B_NN_MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

typedef enum f2b_activation {
    F2B_ACTIVATION_SILU,        /* x * sigmoid(x) */
    F2B_ACTIVATION_GELU,        /* exact, with erf */
    F2B_ACTIVATION_QUICK_GELU   /* x * sigmoid(1.702 x) */
} f2b_activation;

/** The language model (Llama shape; no biases; activation silu). */
typedef struct f2b_text_config {
    int64_t hidden;             /* d */
    int64_t intermediate;       /* width of the MLP */
    int64_t layers;
    int64_t heads;              /* query heads */
    int64_t kv_heads;           /* key/value heads; divides heads */
    int64_t head_dim;           /* even; hidden / heads where the file is silent */
    int64_t vocab;              /* rows of the embedding table, padding rows too */
    int64_t max_positions;
    double rms_eps;
    double rope_theta;
    double initializer_range;   /* standard deviation of a random start */
    bool tied_head;             /* lm_head is the embedding table */
    int32_t bos_id, eos_id;
} f2b_text_config;

/** The vision tower (CLIP ViT; pre-LN blocks with biases). */
typedef struct f2b_vision_config {
    int64_t hidden;
    int64_t intermediate;
    int64_t layers;
    int64_t heads;              /* divides hidden */
    int64_t patch;              /* pixels of a patch's side; divides image_size */
    int64_t image_size;         /* pixels of an image's side */
    double layer_norm_eps;
    f2b_activation activation;  /* quick_gelu or gelu */
} f2b_vision_config;

typedef struct f2b_model_config {
    f2b_text_config text;
    bool has_vision;            /* false: a plain Llama; what follows is then zero */
    f2b_vision_config vision;
    int64_t feature_layer;      /* the tower's layers that run: 23 of 24 for "-2"; 0 to layers */
    bool keep_cls;              /* select strategy "full": the CLS row is an image token too */
    f2b_activation projector_activation;        /* gelu */
    int32_t image_token_id;     /* the id that stands for an image in the HF layout (32000) */
} f2b_model_config;

/** Patches of an image: (image_size / patch)^2, 576 for LLaVA-1.5. */
static inline int64_t f2b_vision_patches(const f2b_vision_config *vision)
{
    const int64_t side = vision->image_size / vision->patch;
    return side * side;
}

/** Rows that an image takes in the language model. */
static inline int64_t f2b_image_tokens(const f2b_model_config *model)
{
    return model->has_vision ? f2b_vision_patches(&model->vision) + (model->keep_cls ? 1 : 0) : 0;
}

#endif
