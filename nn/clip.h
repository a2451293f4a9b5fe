/*
 * The vision tower: a CLIP ViT up to the layer whose output LLaVA takes. Layers beyond it, and
 * post_layernorm, are never loaded or run.
 */
#ifndef F2B_NN_CLIP_H
#define F2B_NN_CLIP_H

#include "nn/adapted_linear.h"
#include "nn/llama.h"
#include "nn/model_config.h"

typedef struct f2b_clip_layer {
    f2b_tensor *norm1_w, *norm1_b, *norm2_w, *norm2_b;
    f2b_adapted_linear q, k, v, out, fc1, fc2;
} f2b_clip_layer;

typedef struct f2b_clip {
    f2b_vision_config config;
    int64_t feature_layers;     /* how many run */
    bool keep_cls;
    f2b_tensor *class_embedding, *patch_weight, *positions, *pre_norm_w, *pre_norm_b;
    f2b_clip_layer *layers;     /* [feature_layers] */
} f2b_clip;

/** Build from tensors named `vision_tower.vision_model.…`; `lora` adapts q, k, v, out, fc1 and fc2 in
 *  the stages it names (forward single). NULL on error. */
f2b_clip *f2b_clip_new(const f2b_model_config *config, f2b_weight_builder *weights, bool trained,
                       const f2b_lora_plan *lora);
void f2b_clip_free(f2b_clip *model);

/** One pass through the tower. */
typedef struct f2b_clip_pass {
    f2b_dtype act;              /* activation type */
    f2b_tensor *summary;        /* [K, hidden] appended after the patches without position, or NULL */
    int64_t checkpoint;         /* this many first layers are computed again in backward */
    f2b_layer_watch watch;
    double lora_scale;
    f2b_pass_dropout dropout;
    const uint64_t *image_keys; /* [n] names of the images within the step, for dropout */
} f2b_clip_pass;

/**
 * images  [n, 3, S, S] f32, normalised.
 * return  [n * rows, hidden] of the feature layer: all patches (with the CLS row first where the model
 *         keeps it), or the K summary rows where there are any. NULL on error.
 */
f2b_tensor *f2b_clip_forward(f2b_tape *tape, const f2b_clip *model, f2b_tensor *images,
                             const f2b_clip_pass *pass);

/** Two-layer projector: act(x W1^T + b1) W2^T + b2, named `multi_modal_projector.linear_{1,2}`. */
typedef struct f2b_projector {
    f2b_tensor *w1, *b1, *w2, *b2;
    f2b_activation activation;
} f2b_projector;

f2b_status f2b_projector_build(f2b_projector *p, const f2b_model_config *config,
                               f2b_weight_builder *weights, bool trained) F2B_MUST_USE;
f2b_tensor *f2b_projector_forward(f2b_tape *tape, const f2b_projector *p, f2b_tensor *x);

#endif
