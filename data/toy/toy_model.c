/*
 * The model folder: config.json of a small LLaVA in Hugging Face's layout, without weights, and the
 * small files that transformers expects beside it. The start is drawn from N(0, 0.08^2): Llama's 0.02
 * is made for d 4096, and leaves a model of d 128 on a plateau for hundreds of steps.
 */
#include <stdio.h>

#include "autograd/core/alloc.h"
#include "data/toy/toy_internal.h"

static const char config[] =
    "{\n"
    "  \"architectures\": [\"LlavaForConditionalGeneration\"],\n"
    "  \"model_type\": \"llava\",\n"
    "  \"ignore_index\": -100,\n"
    "  \"image_token_index\": %d,\n"
    "  \"pad_token_id\": %d,\n"
    "  \"image_seq_length\": %d,\n"
    "  \"projector_hidden_act\": \"gelu\",\n"
    "  \"vision_feature_layer\": -2,\n"
    "  \"vision_feature_select_strategy\": \"default\",\n"
    "  \"tie_word_embeddings\": false,\n"
    "  \"vocab_size\": %d,\n"
    "  \"torch_dtype\": \"float32\",\n"
    "  \"text_config\": {\n"
    "    \"model_type\": \"llama\",\n"
    "    \"vocab_size\": %d,\n"
    "    \"hidden_size\": 128,\n"
    "    \"intermediate_size\": 352,\n"
    "    \"num_hidden_layers\": 4,\n"
    "    \"num_attention_heads\": 4,\n"
    "    \"num_key_value_heads\": 4,\n"
    "    \"initializer_range\": 0.08,\n"
    "    \"max_position_embeddings\": 1024,\n"
    "    \"rms_norm_eps\": 1e-05,\n"
    "    \"rope_theta\": 10000.0\n"
    "  },\n"
    "  \"vision_config\": {\n"
    "    \"model_type\": \"clip_vision_model\",\n"
    "    \"hidden_size\": 96,\n"
    "    \"image_size\": %d,\n"
    "    \"intermediate_size\": 256,\n"
    "    \"num_attention_heads\": 4,\n"
    "    \"num_hidden_layers\": 4,\n"
    "    \"patch_size\": %d,\n"
    "    \"projection_dim\": 96\n"
    "  }\n"
    "}\n";

static const char preprocessor[] =
    "{\n"
    "  \"image_processor_type\": \"CLIPImageProcessor\",\n"
    "  \"do_resize\": true, \"size\": {\"shortest_edge\": %d}, \"resample\": 3,\n"
    "  \"do_center_crop\": true, \"crop_size\": {\"height\": %d, \"width\": %d},\n"
    "  \"do_rescale\": true, \"rescale_factor\": 0.00392156862745098,\n"
    "  \"do_normalize\": true,\n"
    "  \"image_mean\": [0.48145466, 0.4578275, 0.40821073],\n"
    "  \"image_std\": [0.26862954, 0.26130258, 0.27577711],\n"
    "  \"do_convert_rgb\": true\n"
    "}\n";

static const char tokenizer[] =
    "{\n"
    "  \"tokenizer_class\": \"LlamaTokenizer\",\n"
    "  \"add_bos_token\": true, \"add_eos_token\": false,\n"
    "  \"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"unk_token\": \"<unk>\", \"pad_token\": \"<unk>\",\n"
    "  \"clean_up_tokenization_spaces\": false,\n"
    "  \"legacy\": false, \"model_max_length\": 1024, \"padding_side\": \"right\"\n"
    "}\n";

enum { PATCHES = 8, VOCABULARY_STEP = 64 };     /* patches a side; the head's rows come in 64s */

f2b_status f2bi_toy_model(const char *dir, const f2b_toy_options *o, int64_t pieces)
{
    const int image = (int)pieces, pad = image + 1;         /* as llava-hf: behind the pieces */
    const int rows = (pad + VOCABULARY_STEP) / VOCABULARY_STEP * VOCABULARY_STEP;
    char text[sizeof config + 128];
    (void)snprintf(text, sizeof text, config, image, pad, PATCHES * PATCHES, rows, rows, o->image_size,
                   o->image_size / PATCHES);
    F2B_TRY(f2bi_toy_text_file(dir, "config.json", text));
    (void)snprintf(text, sizeof text, preprocessor, o->image_size, o->image_size, o->image_size);
    F2B_TRY(f2bi_toy_text_file(dir, "preprocessor_config.json", text));
    return f2bi_toy_text_file(dir, "tokenizer_config.json", tokenizer);
}
