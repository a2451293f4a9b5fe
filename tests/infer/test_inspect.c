/* Reports on everything that can be inspected; damage is named, hostile files are refused. */
#include "tests/checkpoints/fixtures.h"

#include <math.h>

#include "data/toy/toy.h"
#include "infer/export_model.h"
#include "infer/inspect/inspect.h"
#include "tests/infer/make_run.h"

static char base[96];

static int make_world(void **state)
{
    if (make_temp_folder(state) != 0) return -1;
    f2b_toy_options o = f2b_toy_defaults();
    o.train = o.val = 2;
    o.image_size = 16;
    snprintf(base, sizeof base, "%s/model", temp_folder);
    const f2b_method method = {
        .tokens = 4, .prompt = "Summarize the image in a few words.", .temperature = 0.02,
        .lora = { .r = 3, .alpha = 6, .targets = 0x7f },
    };
    f2b_export_proof proof;
    if (f2b_toy_write(temp_folder, &o, NULL, NULL) != F2B_OK ||
        make_weights(base, in_temp("model/model.safetensors")) != F2B_OK ||
        make_run(base, in_temp("run"), &method, 4, false, false) != F2B_OK)
        return -1;
    return export_run(in_temp("run"), in_temp("export"), &proof) ==
                   F2B_OK ? 0 : -1;
}

static json_t *report_with(const char *path, f2b_inspect_options o)
{
    json_t *r = f2b_inspect(path, &o);
    if (r == NULL) fail_msg("%s", f2b_last_error());
    return r;
}

static json_t *report_on(const char *name)
{
    return report_with(in_temp(name), (f2b_inspect_options){ 0 });
}

static const json_t *fact(const json_t *r, const char *key)
{
    return json_object_get(json_object_get(r, "facts"), key);
}

static json_int_t total(const json_t *r, const char *key)
{
    return json_integer_value(json_object_get(json_object_get(r, "totals"), key));
}

static const json_t *tensor(const json_t *r, const char *name)
{
    size_t i;
    json_t *t;
    json_array_foreach(json_object_get(r, "tensors"), i, t)
        if (strcmp(json_string_value(json_object_get(t, "name")), name) == 0) return t;
    fail_msg("no tensor %s", name);
    return NULL;
}

static void assert_kind(const json_t *r, const char *kind)
{
    assert_string_equal(json_string_value(json_object_get(r, "kind")), kind);
}

/* Run, checkpoint and export tell the same of the same tensors. */
static void test_trained(void **state)
{
    (void)state;
    static const char *const names[] = { "run", "run/checkpoints/step-00000007", "export" };
    static const char *const kinds[] = { "run", "checkpoint", "export" };
    json_int_t elements = 0;
    for (int i = 0; i < 3; i++) {
        json_t *r = report_with(in_temp(names[i]), (f2b_inspect_options){ .norms = true });
        assert_kind(r, kinds[i]);
        assert_int_equal(json_integer_value(fact(r, "step")), 7);
        assert_int_equal(json_integer_value(json_object_get(fact(r, "method"), "tokens")), 4);
        assert_memory_equal(json_string_value(fact(r, "base_model")), "xxh3:", 5);
        assert_int_equal(f2b_inspect_failures(r), 0);
        if (i == 0) elements = total(r, "elements");
        assert_true(total(r, "elements") == elements && total(r, "bytes") == 4 * elements);
        assert_int_equal(total(r, "tensors"), json_array_size(json_object_get(r, "tensors")));
        const json_t *t = tensor(r, "summary_tokens");
        assert_int_equal(json_integer_value(json_array_get(json_object_get(t, "shape"), 0)), 4);
        assert_true(json_real_value(json_object_get(t, "norm")) > 0.1);
        json_decref(r);
    }
}

