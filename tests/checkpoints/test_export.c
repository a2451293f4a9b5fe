/*
 * Exports: what each form of the method writes, the keys PEFT expects, and everything that must be
 * refused: tensors missing, too many or misshapen, foreign settings, flipped bits.
 *
 * `test_export write FOLDER MODEL_FOLDER WORD` writes an export of the method that WORD names with
 * values made from the tensors' names, for test_export_peft.py.
 */
#include "tests/checkpoints/fixtures.h"

#include <sys/stat.h>
#include <unistd.h>

#include "checkpoints/export_internal.h"
#include "checkpoints/model_folder.h"
#include "checkpoints/safetensors.h"

enum { MAX_TENSORS = 512 };

static const f2b_model_config llava = {
    .text = { .hidden = 8,
              .intermediate = 12,
              .layers = 2,
              .heads = 4,
              .kv_heads = 2,
              .head_dim = 2,
              .vocab = 10 },
    .has_vision = true,
    .vision = { .hidden = 6,
                .intermediate = 7,
                .layers = 3,
                .heads = 2,
                .patch = 14,
                .image_size = 28 },
    .feature_layer = 2,
};

typedef struct export_fixture {
    f2b_export_info info;
    f2bi_plan plan;
    f2b_named_array tensors[MAX_TENSORS];
    float *data[MAX_TENSORS];
    int64_t n;
} export_fixture;

/* FNV-1a of the name, then a step per element: easily repeated in Python. */
static void add_tensor(export_fixture *f, const char *name, int ndim, const int64_t *shape)
{
    f2b_named_array *t = &f->tensors[f->n];
    *t = (f2b_named_array){ .name = name, .dtype = F2B_F32, .ndim = ndim };
    memcpy(t->shape, shape, (size_t)ndim * sizeof *shape);
    const int64_t count = f2b_named_array_count(t);
    float *data = f2b_alloc_host((size_t)count * 4, F2B_TAG_OTHER);
    uint32_t hash = 2166136261u;
    for (const char *p = name; *p; ++p) hash = (hash ^ (uint8_t)*p) * 16777619u;
    for (int64_t i = 0; i < count; ++i)
        data[i] = (float)((hash + (uint32_t)i * 2654435761u) >> 8) / 16777216.0f - 0.5f;
    f->data[f->n++] = data;
    t->data = data;
}

static void make_export(export_fixture *f, const char *word, const f2b_model_config *model)
{
    *f = (export_fixture){ .info = { .base_path = "models/base", .base_fingerprint = "xxh3:1",
                                     .step = 7 } };
    f->info.method = (f2b_method){
        .tokens = 4, .prompt = "Summarize.", .temperature = 0.02,
        .lora = { .r = 3, .alpha = 6, .dropout = 0.05, .targets = (1u << F2B_LORA_TARGETS) - 1 } };
    f2b_method *m = &f->info.method;
    if (strcmp(word, "shared") == 0) m->adapters = F2B_ADAPTERS_SINGLE;
    if (strcmp(word, "single") == 0) m->forward = F2B_FORWARD_SINGLE;
    if (strcmp(word, "base") == 0) m->forward = F2B_FORWARD_BASE;
    if (strcmp(word, "full") == 0) m->language_model = F2B_LANGUAGE_MODEL_FULL;
    if (strcmp(word, "few") == 0) m->lora.targets = 1u << F2B_LORA_Q | 1u << F2B_LORA_DOWN;
    assert_ok(f2bi_plan_new(&f->plan, m, model));
    for (int64_t i = 0; i < f->plan.n; ++i)
        add_tensor(f, f->plan.items[i].name, f->plan.items[i].ndim, f->plan.items[i].shape);
    if (strcmp(word, "full") == 0)
        add_tensor(f, "language_model.model.norm.weight", 1, (int64_t[]){ model->text.hidden });
    if (strcmp(word, "shared") == 0) add_tensor(f, "log_temperature", 1, (int64_t[]){ 1 });
}

