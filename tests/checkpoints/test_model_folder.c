/*
 * Model folders: the three layouts of LLaVA give the same tensors by the same names, shards and
 * types are read in place, config.json gets its defaults, and what is unsupported is refused by
 * name.
 */
#include "tests/checkpoints/fixtures.h"

#include <sys/stat.h>
#include <unistd.h>

#include "checkpoints/model_folder.h"
#include "checkpoints/safetensors.h"

static const char *const hf_config =
    "{\"model_type\":\"llava\",\"text_config\":{\"model_type\":\"llama\",\"hidden_size\":8,"
    "\"intermediate_size\":12,\"num_hidden_layers\":1,\"num_attention_heads\":4,"
    "\"num_key_value_heads\":2,\"vocab_size\":10,\"rms_norm_eps\":1e-05},"
    "\"vision_config\":{\"hidden_size\":6,\"num_attention_heads\":2,\"num_hidden_layers\":2,"
    "\"image_size\":28,\"intermediate_size\":7}}";
static const char *const haotian_config =
    "{\"model_type\":\"llava\",\"mm_projector_type\":\"mlp2x_gelu\",\"hidden_size\":8,"
    "\"intermediate_size\":12,\"num_hidden_layers\":1,\"num_attention_heads\":4,"
    "\"num_key_value_heads\":2,\"vocab_size\":10,\"rms_norm_eps\":1e-05,"
    "\"image_aspect_ratio\":\"pad\",\"mm_hidden_size\":6}";
static const char *const llama_config =
    "{\"model_type\":\"llama\",\"hidden_size\":8,\"intermediate_size\":12,"
    "\"num_hidden_layers\":1,\"num_attention_heads\":4,\"vocab_size\":10}";
static const char *const clip_config =
    "{\"model_type\":\"clip\",\"vision_config\":{\"hidden_size\":6,\"num_attention_heads\":2,"
    "\"num_hidden_layers\":2,\"image_size\":28,\"intermediate_size\":7}}";

static const float values[64] = { 1, 2, 3, 4, 5, 6, 7, 8 };

static f2b_named_array tensor(const char *name, int ndim, int64_t rows, int64_t columns)
{
    return (f2b_named_array){ .name = name, .dtype = F2B_F32, .ndim = ndim,
                              .shape = { rows, columns }, .data = values };
}

static const char *make_folder(const char *name, const char *config)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", temp_folder, name);
    assert_int_equal(mkdir(path, 0777), 0);
    char file[300];
    snprintf(file, sizeof file, "%s/config.json", path);
    write_text(file, config);
    return path;
}

/* The same five tensors under each layout's names. */
static void write_model(const char *folder, const char *const names[5], int n)
{
    const f2b_named_array tensors[5] = {
        tensor(names[0], 2, 8, 8), tensor(names[1], 2, 8, 6), tensor(names[2], 1, 8, 0),
        tensor(names[3], 2, 10, 1), tensor(names[4], 1, 6, 0),
    };
    char path[300];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    assert_ok(f2b_safetensors_write(path, tensors, n, NULL, 0));
}

static void check_model(const char *path, const char *vision_path, char fingerprint[64])
{
    f2b_model_folder *folder = f2b_model_folder_open(path, vision_path);
    if (!folder) fail_msg("%s", f2b_last_error());
    const f2b_model_config *c = f2b_model_folder_config(folder);
    assert_true(c->has_vision);
    assert_int_equal(c->text.kv_heads, 2);
    assert_int_equal(c->text.head_dim, 2);
    assert_int_equal(c->vision.layers, 2);
    assert_int_equal(c->feature_layer, 1);
    assert_int_equal(f2b_image_tokens(c), 4);

    f2b_named_array t;
    assert_ok(f2b_model_folder_find(folder, "language_model.model.layers.0.self_attn.q_proj.weight",
                                    2, (int64_t[]){ 8, 8 }, &t));
    assert_memory_equal(t.data, values, 8 * 8 * 4);
    assert_ok(f2b_model_folder_find(folder, "multi_modal_projector.linear_1.weight", 2,
                                    (int64_t[]){ 8, 6 }, &t));
    assert_ok(f2b_model_folder_find(folder, "multi_modal_projector.linear_2.bias", 1,
                                    (int64_t[]){ 8 }, &t));
    assert_ok(f2b_model_folder_find(folder, "language_model.lm_head.weight", 2,
                                    (int64_t[]){ 10, 1 }, &t));
    assert_true(f2b_model_folder_is_unused(folder, f2b_model_folder_count(folder) - 1));
    assert_ok(f2b_model_folder_find(folder, "vision_tower.vision_model.pre_layrnorm.weight", 1,
                                    (int64_t[]){ 6 }, &t));
    assert_int_equal(f2b_model_folder_count(folder), 5);
    for (int i = 0; i < 5; ++i) assert_false(f2b_model_folder_is_unused(folder, i));
    strcpy(fingerprint, f2b_model_folder_fingerprint(folder));
    f2b_model_folder_close(folder);
}

