/*
 * Exports for llama.cpp: what each form of the method writes, the order of rows, what cannot be
 * written, and every way in which a file can have been changed.
 */
#include "tests/checkpoints/export_fixture.h"

#include "checkpoints/file_checksum.h"

static void each_form_for_llama_cpp(void **state)
{
    (void)state;
    static const struct { const char *word; bool compression, summary, trained; } forms[] = {
        { "stage", true, true, false }, { "shared", true, true, true },
        { "base", false, false, false }, { "few", true, true, false },
    };
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; ++i) {
        export_fixture f;
        make_export(&f, forms[i].word, &llava);
        f.info.form = F2B_EXPORT_GGUF;
        assert_ok(write_export(&f, in_temp("out"), &llava));
        assert_export_is(in_temp("out"), &f, &llava);
        assert_export_is(in_temp("out"), &f, NULL);             /* the base is not needed */
        assert_there("out/generation.gguf", true);
        assert_there("out/compression.gguf", forms[i].compression);
        assert_there("out/summary_tokens.gguf", forms[i].summary);
        assert_there("out/trained.safetensors", forms[i].trained);
        assert_there("out/generation", false);
        assert_there("out/summary_tokens.safetensors", false);
        free_export(&f);
    }
}

/* The rows of a head of 8 are 0 4 1 5 2 6 3 7 there, in both of k's groups; no others move. */
static void rows_as_llama_cpp_has_them(void **state)
{
    (void)state;
    static const int order[8] = { 0, 4, 1, 5, 2, 6, 3, 7 };
    f2b_model_config model = llava;
    model.text.hidden = 32, model.text.head_dim = 8;
    export_fixture f;
    make_export(&f, "stage", &model);
    f.info.form = F2B_EXPORT_GGUF;
    assert_ok(write_export(&f, in_temp("out"), &model));
    assert_export_is(in_temp("out"), &f, &model);
    f2b_gguf *file = f2b_gguf_open(in_temp("out/compression.gguf"));
    assert_non_null(file);
    for (int64_t i = 0; i < f.n; ++i) {
        const f2bi_added *added = f2bi_plan_find(&f.plan, f.tensors[i].name);
        if (!added->module || added->adapter != F2BI_ADAPTER_COMPRESSION) continue;
        const bool is_k = strstr(added->module, "layers.1.self_attn.k_proj") != NULL;
        const bool is_v = strstr(added->module, "layers.1.self_attn.v_proj") != NULL;
        if (!added->is_b || !(is_k || is_v)) continue;
        const f2b_gguf_tensor *t =
            f2b_gguf_tensor_find(file, is_k ? "blk.1.attn_k.weight.lora_b"
                                            : "blk.1.attn_v.weight.lora_b");
        assert_non_null(t);
        assert_int_equal(t->shape[0], 16);
        assert_int_equal(t->shape[1], 3);
        for (int row = 0; row < 16; ++row) {
            const int from = is_k ? row / 8 * 8 + order[row % 8] : row;
            assert_memory_equal((const float *)t->data + row * 3, f.data[i] + from * 3, 12);
        }
    }
    f2b_gguf_close(file);
    free_export(&f);
}

static void what_llama_cpp_cannot_take(void **state)
{
    (void)state;
    static const struct { const char *word, *message, *remedy; } all[] = {
        { "single", "vision tower", "--format peft" },
        { "full", "trainable.language_model: full", "--format merged" },
    };
    export_fixture f;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; ++i) {
        make_export(&f, all[i].word, &llava);
        f.info.form = F2B_EXPORT_GGUF;
        assert_int_equal(write_export(&f, in_temp("out"), &llava), F2B_ERR_INVALID);
        assert_failed(F2B_ERR_INVALID, all[i].message, all[i].remedy);
        assert_there("out", false);
        free_export(&f);
    }
    make_export(&f, "stage", &llava);
    f.info.form = F2B_EXPORT_GGUF, f.info.method.lora.alpha = 0;
    assert_int_equal(write_export(&f, in_temp("out"), &llava), F2B_ERR_INVALID);
    assert_failed(F2B_ERR_INVALID, "lora.alpha of 0", "");
    free_export(&f);
}

