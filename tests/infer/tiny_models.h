/* Tiny random models without files, for the tests of infer/. */
#ifndef F2B_TESTS_INFER_TINY_MODELS_H
#define F2B_TESTS_INFER_TINY_MODELS_H

#include "tests/checkpoints/fixtures.h"

#include "nn/model.h"

/* Grouped key/value heads, a width that is no power of two, a context of 48 rows. */
static inline f2b_model_config tiny_config(void)
{
    return (f2b_model_config){
        .text = { .hidden = 24, .intermediate = 40, .layers = 3, .heads = 4, .kv_heads = 2,
                  .head_dim = 6, .vocab = 61, .max_positions = 48, .rms_eps = 1e-5,
                  .rope_theta = 10000, .initializer_range = 0.5, .bos_id = 1, .eos_id = 2 },
        .has_vision = true,
        .vision = { .hidden = 16, .intermediate = 24, .layers = 2, .heads = 2, .patch = 4,
                    .image_size = 8, .layer_norm_eps = 1e-5,
                    .activation = F2B_ACTIVATION_QUICK_GELU },
        .feature_layer = 1, .projector_activation = F2B_ACTIVATION_GELU, .image_token_id = 59,
    };
}

static inline f2b_method tiny_method(f2b_forward forward)
{
    const bool base = forward == F2B_FORWARD_BASE;
    return (f2b_method){
        .tokens = 3, .prompt = "Summarize.", .forward = forward, .temperature = 0.02,
        .language_model = base ? F2B_LANGUAGE_MODEL_FROZEN : F2B_LANGUAGE_MODEL_LORA,
        .lora = { .r = 2, .alpha = 4, .targets = (1u << F2B_LORA_TARGETS) - 1 },
    };
}

/* Adapters and summary tokens get values that matter: B starts as zero otherwise. */
static inline void stir(f2b_model *model, uint64_t seed)
{
    for (int64_t i = 0; i < model->parameters.n; i++) {
        f2b_tensor *t = model->parameters.items[i].tensor;
        if (model->parameters.items[i].group == F2B_GROUP_LORA ||
            model->parameters.items[i].group == F2B_GROUP_SUMMARY)
            assert_int_equal(f2b_init_fill(t, (f2b_init){ F2B_INIT_NORMAL, 0.4 }, seed, t->name), F2B_OK);
    }
}

static inline f2b_model *tiny_model(f2b_forward forward, f2b_dtype compute)
{
    const f2b_model_options o = {
        .config = tiny_config(), .method = tiny_method(forward), .compute = compute,
        .storage = F2B_F32, .seed = 5, .frozen = true,
    };
    f2b_model *model = f2b_model_new(&o);
    if (model == NULL) fail_msg("%s", f2b_last_error());
    stir(model, 9);
    return model;
}

/* A leaf of numbers in [-1, 1). */
static inline f2b_tensor *random_leaf(int64_t rows, int64_t cols, uint64_t seed)
{
    f2b_tensor *x = f2b_tensor_new(F2B_HOST, F2B_F32, 2, (int64_t[]){ rows, cols },
                                   F2B_TAG_ACTIVATIONS);
    assert_non_null(x);
    assert_int_equal(f2b_init_fill(x, (f2b_init){ F2B_INIT_UNIFORM, 1.0 }, seed, "leaf"), F2B_OK);
    return x;
}

#endif