static void test_model_and_peft(void **state)
{
    (void)state;
    json_t *r = report_with(base, (f2b_inspect_options){ .verify = true });
    assert_kind(r, "model");
    assert_int_equal(f2b_inspect_failures(r), 0);
    assert_true(json_integer_value(json_object_get(fact(r, "language_model"), "layers")) > 0);
    assert_int_equal(json_integer_value(json_object_get(fact(r, "vision_tower"), "image_size")),
                     16);
    assert_true(json_integer_value(fact(r, "pieces")) > 259);
    assert_string_equal(json_string_value(json_object_get(
        tensor(r, "language_model.model.norm.weight"), "file")), "model.safetensors");
    json_decref(r);
    r = report_on("export/generation");
    assert_kind(r, "peft");
    assert_int_equal(json_integer_value(json_object_get(fact(r, "adapter_config.json"), "r")), 3);
    assert_true(total(r, "tensors") > 0 && total(r, "tensors") % 2 == 0);
    json_decref(r);
}

static void test_norms_and_limit(void **state)
{
    (void)state;
    const float values[] = { 3, -4, 0, 12 };
    const uint16_t half[] = { 0xc000 }; /* -2 */
    const double wide[] = { 1e200, 1e200 };
    const int32_t whole[] = { 1 };
    const float bad[] = { 1, NAN };
    const f2b_named_array arrays[] = {
        { "a", F2B_F32, 2, { 2, 2 }, values }, { "b", F2B_F16, 0, { 0 }, half },
        { "c", F2B_F64, 1, { 2 }, wide },      { "d", F2B_I32, 1, { 1 }, whole },
        { "e", F2B_F32, 1, { 2 }, bad },       { "f", F2B_F32, 2, { 0, 5 }, values },
    };
    const char *path = in_temp("x.safetensors");
    assert_ok(f2b_safetensors_write(path, arrays, 6, NULL, 0));
    json_t *r = report_with(path, (f2b_inspect_options){ .norms = true });
    assert_kind(r, "safetensors");
    assert_true(json_real_value(json_object_get(tensor(r, "a"), "norm")) == 13);
    assert_true(json_real_value(json_object_get(tensor(r, "b"), "norm")) == 2);
    assert_string_equal(json_string_value(json_object_get(tensor(r, "c"), "norm")), "inf");
    assert_true(json_is_null(json_object_get(tensor(r, "d"), "norm")));
    assert_string_equal(json_string_value(json_object_get(tensor(r, "e"), "norm")), "nan");
    assert_true(json_real_value(json_object_get(tensor(r, "f"), "norm")) == 0);
    assert_int_equal(total(r, "elements"), 4 + 1 + 2 + 1 + 2);
    json_decref(r);

    r = report_with(path, (f2b_inspect_options){ .limit = 2 });
    assert_int_equal(json_array_size(json_object_get(r, "tensors")), 2);
    assert_int_equal(total(r, "tensors"), 6);
    assert_null(json_object_get(json_array_get(json_object_get(r, "tensors"), 0), "norm"));
    json_decref(r);
}

/* Magic, one key that is no UTF-8, a list of 20, one f32 tensor of 3. */
static void test_gguf(void **state)
{
    (void)state;
    uint8_t bytes[512] = "GGUF\3\0\0\0\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0"
                         "\2\0\0\0\0\0\0\0k\xff\10\0\0\0\2\0\0\0\0\0\0\0v\xfe"
                         "\4\0\0\0\0\0\0\0many\11\0\0\0\0\0\0\0\24\0\0\0\0\0\0\0";
    size_t n = 24 + 8 + 2 + 4 + 8 + 2 + 8 + 4 + 4 + 4 + 8;
    for (int i = 0; i < 20; i++) bytes[n++] = (uint8_t)i;
    memcpy(bytes + n, "\1\0\0\0\0\0\0\0t\1\0\0\0\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 33);
    n = (n + 33 + 31) / 32 * 32;
    memcpy(bytes + n, (float[]){ 2, 3, 6 }, 12);
    write_bytes(in_temp("x.gguf"), bytes, n + 12);
    json_t *r = report_with(in_temp("x.gguf"), (f2b_inspect_options){ .norms = true });
    assert_kind(r, "gguf");
    const json_t *metadata = fact(r, "metadata");
    assert_string_equal(json_string_value(json_object_get(metadata, "k\xef\xbf\xbd")),
                        "v\xef\xbf\xbd");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(metadata, "many"),
                                                        "count")), 20);
    assert_true(json_real_value(json_object_get(tensor(r, "t"), "norm")) == 7);
    json_decref(r);
}

