/*
 * Exports: what each form of the method writes, the keys PEFT expects, and everything that must be
 * refused: tensors missing, too many or misshapen, foreign settings, flipped bits.
 *
 * `test_export write FOLDER MODEL_FOLDER WORD [gguf|llava|llava-4.52|llama]` writes an export of the
 * method that WORD names, for llama.cpp or with these names of PEFT, with values made from the
 * tensors' names: for test_export_peft.py and test_export_gguf.py.
 */
#include "tests/checkpoints/export_fixture.h"

#include <sys/stat.h>

#include "checkpoints/model_folder.h"

static void each_form_of_the_method(void **state)
{
    (void)state;
    static const struct {
        const char *word;
        int compression, generation, summary, trained;
    } forms[] = {
        { "stage", 1, 1, 1, 0 }, { "shared", 1, 1, 1, 1 }, { "single", 1, 1, 1, 0 },
        { "base", 0, 1, 0, 0 },  { "full", 0, 0, 1, 1 },   { "few", 1, 1, 1, 0 },
    };
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; ++i) {
        export_fixture f;
        make_export(&f, forms[i].word, &llava);
        assert_false(f2b_export_is_one(in_temp("out")));
        assert_ok(write_export(&f, in_temp("out"), &llava));
        assert_true(f2b_export_is_one(in_temp("out")));
        assert_export_is(in_temp("out"), &f, &llava);
        assert_int_equal(access(in_temp("out/compression"), F_OK) == 0, forms[i].compression);
        assert_int_equal(access(in_temp("out/generation"), F_OK) == 0, forms[i].generation);
        assert_int_equal(access(in_temp("out/summary_tokens.safetensors"), F_OK) == 0,
                         forms[i].summary);
        assert_int_equal(access(in_temp("out/trained.safetensors"), F_OK) == 0, forms[i].trained);
        assert_int_equal(access(in_temp("out.partial"), F_OK), -1);
        free_export(&f);
        assert_ok(f2b_folder_remove(in_temp("out")));
    }
}

static void keys_and_settings_as_peft_reads_them(void **state)
{
    (void)state;
    export_fixture f;
    make_export(&f, "stage", &llava);
    assert_ok(write_export(&f, in_temp("out"), &llava));
    assert_key("out/compression/adapter_model.safetensors",
               "base_model.model.language_model.model.layers.1.self_attn.k_proj.lora_B.weight", 4,
               3);
    assert_key("out/generation/adapter_model.safetensors",
               "base_model.model.language_model.model.layers.0.mlp.down_proj.lora_A.weight", 3, 12);
    assert_key("out/summary_tokens.safetensors", "summary_tokens", 4, 8);
    static const char *const settings[] = {
        "\"peft_type\": \"LORA\"",
        "\"task_type\": \"CAUSAL_LM\"",
        "\"r\": 3",
        "\"lora_alpha\": 6,",
        "\"base_model_name_or_path\": \"models/base\"",
        "\"modules_to_save\": null",
        "\"rank_pattern\": {}",
        "\"use_rslora\": false",
        "\"inference_mode\": true",
        "\"bias\": \"none\"",
        "\".*language_model.*\\\\.(down_proj|gate_proj|up_proj|k_proj|o_proj|q_proj|v_proj)\"",
    };
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; ++i)
        assert_text("out/compression/adapter_config.json", settings[i]);
    assert_text("out/f2b.json", "\"tokens\": 4");
    free_export(&f);

    make_export(&f, "single", &llava);          /* an earlier export may be replaced */
    assert_ok(write_export(&f, in_temp("out"), &llava));
    assert_key("out/compression/adapter_model.safetensors",
               "base_model.model.vision_tower.vision_model.encoder.layers.1.mlp.fc1.lora_B.weight",
               7, 3);
    assert_key("out/summary_tokens.safetensors", "summary_tokens", 4, 6);
    assert_text("out/compression/adapter_config.json",
                "\".*vision_tower.*\\\\.layers\\\\.(0|1)\\\\..*\\\\.(");
    free_export(&f);

    f2b_model_config llama = llava;
    llama.has_vision = false;
    make_export(&f, "few", &llama);
    assert_ok(write_export(&f, in_temp("out"), &llama));
    assert_key("out/compression/adapter_model.safetensors",
               "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight", 3, 8);
    assert_text("out/compression/adapter_config.json", "\"target_modules\": [");
    assert_export_is(in_temp("out"), &f, &llama);
    free_export(&f);
}

