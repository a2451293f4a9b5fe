/*
 * The settings that decide what a trained compressor computes: what a checkpoint and an export must
 * carry so that a model can be used without the training configuration (DESIGN section 4). How it
 * was trained (loss, learning rates, sampler) is not among them. Plain values, copied freely.
 */
#ifndef F2B_NN_METHOD_H
#define F2B_NN_METHOD_H

#include <stdbool.h>
#include <stdint.h>

enum { F2B_METHOD_PROMPT_BYTES = 1024 };        /* with the closing zero */

typedef enum f2b_summary_template { F2B_SUMMARY_VICUNA_V1, F2B_SUMMARY_PLAIN } f2b_summary_template;
typedef enum f2b_summary_attention {
    F2B_SUMMARY_CAUSAL, F2B_SUMMARY_BIDIRECTIONAL
} f2b_summary_attention;
typedef enum f2b_summary_hidden { F2B_SUMMARY_FINAL_NORM, F2B_SUMMARY_PRE_NORM } f2b_summary_hidden;
typedef enum f2b_forward { F2B_FORWARD_DOUBLE, F2B_FORWARD_SINGLE, F2B_FORWARD_BASE } f2b_forward;
typedef enum f2b_adapters { F2B_ADAPTERS_STAGE, F2B_ADAPTERS_SINGLE } f2b_adapters;
typedef enum f2b_language_model {
    F2B_LANGUAGE_MODEL_LORA, F2B_LANGUAGE_MODEL_FULL, F2B_LANGUAGE_MODEL_FROZEN
} f2b_language_model;
typedef enum f2b_aspect_ratio { F2B_ASPECT_PAD, F2B_ASPECT_CROP } f2b_aspect_ratio;

/* The linears that LoRA can adapt, by the name of their module; bit i of `targets` is entry i. In
 * the tower (forward single) the first three and out_proj, fc1, fc2 take part whatever `targets`
 * says. */
#define F2B_LORA_TARGET_LIST(X)                                                                    \
    X(F2B_LORA_Q,    "q_proj")                                                                     \
    X(F2B_LORA_K,    "k_proj")                                                                     \
    X(F2B_LORA_V,    "v_proj")                                                                     \
    X(F2B_LORA_O,    "o_proj")                                                                     \
    X(F2B_LORA_GATE, "gate_proj")                                                                  \
    X(F2B_LORA_UP,   "up_proj")                                                                    \
    X(F2B_LORA_DOWN, "down_proj")

typedef enum f2b_lora_target {
#define F2B_X(target, name) target,
    F2B_LORA_TARGET_LIST(F2B_X)
#undef F2B_X
    F2B_LORA_TARGETS
} f2b_lora_target;

typedef struct f2b_lora_settings {
    int64_t r;
    double alpha;               /* the adapter's output is scaled by alpha / r */
    double dropout;             /* of the adapter's input, in training only */
    uint32_t targets;           /* bits 1 << f2b_lora_target */
} f2b_lora_settings;

typedef struct f2b_method {
    int64_t tokens;             /* K */
    char prompt[F2B_METHOD_PROMPT_BYTES];       /* UTF-8 */
    f2b_summary_template template_;
    f2b_summary_attention attention;
    f2b_summary_hidden hidden_state;
    f2b_forward forward;
    f2b_adapters adapters;
    bool temperature_learned;   /* then the tensor `log_temperature` holds it */
    double temperature;         /* where it is not learned */
    f2b_language_model language_model;
    f2b_aspect_ratio image_aspect_ratio;
    f2b_lora_settings lora;     /* where language_model is lora */
} f2b_method;

#endif