static void three_layouts_are_one_model(void **state)
{
    (void)state;
    char prints[3][64], hf[256], newer[256], haotian[256], clip[256];
    strcpy(hf, make_folder("hf", hf_config));
    write_model(hf,
                (const char *const[]){ "language_model.model.layers.0.self_attn.q_proj.weight",
                                       "multi_modal_projector.linear_1.weight",
                                       "multi_modal_projector.linear_2.bias",
                                       "language_model.lm_head.weight",
                                       "vision_tower.vision_model.pre_layrnorm.weight" },
                5);
    check_model(hf, NULL, prints[0]);

    strcpy(newer, make_folder("newer", hf_config));
    write_model(newer, (const char *const[]){
        "model.language_model.layers.0.self_attn.q_proj.weight",
        "model.multi_modal_projector.linear_1.weight", "model.multi_modal_projector.linear_2.bias",
        "lm_head.weight", "model.vision_tower.vision_model.pre_layrnorm.weight" }, 5);
    check_model(newer, NULL, prints[1]);

    strcpy(haotian, make_folder("haotian", haotian_config));
    write_model(haotian, (const char *const[]){
        "model.layers.0.self_attn.q_proj.weight", "model.mm_projector.0.weight",
        "model.mm_projector.2.bias", "lm_head.weight", "" }, 4);
    strcpy(clip, make_folder("clip", clip_config));
    const f2b_named_array side[] = {
        tensor("vision_model.pre_layrnorm.weight", 1, 6, 0),
        tensor("logit_scale", 0, 0, 0),
        tensor("text_model.embeddings.position_ids", 1, 3, 0),
        tensor("visual_projection.weight", 1, 3, 0),
    };
    assert_ok(f2b_safetensors_write(in_temp("clip/model.safetensors"), side, 4, NULL, 0));
    check_model(haotian, clip, prints[2]);
    assert_string_equal(prints[0], prints[1]);
    assert_string_equal(prints[0], prints[2]);
    assert_int_equal(strlen(prints[0]), 37);

    /* Without the CLIP folder its language model can be used; its tower is not there. */
    f2b_model_folder *alone = f2b_model_folder_open(haotian, NULL);
    if (!alone) fail_msg("%s", f2b_last_error());
    f2b_named_array array;
    const char *tower = "vision_tower.vision_model.pre_layrnorm.weight";
    assert_int_equal(f2b_model_folder_find(alone, tower, 1, (int64_t[]){ 6 }, &array),
                     F2B_ERR_FORMAT);
    assert_failed(F2B_ERR_FORMAT, "no vision tower", "model.vision_path");
    f2b_model_folder_close(alone);
    /* A language model without weights is drawn, and a tower that has some would be too. */
    char drawn[256];
    strcpy(drawn, make_folder("drawn", haotian_config));
    assert_null(f2b_model_folder_open(drawn, clip));
    assert_failed(F2B_ERR_FORMAT, "has no weights", "a random start is of both");
    /* A plain Llama with a tower is a LLaVA-1.5 without its projector. */
    char llama[256];
    strcpy(llama, make_folder("llama", llama_config));
    const f2b_named_array head = tensor("lm_head.weight", 2, 10, 1);
    assert_ok(f2b_safetensors_write(in_temp("llama/model.safetensors"), &head, 1, NULL, 0));
    f2b_model_folder *parts = f2b_model_folder_open(llama, clip);
    if (!parts) fail_msg("%s", f2b_last_error());
    const f2b_model_config *c = f2b_model_folder_config(parts);
    assert_true(c->has_vision && !c->keep_cls);
    assert_int_equal(c->feature_layer, 1);
    assert_int_equal(c->projector_activation, F2B_ACTIVATION_GELU);
    assert_false(f2b_model_folder_has_projector(parts));
    assert_int_equal(f2b_model_folder_find(parts, "multi_modal_projector.linear_1.weight", 2,
                                           (int64_t[]){ 8, 6 }, &array), F2B_ERR_FORMAT);
    assert_failed(F2B_ERR_FORMAT, "has no projector", "trainable.projector: true");
    f2b_model_folder_close(parts);
    /* A tower that does not fit the projector is seen at once. */
    write_text(in_temp("haotian/config.json"),
               "{\"model_type\":\"llava\",\"mm_projector_type\":\"mlp2x_gelu\","
               "\"mm_hidden_size\":7}");
    assert_null(f2b_model_folder_open(haotian, clip));
    assert_failed(F2B_ERR_FORMAT, "mm_hidden_size", "model.vision_path");
}