static void free_export(export_fixture *f)
{
    for (int64_t i = 0; i < f->n; ++i) f2b_free(f->data[i]);
    f2bi_plan_free(&f->plan);
}

static f2b_status write_export(const export_fixture *f, const char *folder,
                               const f2b_model_config *model)
{
    return f2b_export_write(folder, &f->info, model, f->tensors, f->n);
}

static void assert_export_is(const char *folder, const export_fixture *f,
                             const f2b_model_config *model)
{
    f2b_export *file = f2b_export_open(folder, model);
    if (!file) fail_msg("%s", f2b_last_error());
    assert_int_equal(f2b_export_count(file), f->n);
    for (int64_t i = 0; i < f->n; ++i) {
        const f2b_named_array *t = f2b_export_find(file, f->tensors[i].name);
        assert_non_null(t);
        assert_memory_equal(t->data, f->tensors[i].data, (size_t)f2b_named_array_bytes(t));
    }
    const f2b_export_info *info = f2b_export_get_info(file);
    assert_int_equal(info->step, 7);
    assert_int_equal(info->method.forward, f->info.method.forward);
    assert_string_equal(info->base_fingerprint, "xxh3:1");
    char fingerprint[F2B_FINGERPRINT_BYTES];
    assert_ok(f2b_fingerprint_tensors(f->tensors, f->n, fingerprint));
    assert_string_equal(info->fingerprint, fingerprint);
    f2b_export_close(file);
}

static void assert_key(const char *file_name, const char *key, int64_t rows, int64_t columns)
{
    f2b_safetensors *file = f2b_safetensors_open(in_temp(file_name));
    if (!file) fail_msg("%s", f2b_last_error());
    const f2b_safetensor *t = f2b_safetensors_find(file, key);
    if (!t) fail_msg("%s has no %s", file_name, key);
    assert_int_equal(t->shape[0], rows);
    assert_int_equal(t->shape[1], columns);
    assert_string_equal(f2b_safetensors_metadata(file, "format"), "pt");
    f2b_safetensors_close(file);
}

static void assert_text(const char *file_name, const char *piece)
{
    char *text = read_bytes(in_temp(file_name), NULL);
    if (!strstr(text, piece)) fail_msg("%s lacks %s: %s", file_name, piece, text);
    f2b_free(text);
}

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

/* Replace the first `from` in a file; the lengths are equal where the file is binary. */
static void replace(const char *file_name, const char *from, const char *to)
{
    int64_t n;
    char *text = read_bytes(in_temp(file_name), &n);
    char *place = memmem(text, (size_t)n, from, strlen(from));
    if (!place) fail_msg("%s lacks %s", file_name, from);
    FILE *out = fopen(in_temp(file_name), "wb");
    fwrite(text, 1, (size_t)(place - text), out);
    fputs(to, out);
    fwrite(place + strlen(from), 1, (size_t)(text + n - place) - strlen(from), out);
    assert_int_equal(fclose(out), 0);
    f2b_free(text);
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

static int write_for_python(const char *folder, const char *model_folder, const char *word)
{
    f2b_model_folder *model = f2b_model_folder_open(model_folder, NULL);
    if (!model) {
        fprintf(stderr, "%s\n", f2b_last_error());
        return 1;
    }
    static export_fixture f;
    make_export(&f, word, f2b_model_folder_config(model));
    const f2b_status status = write_export(&f, folder, f2b_model_folder_config(model));
    if (status != F2B_OK) fprintf(stderr, "%s\n", f2b_last_error());
    free_export(&f);
    f2b_model_folder_close(model);
    return status == F2B_OK ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "write") == 0)
        return write_for_python(argv[2], argv[3], argv[4]);
    const struct CMUnitTest tests[] = {
        F2B_CKPT_TEST(each_form_of_the_method), F2B_CKPT_TEST(keys_and_settings_as_peft_reads_them),
        F2B_CKPT_TEST(wrong_tensors_are_not_exported), F2B_CKPT_TEST(changed_exports_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
