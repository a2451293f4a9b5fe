/* config.json of a Hugging Face LLaVA, for folders whose own describes another layout. See
 * model_folder.h for the contract. */
#include <stdlib.h>

#include "autograd/core/alloc.h"
#include "checkpoints/json_internal.h"
#include "checkpoints/model_folder.h"

static json_t *text_object(const f2b_text_config *t)
{
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:b, s:i, s:i}",
                     "model_type", "llama", "hidden_size", (json_int_t)t->hidden,
                     "intermediate_size", (json_int_t)t->intermediate, "num_hidden_layers",
                     (json_int_t)t->layers, "num_attention_heads", (json_int_t)t->heads,
                     "num_key_value_heads", (json_int_t)t->kv_heads, "head_dim",
                     (json_int_t)t->head_dim, "vocab_size", (json_int_t)t->vocab,
                     "max_position_embeddings", (json_int_t)t->max_positions, "rms_norm_eps",
                     t->rms_eps, "rope_theta", t->rope_theta, "initializer_range",
                     t->initializer_range, "tie_word_embeddings", t->tied_head, "bos_token_id",
                     t->bos_id, "eos_token_id", t->eos_id);
}

static json_t *vision_object(const f2b_vision_config *v)
{
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:s}", "model_type",
                     "clip_vision_model", "hidden_size", (json_int_t)v->hidden,
                     "intermediate_size", (json_int_t)v->intermediate, "num_hidden_layers",
                     (json_int_t)v->layers, "num_attention_heads", (json_int_t)v->heads,
                     "patch_size", (json_int_t)v->patch, "image_size", (json_int_t)v->image_size,
                     "layer_norm_eps", v->layer_norm_eps, "hidden_act",
                     v->activation == F2B_ACTIVATION_GELU ? "gelu" : "quick_gelu");
}

char *f2b_model_config_write(const f2b_model_config *c, f2b_dtype dtype)
{
    const char *type = dtype == F2B_F16 ? "float16" : dtype == F2B_BF16 ? "bfloat16" : "float32";
    json_t *root = json_pack(
        "{s:[s], s:s, s:i, s:i, s:I, s:s, s:I, s:s, s:b, s:s, s:o, s:o}", "architectures",
        "LlavaForConditionalGeneration", "model_type", "llava", "ignore_index", -100,
        "image_token_index", (int)c->image_token_id, "image_seq_length",
        (json_int_t)f2b_image_tokens(c), "projector_hidden_act", "gelu", "vision_feature_layer",
        (json_int_t)(c->feature_layer - c->vision.layers - 1), "vision_feature_select_strategy",
        c->keep_cls ? "full" : "default", "tie_word_embeddings", c->text.tied_head, "torch_dtype",
        type, "text_config", text_object(&c->text), "vision_config", vision_object(&c->vision));
    char *text = root ? f2bi_json_text(root, JSON_INDENT(2)) : NULL;
    if (!root) (void)f2b_fail(F2B_ERR_MEMORY, "no memory for config.json");
    json_decref(root);
    return text;
}