static void wrong_tensors_are_not_exported(void **state)
{
    (void)state;
    export_fixture f;
    make_export(&f, "stage", &llava);
    const int64_t n = f.n;
    const f2b_named_array first = f.tensors[0];
    f.n = n - 1;                                /* the last in order of names is summary_tokens */
    assert_int_equal(write_export(&f, in_temp("out"), &llava), F2B_ERR_INVALID);
    assert_failed(F2B_ERR_INVALID, "summary_tokens is missing", "");
    f.n = n;
    f.tensors[0].shape[0] += 1;
    assert_int_equal(write_export(&f, in_temp("out"), &llava), F2B_ERR_INVALID);
    assert_failed(F2B_ERR_INVALID, first.name, "the method asks for");
    f.tensors[0] = first;
    f.tensors[0].name = "language_model.model.layers.9.self_attn.q_proj.generation.lora_A";
    assert_int_equal(write_export(&f, in_temp("out"), &llava), F2B_ERR_INVALID);
    assert_failed(F2B_ERR_INVALID, "has no place", "layers.9");
    f.tensors[0] = f.tensors[1];
    assert_int_equal(write_export(&f, in_temp("out"), &llava), F2B_ERR_INVALID);
    assert_failed(F2B_ERR_INVALID, "twice", "");
    f.tensors[0] = first;
    assert_int_equal(access(in_temp("out"), F_OK), -1);
    assert_int_equal(access(in_temp("out.partial"), F_OK), -1);

    assert_int_equal(mkdir(in_temp("mine"), 0777), 0);
    write_text(in_temp("mine/notes.txt"), "x");
    assert_int_equal(write_export(&f, in_temp("mine"), &llava), F2B_ERR_INVALID);
    assert_failed(F2B_ERR_INVALID, "holds other files", "mine");
    assert_null(f2b_export_open(in_temp("mine"), &llava));
    assert_failed(F2B_ERR_NOT_FOUND, "f2b.json", "mine");
    free_export(&f);
}

static f2b_status refuse(void *user, const char *folder)
{
    assert_true(f2b_export_is_one(folder));
    return f2b_fail(F2B_ERR_INVALID, "it does nothing, says %s", (const char *)user);
}

static void what_does_not_prove_itself_is_not_put_in_place(void **state)
{
    (void)state;
    export_fixture f;
    make_export(&f, "few", &llava);
    const f2b_export_options o = { .prove = refuse, .user = "the test" };
    assert_int_equal(f2b_export_write(in_temp("out"), &f.info, &llava, f.tensors, f.n, &o),
                     F2B_ERR_INVALID);
    assert_failed(F2B_ERR_INVALID, "it does nothing, says the test", "");
    assert_there("out", false);
    assert_there("out.partial", false);
    assert_ok(write_export(&f, in_temp("out"), &llava));        /* an earlier one stays */
    assert_int_equal(f2b_export_write(in_temp("out"), &f.info, &llava, f.tensors, f.n, &o),
                     F2B_ERR_INVALID);
    assert_export_is(in_temp("out"), &f, &llava);
    free_export(&f);
}

static void keys_by_the_names_of_the_base(void **state)
{
    (void)state;
    static const struct { f2b_export_names names; const char *language, *tower, *targets; } all[] = {
        { F2B_EXPORT_NAMES_LLAVA, "language_model.model.", "vision_tower.",
          "\".*language_model.*\\\\.(" },
        { F2B_EXPORT_NAMES_LLAVA_4_52, "model.language_model.", "model.vision_tower.",
          "\".*language_model.*\\\\.(" },
        { F2B_EXPORT_NAMES_LLAMA, "model.", "model.vision_tower.vision_tower.",
          "\"model\\\\.layers\\\\.[0-9]+\\\\.(self_attn|mlp)\\\\.(" },
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; ++i) {
        export_fixture f;
        char key[256];
        const f2b_export_options o = { .names = all[i].names };
        make_export(&f, "single", &llava);
        assert_ok(f2b_export_write(in_temp("out"), &f.info, &llava, f.tensors, f.n, &o));
        snprintf(key, sizeof key, "base_model.model.%slayers.1.mlp.up_proj.lora_A.weight",
                 all[i].language);
        assert_key("out/generation/adapter_model.safetensors", key, 3, 8);
        snprintf(key, sizeof key,
                 "base_model.model.%svision_model.encoder.layers.0.self_attn.q_proj.lora_B.weight",
                 all[i].tower);
        assert_key("out/compression/adapter_model.safetensors", key, 6, 3);
        assert_text("out/generation/adapter_config.json", all[i].targets);
        assert_export_is(in_temp("out"), &f, &llava);
        free_export(&f);
    }
    f2b_model_config llama = llava;
    llama.has_vision = false;
    export_fixture f;
    const f2b_export_options o = { .names = F2B_EXPORT_NAMES_LLAVA };
    make_export(&f, "stage", &llama);
    assert_int_equal(f2b_export_write(in_temp("no"), &f.info, &llama, f.tensors, f.n, &o),
                     F2B_ERR_INVALID);
    assert_failed(F2B_ERR_INVALID, "plain Llama", "");
    free_export(&f);
}

