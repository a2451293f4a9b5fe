/*
 * config.json of Llama, LLaVA (Hugging Face and haotian-liu) and CLIP. Files hold only what differs
 * from the defaults of transformers' LlamaConfig and LlavaConfig; those are supplied here. What
 * this program computes otherwise than a key asks is refused with the key's name.
 */
#include <math.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"
#include "checkpoints/json_internal.h"
#include "checkpoints/model_internal.h"

enum { MAX_CONFIG_BYTES = 16 << 20, MAX_SIZE = 1 << 24, MAX_LAYERS = 1 << 12, MAX_VOCAB = 1 << 26 };

static int64_t size_of(f2bi_json_reader *r, const json_t *o, const char *key, int64_t fallback)
{
    return f2bi_json_integer(r, o, key, fallback, 1, MAX_SIZE);
}

static void refuse_if_true(f2bi_json_reader *r, const json_t *o, const char *key)
{
    if (f2bi_json_bool(r, o, key, false)) f2bi_json_fail(r, "%s: true is not supported", key);
}

static void check_rope(f2bi_json_reader *r, const json_t *o, const char *key, double *theta)
{
    const json_t *rope = f2bi_json_get(o, key);
    if (!rope) return;
    if (!json_is_object(rope)) f2bi_json_fail(r, "%s must be an object or null", key);
    const char *type =
        f2bi_json_string(r, rope, "rope_type", f2bi_json_string(r, rope, "type", "none"));
    if (strcmp(type, "default") != 0)
        f2bi_json_fail(r, "%s of type %.60s is not supported; use a model without it", key, type);
    *theta = f2bi_json_number(r, rope, "rope_theta", *theta, 1, 1e12);
}

/* A token id; newer files may hold a list, of which only one entry can be honoured. */
static int32_t token_id(f2bi_json_reader *r, const json_t *o, const json_t *root, const char *key,
                        int64_t fallback)
{
    const json_t *value = f2bi_json_get(o, key);
    if (!value) value = f2bi_json_get(root, key);
    if (json_is_array(value) && json_array_size(value) == 1) value = json_array_get(value, 0);
    if (!value) return (int32_t)fallback;
    const int64_t id = json_integer_value(value);
    if (!json_is_integer(value) || id < 0 || id >= MAX_VOCAB)
        f2bi_json_fail(r, "%s must be one token id", key);
    return (int32_t)id;
}

static void read_text(f2bi_json_reader *r, const json_t *o, const json_t *root, f2b_text_config *t)
{
    const char *type = f2bi_json_string(r, o, "model_type", "llama");
    if (o != root && strcmp(type, "llama") != 0)
        f2bi_json_fail(r, "text_config.model_type %.60s is not supported; it must be llama", type);
    t->hidden = size_of(r, o, "hidden_size", 4096);
    t->intermediate = size_of(r, o, "intermediate_size", 11008);
    t->layers = f2bi_json_integer(r, o, "num_hidden_layers", 32, 1, MAX_LAYERS);
    t->heads = size_of(r, o, "num_attention_heads", 32);
    t->kv_heads = size_of(r, o, "num_key_value_heads", t->heads);
    t->head_dim = size_of(r, o, "head_dim", t->hidden / t->heads > 0 ? t->hidden / t->heads : 1);
    t->vocab = f2bi_json_integer(r, o, "vocab_size",
                                 f2bi_json_integer(r, root, "vocab_size", 32000, 1, MAX_VOCAB), 1,
                                 MAX_VOCAB);
    t->max_positions = size_of(r, o, "max_position_embeddings", 2048);
    t->rms_eps = f2bi_json_number(r, o, "rms_norm_eps", 1e-6, 0, 1);
    t->initializer_range = f2bi_json_number(r, o, "initializer_range", 0.02, 0, 10);
    t->rope_theta = f2bi_json_number(r, o, "rope_theta", 10000, 1, 1e12);
    check_rope(r, o, "rope_scaling", &t->rope_theta);
    check_rope(r, o, "rope_parameters", &t->rope_theta);
    t->tied_head = f2bi_json_bool(r, o, "tie_word_embeddings",
                                  f2bi_json_bool(r, root, "tie_word_embeddings", false));
    t->bos_id = token_id(r, o, root, "bos_token_id", 1);
    t->eos_id = token_id(r, o, root, "eos_token_id", 2);

    const char *act = f2bi_json_string(r, o, "hidden_act", "silu");
    if (strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0)
        f2bi_json_fail(r, "hidden_act %.60s is not supported; a Llama has silu", act);
    refuse_if_true(r, o, "attention_bias");
    refuse_if_true(r, o, "mlp_bias");
    if (!f2bi_json_get(o, "head_dim") && t->hidden % t->heads != 0)
        f2bi_json_fail(r, "hidden_size %lld is not a multiple of num_attention_heads %lld",
                       (long long)t->hidden, (long long)t->heads);
    if (t->heads % t->kv_heads != 0)
        f2bi_json_fail(r, "num_attention_heads %lld is not a multiple of num_key_value_heads %lld",
                       (long long)t->heads, (long long)t->kv_heads);
    if (t->head_dim % 2 != 0)
        f2bi_json_fail(r, "a head of %lld values cannot be rotated: the size must be even",
                       (long long)t->head_dim);
}