static void shards_types_and_ignored_buffers(void **state)
{
    (void)state;
    char folder[256];
    strcpy(folder,
           make_folder("sharded",
                       "{\"model_type\":\"llama\",\"hidden_size\":4,\"num_attention_heads\":2,"
                       "\"num_hidden_layers\":1,"
                       "\"intermediate_size\":4,\"vocab_size\":3,\"tie_word_embeddings\":true,"
                       "\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":500000.0}}"));
    const uint16_t half[4] = { 0x3c00, 0x4000, 0x4200, 0x4400 };
    const f2b_named_array a[2] = {
        { .name = "model.norm.weight", .dtype = F2B_F16, .ndim = 1, .shape = { 4 }, .data = half },
        { .name = "model.layers.0.self_attn.rotary_emb.inv_freq", .dtype = F2B_F32, .ndim = 1,
          .shape = { 1 }, .data = values } };
    const f2b_named_array b = { .name = "model.embed_tokens.weight", .dtype = F2B_BF16, .ndim = 2,
                                .shape = { 2, 2 }, .data = half };
    assert_ok(f2b_safetensors_write(in_temp("sharded/a.safetensors"), a, 2, NULL, 0));
    assert_ok(f2b_safetensors_write(in_temp("sharded/b.safetensors"), &b, 1, NULL, 0));
    const char *index = "{\"metadata\":{\"total_size\":12},\"weight_map\":{"
        "\"model.norm.weight\":\"a.safetensors\",\"model.embed_tokens.weight\":\"%s\"}}";
    char text[400];
    snprintf(text, sizeof text, index, "b.safetensors");
    write_text(in_temp("sharded/model.safetensors.index.json"), text);

    f2b_model_folder *model = f2b_model_folder_open(folder, NULL);
    if (!model) fail_msg("%s", f2b_last_error());
    assert_int_equal(f2b_model_folder_count(model), 2);
    assert_true(f2b_model_folder_config(model)->text.tied_head);
    assert_true(f2b_model_folder_config(model)->text.rope_theta == 500000.0);
    assert_false(f2b_model_folder_config(model)->has_vision);
    f2b_named_array t;
    assert_ok(
        f2b_model_folder_find(model, "language_model.model.norm.weight", 1, (int64_t[]){ 4 }, &t));
    assert_int_equal(t.dtype, F2B_F16);
    assert_memory_equal(t.data, half, 8);
    assert_int_equal(f2b_model_folder_find(model, "language_model.model.embed_tokens.weight", 2,
                                           (int64_t[]){ 3, 4 }, &t), F2B_ERR_FORMAT);
    assert_failed(F2B_ERR_FORMAT, "b.safetensors: tensor language_model.model.embed_tokens.weight",
                  "shape [2, 2], but config.json asks for [3, 4]");
    assert_int_equal(f2b_model_folder_find(model, "language_model.lm_head.weight", 2,
                                           (int64_t[]){ 3, 4 }, &t), F2B_ERR_FORMAT);
    assert_failed(F2B_ERR_FORMAT, "language_model.lm_head.weight is missing", folder);
    f2b_model_folder_close(model);

    snprintf(text, sizeof text, index, "../b.safetensors");
    write_text(in_temp("sharded/model.safetensors.index.json"), text);
    assert_null(f2b_model_folder_open(folder, NULL));
    assert_failed(F2B_ERR_FORMAT, "index.json", "is not the name of a safetensors file");
    snprintf(text, sizeof text, index, "a.safetensors");
    write_text(in_temp("sharded/model.safetensors.index.json"), text);
    assert_null(f2b_model_folder_open(folder, NULL));
    assert_failed(F2B_ERR_FORMAT, "model.embed_tokens.weight is not in a.safetensors",
                  "index.json");

    /* Without an index all files count; the same tensor twice is an error. */
    assert_int_equal(unlink(in_temp("sharded/model.safetensors.index.json")), 0);
    model = f2b_model_folder_open(folder, NULL);
    assert_non_null(model);
    f2b_model_folder_close(model);
    assert_ok(f2b_safetensors_write(in_temp("sharded/c.safetensors"), &b, 1, NULL, 0));
    assert_null(f2b_model_folder_open(folder, NULL));
    assert_failed(F2B_ERR_FORMAT, "b.safetensors", "c.safetensors");
}