/* Every byte of every file counts, and no file may be missing or be one too many. */
static void changed_gguf_exports_are_refused(void **state)
{
    (void)state;
    static const char *const files[] = { "out/compression.gguf", "out/generation.gguf",
                                         "out/summary_tokens.gguf" };
    export_fixture f;
    make_export(&f, "stage", &llava);
    f.info.form = F2B_EXPORT_GGUF;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; ++i) {
        assert_ok(write_export(&f, in_temp("out"), &llava));
        int64_t n;
        char *bytes = read_bytes(in_temp(files[i]), &n);
        bytes[n / 2] ^= 4;
        write_bytes(in_temp(files[i]), bytes, (size_t)n);
        assert_null(f2b_export_open(in_temp("out"), NULL));
        assert_failed(F2B_ERR_FORMAT, files[i], "is damaged: its XXH3-128");
        write_bytes(in_temp(files[i]), bytes, (size_t)(n - 1));
        assert_null(f2b_export_open(in_temp("out"), &llava));
        assert_failed(F2B_ERR_FORMAT, files[i], "bytes, its manifest says");
        assert_int_equal(unlink(in_temp(files[i])), 0);
        assert_null(f2b_export_open(in_temp("out"), &llava));
        assert_failed(F2B_ERR_NOT_FOUND, files[i], "");
        f2b_free(bytes);
    }
    static const struct { const char *from, *to, *message; } changes[] = {
        { "\"adapters\": \"gguf\"", "\"adapters\": \"ggml\"", "adapters" },
        { "\"alpha\": 6", "\"alpha\": 7", "adapter.lora.alpha is not the 7" },
        { "\"generation.gguf\"", "\"generation.gguF\"", "generation.gguF" },
        { "\"size\": ", "\"Size\": ", "unknown key Size" },
    };
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; ++i) {
        assert_ok(write_export(&f, in_temp("out"), &llava));
        replace("out/f2b.json", changes[i].from, changes[i].to);
        assert_null(f2b_export_open(in_temp("out"), &llava));
        assert_failed(F2B_ERR_FORMAT, changes[i].message, "out/");
    }
    assert_ok(write_export(&f, in_temp("out"), &llava));
    write_text(in_temp("out/trained.safetensors"), "x");
    assert_null(f2b_export_open(in_temp("out"), &llava));
    assert_failed(F2B_ERR_FORMAT, "files lacks trained.safetensors", "f2b.json");
    free_export(&f);
}

/* What a file itself must be, whatever the manifest says of it: it is signed here by a new one. */
static void wrong_gguf_adapters_are_refused(void **state)
{
    (void)state;
    static const struct { const char *from, *to, *message; } changes[] = {
        { "adapter.lora.alpha", "adapter.lora.alphb", "adapter.lora.alpha" },
        { "blk.0.ffn_down.weight.lora_a", "blk.9.ffn_down.weight.lora_a", "has no place" },
        { "blk.0.ffn_down.weight.lora_a", "blk.0.ffn_down.weight.lora_x", "no name of an adapter" },
        { "blk.0.ffn_down", "blk.-.ffn_down", "no name of an adapter" },
        { "fwd2bot.head_dim", "fwd2bot.head_dIm", "fwd2bot.head_dim is 0" },
        { "adapter.type", "adapter.tYpe", "adapter.type is not" },
        { "general.type", "general.tYpe", "general.type is not" },
        { "compression", "generatioon", "fwd2bot.adapter is not" },
        { "llama", "LLAMA", "general.architecture is not" },
    };
    export_fixture f;
    make_export(&f, "stage", &llava);
    f.info.form = F2B_EXPORT_GGUF;
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; ++i) {
        f2b_file_checksum old, new;
        assert_ok(write_export(&f, in_temp("out"), &llava));
        assert_ok(f2b_file_checksum_take(in_temp("out/compression.gguf"), &old));
        replace("out/compression.gguf", changes[i].from, changes[i].to);
        assert_ok(f2b_file_checksum_take(in_temp("out/compression.gguf"), &new));
        replace("out/f2b.json", old.xxh3_128, new.xxh3_128);
        assert_null(f2b_export_open(in_temp("out"), &llava));
        assert_failed(F2B_ERR_FORMAT, changes[i].message, "out/compression.gguf");
    }
    free_export(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        F2B_CKPT_TEST(each_form_for_llama_cpp), F2B_CKPT_TEST(rows_as_llama_cpp_has_them),
        F2B_CKPT_TEST(what_llama_cpp_cannot_take), F2B_CKPT_TEST(changed_gguf_exports_are_refused),
        F2B_CKPT_TEST(wrong_gguf_adapters_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