static void flip(const char *path, int64_t at)
{
    int64_t n;
    char *bytes = read_bytes(path, &n);
    bytes[at < 0 ? n + at : at] ^= 1;
    write_bytes(path, bytes, (size_t)n);
    f2b_free(bytes);
}

static void assert_damage(json_t *r, const char *what, const char *why)
{
    size_t i;
    json_t *check;
    json_array_foreach(json_object_get(r, "checks"), i, check)
        if (json_is_false(json_object_get(check, "ok")) &&
            strstr(json_string_value(json_object_get(check, "what")), what) != NULL &&
            strstr(json_string_value(json_object_get(check, "why")), why) != NULL) {
            json_decref(r);
            return;
        }
    fail_msg("no check of %s failed with \"%s\"", what, why);
}

static void test_damage(void **state)
{
    (void)state;
    flip(in_temp("export/generation/adapter_model.safetensors"), -1);
    assert_null(f2b_inspect(in_temp("export"), &(f2b_inspect_options){ 0 }));
    assert_failed(F2B_ERR_FORMAT, "export", "fingerprint");

    /* An older checkpoint that is damaged shows under verify alone; the newest always. */
    const char *older = in_temp("run/checkpoints/step-00000003");
    char command[512];
    snprintf(command, sizeof command, "cp -r %s/run/checkpoints/step-00000007 %s", temp_folder,
             older);
    assert_int_equal(system(command), 0);
    flip(in_temp("run/checkpoints/step-00000003/state.h5"), -1);
    json_t *r = report_on("run");
    assert_int_equal(f2b_inspect_failures(r), 0);
    assert_int_equal(json_array_size(fact(r, "checkpoints")), 2);
    json_decref(r);
    r = report_with(in_temp("run"), (f2b_inspect_options){ .verify = true });
    assert_int_equal(f2b_inspect_failures(r), 1);
    assert_damage(r, "step-00000003", "XXH3-128");
    flip(in_temp("run/checkpoints/step-00000007/state.h5"), 4000);
    assert_damage(report_on("run"), "newest", "XXH3-128");
    assert_damage(report_on("run"), "run", "sound");
    assert_null(f2b_inspect(in_temp("run/checkpoints/step-00000007"), &(f2b_inspect_options){ 0 }));
    assert_failed(F2B_ERR_FORMAT, "state.h5", "XXH3-128");

    flip(in_temp("model/model.safetensors"), 0);
    assert_damage(report_on("model"), "model.safetensors", "model.safetensors");
}

static void test_strangers(void **state)
{
    (void)state;
    const f2b_inspect_options o = { 0 };
    assert_null(f2b_inspect(in_temp("none"), &o));
    assert_failed(F2B_ERR_NOT_FOUND, "none", "");
    assert_null(f2b_inspect(in_temp("images"), &o));
    assert_failed(F2B_ERR_FORMAT, "images", "not known");
    write_text(in_temp("text"), "hello there");
    assert_null(f2b_inspect(in_temp("text"), &o));
    assert_failed(F2B_ERR_FORMAT, "text", "not known");
    write_text(in_temp("empty"), "");
    assert_null(f2b_inspect(in_temp("empty"), &o));
    assert_failed(F2B_ERR_FORMAT, "empty", "not known");
    write_text(in_temp("x.h5"), "\x89HDF\r\n\x1a\n and more");
    assert_null(f2b_inspect(in_temp("x.h5"), &o));
    assert_failed(F2B_ERR_FORMAT, "x.h5", "a checkpoint or a store");
    assert_null(f2b_inspect("/dev/null", &o));
    assert_failed(F2B_ERR_FORMAT, "/dev/null", "not known");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trained), cmocka_unit_test(test_model_and_peft),
        cmocka_unit_test(test_norms_and_limit), cmocka_unit_test(test_gguf),
        cmocka_unit_test(test_strangers), cmocka_unit_test(test_damage),
    };
    return cmocka_run_group_tests_name("inspect", tests, make_world, remove_temp_folder);
}