static void no_weights_and_pickle(void **state)
{
    (void)state;
    const char *folder = make_folder("bare", hf_config);
    f2b_model_folder *model = f2b_model_folder_open(folder, NULL);
    assert_non_null(model);
    assert_false(f2b_model_folder_has_weights(model));
    f2b_named_array t;
    assert_int_equal(f2b_model_folder_find(model, "x", 0, NULL, &t), F2B_ERR_FORMAT);
    assert_failed(F2B_ERR_FORMAT, "no weights", folder);
    f2b_model_folder_close(model);
    write_text(in_temp("bare/pytorch_model-00001-of-00002.bin"), "PK");
    assert_null(f2b_model_folder_open(folder, NULL));
    assert_failed(F2B_ERR_FORMAT, "pickle", "convert them to safetensors");
    assert_null(f2b_model_folder_open(in_temp("absent"), NULL));
    assert_failed(F2B_ERR_NOT_FOUND, "config.json", "absent");
}

static void defaults_of_the_libraries(void **state)
{
    (void)state;
    f2b_model_folder *model =
        f2b_model_folder_open(make_folder("llava", "{\"model_type\":\"llava\"}"), NULL);
    if (!model) fail_msg("%s", f2b_last_error());
    const f2b_model_config *c = f2b_model_folder_config(model);
    assert_int_equal(c->text.hidden, 4096);
    assert_int_equal(c->text.intermediate, 11008);
    assert_int_equal(c->text.layers, 32);
    assert_int_equal(c->text.kv_heads, 32);
    assert_int_equal(c->text.head_dim, 128);
    assert_true(c->text.rms_eps == 1e-6 && c->text.rope_theta == 10000);
    assert_int_equal(c->text.bos_id, 1);
    assert_int_equal(c->text.eos_id, 2);
    assert_int_equal(c->vision.hidden, 1024);
    assert_int_equal(c->vision.activation, F2B_ACTIVATION_QUICK_GELU);
    assert_int_equal(c->feature_layer, 23);
    assert_int_equal(f2b_image_tokens(c), 576);
    assert_int_equal(c->image_token_id, 32000);
    assert_null(f2b_model_folder_image_aspect_ratio(model));
    f2b_model_folder_close(model);
}

static void refuses_by_name(void **state)
{
    (void)state;
    static const struct { const char *config, *message;
    } cases[] = {
        { "", "not valid JSON" },
        { "[]", "no JSON object" },
        { "{}", "model_type none" },
        { "{\"model_type\":\"mistral\"}", "model_type mistral" },
        { "{\"model_type\":\"llama\",\"model_type\":\"llama\"}", "duplicate" },
        { "{\"model_type\":\"llama\",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}",
          "rope_scaling" },
        { "{\"model_type\":\"llama\",\"rope_parameters\":{\"rope_type\":\"yarn\"}}", "yarn" },
        { "{\"model_type\":\"llama\",\"hidden_act\":\"gelu\"}", "hidden_act gelu" },
        { "{\"model_type\":\"llama\",\"attention_bias\":true}", "attention_bias" },
        { "{\"model_type\":\"llama\",\"hidden_size\":-1}", "hidden_size" },
        { "{\"model_type\":\"llama\",\"hidden_size\":\"8\"}", "hidden_size" },
        { "{\"model_type\":\"llama\",\"hidden_size\":100}", "not a multiple" },
        { "{\"model_type\":\"llama\",\"num_key_value_heads\":3}", "num_key_value_heads 3" },
        { "{\"model_type\":\"llama\",\"head_dim\":5}", "even" },
        { "{\"model_type\":\"llama\",\"rms_norm_eps\":1e400}", "JSON" },
        { "{\"model_type\":\"llama\",\"quantization_config\":{}}", "quantization_config" },
        { "{\"model_type\":\"llama\",\"eos_token_id\":[1,2]}", "eos_token_id" },
        { "{\"model_type\":\"llava\",\"vision_config\":{\"model_type\":\"siglip_vision_model\"}}",
          "siglip_vision_model" },
        { "{\"model_type\":\"llava\",\"vision_config\":{\"hidden_act\":\"relu\"}}",
          "hidden_act relu" },
        { "{\"model_type\":\"llava\",\"vision_config\":{\"hidden_size\":768}}",
          "num_attention_heads" },
        { "{\"model_type\":\"llava\",\"vision_config\":{\"patch_size\":32}}", "patch_size" },
        { "{\"model_type\":\"llava\",\"projector_hidden_act\":\"relu\"}",
          "projector_hidden_act relu" },
        { "{\"model_type\":\"llava\",\"vision_feature_layer\":[-2,-3]}", "several layers" },
        { "{\"model_type\":\"llava\",\"vision_feature_layer\":99}", "vision_feature_layer" },
        { "{\"model_type\":\"llava\",\"mm_vision_tower\":\"x\",\"mm_projector_type\":\"linear\"}",
          "mm_projector_type linear" },
        { "{\"model_type\":\"llava\",\"text_config\":{\"model_type\":\"qwen2\"}}", "qwen2" },
        { "{\"model_type\":\"llava\",\"image_aspect_ratio\":\"anyres\"}", "anyres" },
    };
    const char *folder = make_folder("bad", "");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        write_text(in_temp("bad/config.json"), cases[i].config);
        f2b_clear_error();
        f2b_model_folder *model = f2b_model_folder_open(folder, NULL);
        if (model) fail_msg("accepted: %s", cases[i].config);
        assert_failed(F2B_ERR_FORMAT, cases[i].message, "config.json");
    }
}

