/*
 * The language model: a Llama of any size. RMSNorm, half-rotation RoPE, grouped key/value heads,
 * SwiGLU, tied or untied head. One set of weights; a pass says which stage's adapters apply.
 */
#ifndef F2B_NN_LLAMA_H
#define F2B_NN_LLAMA_H

#include "nn/adapted_linear.h"
#include "nn/dropout_places.h"
#include "nn/model_config.h"
#include "nn/pack.h"

typedef struct f2b_llama_layer {
    f2b_tensor *input_norm, *post_norm;
    f2b_adapted_linear q, k, v, o, gate, up, down;
} f2b_llama_layer;

typedef struct f2b_llama {
    f2b_text_config config;
    f2b_tensor *embed;          /* [vocab, d] */
    f2b_llama_layer *layers;
    f2b_tensor *norm;           /* [d] */
    f2b_tensor *head;           /* [vocab, d]; the embedding where tied */
    f2b_tensor *rope;           /* table of cosines and sines */
} f2b_llama;

/** What adapters and training the language model gets. */
typedef struct f2b_llama_options {
    bool trained;               /* all its tensors (trainable.language_model: full) */
    f2b_lora_plan lora;         /* no stage: none */
    uint32_t targets;           /* bits 1 << f2b_lora_target */
} f2b_llama_options;

/** Build from tensors named `language_model.…`. NULL on error. Tensors are the builder's. */
f2b_llama *f2b_llama_new(const f2b_text_config *config, f2b_weight_builder *weights,
                         const f2b_llama_options *options);
void f2b_llama_free(f2b_llama *model);

/** Dropout of LoRA inputs in one step; p 0 in evaluation. */
typedef struct f2b_pass_dropout {
    float p;
    uint64_t seed, step;
} f2b_pass_dropout;

/** Keys and values of earlier rows, for generation: a slot of `capacity` rows a sequence. */
typedef struct f2b_kv_cache {
    int64_t layers, slots, capacity;
    f2b_tensor **k, **v;        /* [layers] of [slots * capacity, kv_heads * head_dim] */
} f2b_kv_cache;

/** Told before each layer of a forward pass, from 0, of how many; NULL: nobody. */
typedef struct f2b_layer_watch {
    void (*tell)(void *user, int64_t layer, int64_t layers);
    void *user;
} f2b_layer_watch;

/** One pass through the layers. Everything it points to must stay until backward has run. */
typedef struct f2b_pass {
    f2b_stage stage;
    const f2b_row_set *rows;    /* of x */
    const f2b_row_set *wanted;  /* what the last layer computes */
    bool final_norm;
    int64_t checkpoint;         /* this many first layers are computed again in backward */
    f2b_layer_watch watch;
    double lora_scale;          /* alpha / r */
    f2b_pass_dropout dropout;
    f2b_dropout_pass place;     /* which pass it is, for dropout */
    f2b_kv_cache *cache;        /* or NULL; `cache_rows` says where this pass's rows go */
    f2b_tensor *cache_rows;     /* [rows] i32 */
} f2b_pass;

/** x [rows, d] through all layers -> [wanted rows, d], after the final norm if asked. */
f2b_tensor *f2b_llama_forward(f2b_tape *tape, const f2b_llama *model, f2b_tensor *x,
                              const f2b_pass *pass);

#endif