/* `o` may be NULL: LlavaConfig's tower, which is CLIP ViT-L/14-336. */
static void read_vision(f2bi_json_reader *r, const json_t *o, f2b_vision_config *v)
{
    const char *type = f2bi_json_string(r, o, "model_type", "clip_vision_model");
    if (strcmp(type, "clip_vision_model") != 0)
        f2bi_json_fail(r, "the vision tower's model_type %.60s is not supported; it must be "
                       "clip_vision_model", type);
    v->hidden = size_of(r, o, "hidden_size", 1024);
    v->intermediate = size_of(r, o, "intermediate_size", 4096);
    v->layers = f2bi_json_integer(r, o, "num_hidden_layers", 24, 1, MAX_LAYERS);
    v->heads = size_of(r, o, "num_attention_heads", 16);
    v->patch = size_of(r, o, "patch_size", 14);
    v->image_size = f2bi_json_integer(r, o, "image_size", 336, 1, 1 << 14);
    v->layer_norm_eps = f2bi_json_number(r, o, "layer_norm_eps", 1e-5, 0, 1);
    /* No tensor's shape shows the number of heads, so a wrong default would never be noticed. */
    if (v->hidden != 1024 && !f2bi_json_get(o, "num_attention_heads"))
        f2bi_json_fail(r,
                       "the vision tower has hidden_size %lld but no num_attention_heads; add it",
                       (long long)v->hidden);
    const char *act = f2bi_json_string(r, o, "hidden_act", "quick_gelu");
    if (strcmp(act, "quick_gelu") == 0) v->activation = F2B_ACTIVATION_QUICK_GELU;
    else if (strcmp(act, "gelu") == 0) v->activation = F2B_ACTIVATION_GELU;
    else
        f2bi_json_fail(
            r, "the vision tower's hidden_act %.60s is not supported; quick_gelu and gelu are",
            act);
    if (f2bi_json_integer(r, o, "num_channels", 3, 1, MAX_SIZE) != 3)
        f2bi_json_fail(r, "the vision tower's num_channels must be 3");
    if (v->hidden % v->heads != 0)
        f2bi_json_fail(r, "the vision tower's hidden_size %lld is not a multiple of its "
                       "num_attention_heads %lld", (long long)v->hidden, (long long)v->heads);
    if (v->image_size % v->patch != 0)
        f2bi_json_fail(r, "image_size %lld is not a multiple of patch_size %lld",
                       (long long)v->image_size, (long long)v->patch);
}

/* Index into the tower's hidden states (0 is its input, -1 the last layer's output) to layers
 * run. */
static void read_feature_layer(f2bi_json_reader *r, const json_t *root, const char *key,
                               f2b_model_config *c)
{
    if (json_is_array(f2bi_json_get(root, key)))
        f2bi_json_fail(r, "%s: several layers are not supported", key);
    const int64_t states = c->vision.layers + 1;
    const int64_t index = f2bi_json_integer(r, root, key, -2, -states, states - 1);
    c->feature_layer = index < 0 ? states + index : index;
}

/* The tower's rows with its class token (`all`) or without (`patches`, where the file is silent). */
static bool read_keep_cls(f2bi_json_reader *r, const json_t *root, const char *key, const char *patches,
                          const char *all)
{
    const char *select = f2bi_json_string(r, root, key, patches);
    const bool keep = strcmp(select, all) == 0;
    if (!keep && strcmp(select, patches) != 0)
        f2bi_json_fail(r, "%s %.60s is not known; %s and %s are", key, select, patches, all);
    return keep;
}

static void read_llava_hf(f2bi_json_reader *r, const json_t *root, f2b_model_config *c)
{
    read_feature_layer(r, root, "vision_feature_layer", c);
    c->keep_cls = read_keep_cls(r, root, "vision_feature_select_strategy", "default", "full");
    const char *act = f2bi_json_string(r, root, "projector_hidden_act", "gelu");
    if (strcmp(act, "gelu") != 0)
        f2bi_json_fail(r, "projector_hidden_act %.60s is not supported; gelu is", act);
    if (!f2bi_json_bool(r, root, "multimodal_projector_bias", true))
        f2bi_json_fail(r, "multimodal_projector_bias: false is not supported");
    c->image_token_id = (int32_t)f2bi_json_integer(
        r, root, "image_token_index",
        f2bi_json_integer(r, root, "image_token_id", 32000, 0, MAX_VOCAB), 0, MAX_VOCAB);
}