/* The config.json as published with llava-v1.5-7b. */
static void published_config(void **state)
{
    (void)state;
    const char *path = "../shared/data/llava-1.5-7b-metadata";
    if (access(path, R_OK) != 0) {
        print_message("skipped: %s is not there\n", path);
        skip();
    }
    int64_t n;
    char *text = read_bytes("../shared/data/llava-1.5-7b-metadata/config.json", &n);
    f2b_model_folder *model = f2b_model_folder_open(make_folder("published", text), NULL);
    f2b_free(text);
    if (!model) fail_msg("%s", f2b_last_error());
    const f2b_model_config *c = f2b_model_folder_config(model);
    assert_true(c->has_vision && c->text.rms_eps == 1e-5);
    assert_int_equal(c->text.max_positions, 4096);
    assert_int_equal(c->text.vocab, 32000);
    assert_int_equal(c->feature_layer, 23);
    assert_string_equal(f2b_model_folder_image_aspect_ratio(model), "pad");
    f2b_model_folder_close(model);
}

/* A fingerprint sees every byte of a small tensor, and the sizes. */
static void fingerprint_tells_models_apart(void **state)
{
    (void)state;
    const char *const names[5] = { "model.layers.0.a", "model.layers.0.b", "model.layers.0.c",
                                   "model.layers.0.d", "model.layers.0.e" };
    char folder[256], first[64];
    strcpy(folder, make_folder("f", "{\"model_type\":\"llama\",\"num_hidden_layers\":1}"));
    write_model(folder, names, 5);
    f2b_model_folder *model = f2b_model_folder_open(folder, NULL);
    strcpy(first, f2b_model_folder_fingerprint(model));
    f2b_model_folder_close(model);

    int64_t n;
    char *bytes = read_bytes(in_temp("f/model.safetensors"), &n);
    bytes[n - 1] ^= 1;
    write_bytes(in_temp("f/model.safetensors"), bytes, (size_t)n);
    f2b_free(bytes);
    model = f2b_model_folder_open(folder, NULL);
    assert_string_not_equal(first, f2b_model_folder_fingerprint(model));
    f2b_model_folder_close(model);
    write_model(folder, names, 5);
    write_text(in_temp("f/config.json"), "{\"model_type\":\"llama\",\"num_hidden_layers\":2}");
    model = f2b_model_folder_open(folder, NULL);
    assert_string_not_equal(first, f2b_model_folder_fingerprint(model));
    f2b_model_folder_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        F2B_CKPT_TEST(three_layouts_are_one_model), F2B_CKPT_TEST(shards_types_and_ignored_buffers),
        F2B_CKPT_TEST(no_weights_and_pickle), F2B_CKPT_TEST(defaults_of_the_libraries),
        F2B_CKPT_TEST(refuses_by_name), F2B_CKPT_TEST(published_config),
        F2B_CKPT_TEST(fingerprint_tells_models_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