static void changed_exports_are_refused(void **state)
{
    (void)state;
    static const char *const config = "out/generation/adapter_config.json";
    static const char *const weights = "out/generation/adapter_model.safetensors";
    static const struct { const char *file, *from, *to, *message;
    } changes[] = {
        { "generation/adapter_config.json", "\"r\": 3", "\"r\": 4", "r is 4" },
        { "generation/adapter_config.json", "\"lora_alpha\": 6", "\"lora_alpha\": 7",
          "lora_alpha" },
        { "generation/adapter_config.json", "\"use_rslora\": false", "\"use_rslora\": true",
          "use_rslora" },
        { "generation/adapter_config.json", "\"rank_pattern\": {}", "\"rank_pattern\": {\"a\":2}",
          "rank_pattern" },
        { "generation/adapter_config.json", "\"LORA\"", "\"LOHA\"", "peft_type" },
        { "generation/adapter_model.safetensors", "layers.0.mlp.down_proj.lora_A",
          "layers.7.mlp.down_proj.lora_A", "has no place" },
        { "generation/adapter_model.safetensors", "layers.0.mlp.down_proj.lora_A",
          "layers.0.mlp.down_proj.lora_X", "no key of a LoRA tensor" },
        { "generation/adapter_model.safetensors", "\"shape\":[3,12]", "\"shape\":[12,3]",
          "[12, 3]" },
        { "f2b.json", "\"tokens\": 4", "\"tokens\": 5",
          "[4, 8], the method and model ask for [5, 8]" },
        { "f2b.json", "\"version\": 1", "\"version\": 2", "version" },
        { "f2b.json", "\"step\"", "\"stop\"", "unknown key stop" },
        { "summary_tokens.safetensors", "summary_tokens", "summary_Tokens", "has no place" },
    };
    export_fixture f;
    make_export(&f, "stage", &llava);
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; ++i) {
        assert_ok(write_export(&f, in_temp("out"), &llava));
        char name[128];
        snprintf(name, sizeof name, "out/%s", changes[i].file);
        replace(name, changes[i].from, changes[i].to);
        f2b_clear_error();
        f2b_export *file = f2b_export_open(in_temp("out"), &llava);
        if (file) fail_msg("accepted: %s", changes[i].to);
        assert_failed(F2B_ERR_FORMAT, changes[i].message, "/out/");
    }

    assert_ok(write_export(&f, in_temp("out"), &llava));
    int64_t n;
    char *bytes = read_bytes(in_temp(weights), &n);
    bytes[n - 3] ^= 1;
    write_bytes(in_temp(weights), bytes, (size_t)n);
    f2b_free(bytes);
    assert_null(f2b_export_open(in_temp("out"), &llava));
    assert_failed(F2B_ERR_FORMAT, "damaged or was changed", "out");

    assert_ok(write_export(&f, in_temp("out"), &llava));
    assert_int_equal(unlink(in_temp(config)), 0);
    assert_null(f2b_export_open(in_temp("out"), &llava));
    assert_failed(F2B_ERR_NOT_FOUND, "adapter_config.json", "generation");
    f2b_model_config deeper = llava;
    deeper.text.layers = 3;
    assert_ok(write_export(&f, in_temp("out"), &llava));
    assert_null(f2b_export_open(in_temp("out"), &deeper));
    assert_failed(F2B_ERR_FORMAT, "layers.2", "is missing");
    free_export(&f);
}

static int write_for_python(const char *folder, const char *model_folder, const char *word,
                            const char *form)
{
    static const char *const names[] = { "", "llava", "llava-4.52", "llama" };
    f2b_export_options o = { 0 };
    for (int i = 1; i < 4; ++i)
        if (strcmp(form, names[i]) == 0) o.names = (f2b_export_names)i;
    f2b_model_folder *model = f2b_model_folder_open(model_folder, NULL);
    if (!model) {
        fprintf(stderr, "%s\n", f2b_last_error());
        return 1;
    }
    static export_fixture f;
    make_export(&f, word, f2b_model_folder_config(model));
    if (strcmp(form, "gguf") == 0) f.info.form = F2B_EXPORT_GGUF;
    const f2b_status status = f2b_export_write(folder, &f.info, f2b_model_folder_config(model),
                                               f.tensors, f.n, &o);
    if (status != F2B_OK) fprintf(stderr, "%s\n", f2b_last_error());
    free_export(&f);
    f2b_model_folder_close(model);
    return status == F2B_OK ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc >= 5 && strcmp(argv[1], "write") == 0)
        return write_for_python(argv[2], argv[3], argv[4], argc > 5 ? argv[5] : "");
    const struct CMUnitTest tests[] = {
        F2B_CKPT_TEST(each_form_of_the_method), F2B_CKPT_TEST(keys_and_settings_as_peft_reads_them),
        F2B_CKPT_TEST(wrong_tensors_are_not_exported), F2B_CKPT_TEST(changed_exports_are_refused),
        F2B_CKPT_TEST(what_does_not_prove_itself_is_not_put_in_place),
        F2B_CKPT_TEST(keys_by_the_names_of_the_base),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