static void read_llava_haotian(f2bi_json_reader *r, const json_t *root, bool vision_known,
                               f2b_model_config *c)
{
    read_feature_layer(r, root, "mm_vision_select_layer", c);
    c->keep_cls = read_keep_cls(r, root, "mm_vision_select_feature", "patch", "cls_patch");
    const char *projector = f2bi_json_string(r, root, "mm_projector_type", "linear");
    if (strcmp(projector, "mlp2x_gelu") != 0)
        f2bi_json_fail(r, "mm_projector_type %.60s is not supported; mlp2x_gelu is", projector);
    refuse_if_true(r, root, "mm_use_im_start_end");
    refuse_if_true(r, root, "mm_use_im_patch_token");
    /* Without the tower's folder its sizes are not known here; tensors will show if they fit. */
    const int64_t wide = size_of(r, root, "mm_hidden_size", c->vision.hidden);
    if (vision_known && wide != c->vision.hidden)
        f2bi_json_fail(r, "mm_hidden_size is not the vision tower's %lld; is model.vision_path the "
                       "right tower?", (long long)c->vision.hidden);
    c->image_token_id = 32000;
}

/* The tower's object in a CLIP folder's config.json. */
static const json_t *clip_vision_object(f2bi_json_reader *r, const json_t *root)
{
    const char *type = f2bi_json_string(r, root, "model_type", "");
    if (strcmp(type, "clip_vision_model") == 0) return root;
    if (strcmp(type, "clip") != 0)
        f2bi_json_fail(r, "model_type %.60s is not a CLIP model; model.vision_path must name one",
                       type);
    return f2bi_json_get(root, "vision_config");
}

static f2b_status read_clip(const char *folder, f2b_vision_config *vision)
{
    char *path = f2b_path_join(folder, "config.json");
    if (!path) return f2b_last_status();
    json_t *root = f2bi_json_load(path, MAX_CONFIG_BYTES);
    f2bi_json_reader r = { path, root ? F2B_OK : f2b_last_status() };
    if (root) read_vision(&r, clip_vision_object(&r, root), vision);
    json_decref(root);
    f2b_free(path);
    return r.status;
}

/* What LLaVA-1.5 makes of a Llama and a tower. */
static f2b_status read_llava_of_parts(const char *vision_folder, f2b_model_config *c)
{
    F2B_TRY(read_clip(vision_folder, &c->vision));
    c->has_vision = true;
    c->feature_layer = c->vision.layers - 1;
    c->projector_activation = F2B_ACTIVATION_GELU;
    c->image_token_id = 32000;
    return F2B_OK;
}

static void read_root(f2bi_json_reader *r, const json_t *root, const char *vision_folder,
                      f2b_model_config *c)
{
    const char *type = f2bi_json_string(r, root, "model_type", "none");
    c->has_vision = strcmp(type, "llava") == 0 || strcmp(type, "llava_llama") == 0;
    if (!c->has_vision && strcmp(type, "llama") != 0)
        f2bi_json_fail(r, "model_type %.60s is not supported; llava, llava_llama and llama are",
                       type);
    if (f2bi_json_get(root, "quantization_config"))
        f2bi_json_fail(
            r, "quantised weights (quantization_config) are not supported; use the original");
    const json_t *text = f2bi_json_get(root, "text_config");
    read_text(r, text ? text : root, root, &c->text);
    if (r->status != F2B_OK) return;
    if (!c->has_vision) {
        if (vision_folder) r->status = read_llava_of_parts(vision_folder, c);
        return;
    }

    if (vision_folder) {
        const f2b_status status = read_clip(vision_folder, &c->vision);
        if (status != F2B_OK) r->status = status;
    } else read_vision(r, f2bi_json_get(root, "vision_config"), &c->vision);
    if (r->status != F2B_OK) return;
    c->projector_activation = F2B_ACTIVATION_GELU;
    const bool haotian = !text && (f2bi_json_get(root, "mm_projector_type")
                                   || f2bi_json_get(root, "mm_vision_tower"));
    if (haotian) read_llava_haotian(r, root, vision_folder != NULL, c);
    else read_llava_hf(r, root, c);
    const char *aspect = f2bi_json_string(r, root, "image_aspect_ratio", "");
    if (strncmp(aspect, "anyres", 6) == 0)
        f2bi_json_fail(r, "image_aspect_ratio %.60s (LLaVA-1.6) is not supported; LLaVA-1.5 is",
                       aspect);
}

f2b_status f2bi_model_config_read(const char *folder, const char *vision_folder,
                                  f2b_model_config *config, char **aspect_ratio)
{
    *config = (f2b_model_config){ 0 };
    *aspect_ratio = NULL;
    char *path = f2b_path_join(folder, "config.json");
    if (!path) return f2b_last_status();
    json_t *root = f2bi_json_load(path, MAX_CONFIG_BYTES);
    if (!root && f2b_last_status() == F2B_ERR_NOT_FOUND)
        (void)f2b_fail(F2B_ERR_NOT_FOUND, "%s: not a model folder: there is no %s", folder, path);
    f2bi_json_reader r = { path, root ? F2B_OK : f2b_last_status() };
    if (root) read_root(&r, root, vision_folder, config);
    const char *aspect = r.status == F2B_OK
                       ? f2bi_json_string(&r, root, "image_aspect_ratio", NULL) : NULL;
    if (aspect && r.status == F2B_OK) {
        *aspect_ratio = f2b_strdup(aspect, F2B_TAG_FILES);
        if (!*aspect_ratio) r.status = f2b_last_status();
    }
    json_decref(root);
    f2b_free(path);
    return r.status;
}
