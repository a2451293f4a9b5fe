/* Opening runs and exports: every tensor in its place; what does not belong together is refused. */
#include "tests/checkpoints/fixtures.h"

#include <unistd.h>

#include "data/toy/toy.h"
#include "infer/export_merged.h"
#include "infer/export_model.h"
#include "infer/trained_model.h"
#include "tests/infer/make_run.h"

/* A toy world whose base has weights, once for all tests. */
static char base[96];

static int make_base(void **state)
{
    if (make_temp_folder(state) != 0) return -1;
    f2b_toy_options o = f2b_toy_defaults();
    o.train = o.val = 2;
    o.image_size = 16;
    if (f2b_toy_write(temp_folder, &o, NULL, NULL) != F2B_OK) return -1;
    snprintf(base, sizeof base, "%s/model", temp_folder);
    return make_weights(base, in_temp("model/model.safetensors")) == F2B_OK ? 0 : -1;
}

static f2b_method method_of(f2b_forward forward, f2b_language_model language_model)
{
    return (f2b_method){
        .tokens = 4, .prompt = "Summarize the image in a few words.", .forward = forward,
        .temperature_learned = true, .language_model = language_model,
        .lora = { .r = 3, .alpha = 6, .dropout = 0.05, .targets = 0x7f },
    };
}

static f2b_status merge(const char *from, const char *to, f2b_stage stage)
{
    const f2b_merge_options o = { .from = from, .to = to, .stage = stage };
    f2b_merge_result result;
    return f2b_export_merged(&o, &result);
}

static f2b_trained_model_options at(const char *checkpoint, const char *model)
{
    return (f2b_trained_model_options){ .checkpoint = checkpoint, .model = model,
                                        .storage = F2B_STORAGE_OF_FILE };
}

/* Every tensor of the run is in the opened model: added ones in the registry. */
static void assert_same_values(const f2b_trained_model *opened, const char *run)
{
    f2b_trained *file = f2b_trained_open(run, f2b_model_folder_config(opened->folder), NULL, NULL);
    if (file == NULL) fail_msg("%s", f2b_last_error());
    int64_t found = 0;
    for (int64_t i = 0; i < f2b_trained_count(file); i++) {
        f2b_named_array a;
        assert_ok(f2b_trained_at(file, i, &a));
        const f2b_parameter *p = f2b_parameters_find(&opened->model->parameters, a.name);
        if (p == NULL) continue;
        assert_false(p->tensor->requires_grad);
        assert_memory_equal(p->tensor->data, a.data, (size_t)f2b_named_array_bytes(&a));
        found++;
    }
    assert_int_equal(found, opened->model->parameters.n);
    f2b_trained_close(file);
}

static void test_run_checkpoint_and_export(void **state)
{
    (void)state;
    const f2b_method method = method_of(F2B_FORWARD_DOUBLE, F2B_LANGUAGE_MODEL_LORA);
    const char *run = in_temp("run_lora");
    assert_ok(make_run(base, run, &method, 3, true, false));
    f2b_export_proof proof;
    const char *export = in_temp("export_lora");
    assert_ok(export_run(run, export, &proof));
    assert_true(proof.compression > 1e-3 && proof.generation > 1e-3);

    char checkpoint[160];
    snprintf(checkpoint, sizeof checkpoint, "%s/checkpoints/step-00000007", run);
    const char *const paths[] = { run, checkpoint, export };
    for (int i = 0; i < 3; i++) {
        const f2b_trained_model_options o = at(paths[i], i == 2 ? base : NULL);
        f2b_trained_model *m = f2b_trained_model_open(&o);
        if (m == NULL) fail_msg("%s: %s", paths[i], f2b_last_error());
        assert_int_equal(m->step, 7);
        assert_int_equal(m->model->method.tokens, 4);
        assert_non_null(m->model->log_temperature);
        assert_same_values(m, paths[i]);
        /* the trained projector took the base's place: 1.03125 times it, exactly */
        f2b_named_array w;
        const f2b_tensor *have = m->model->projector.w1;
        assert_ok(f2b_model_folder_find(m->folder, "multi_modal_projector.linear_1.weight", 2,
                                        have->shape, &w));
        for (int64_t j = 0; j < f2b_numel(have); j++)
            assert_true(((const float *)have->data)[j] == ((const float *)w.data)[j] * 1.03125f);
        f2b_trained_model_close(m);
    }
    const f2b_trained_model_options no_base = at(export, NULL);
    assert_null(f2b_trained_model_open(&no_base));
    assert_failed(F2B_ERR_USAGE, "export_lora", "--model DIR");
}

/* A language model that was trained itself, on a base without weights; then as a folder. */
static void test_full_and_merged(void **state)
{
    (void)state;
    const f2b_method method = method_of(F2B_FORWARD_BASE, F2B_LANGUAGE_MODEL_FULL);
    const char *bare = in_temp("bare"), *run = in_temp("run_full"), *merged = in_temp("merged");
    assert_ok(f2b_make_folders(bare));
    const char *const files[] = { "config.json", "tokenizer.model", "preprocessor_config.json" };
    for (int i = 0; i < 3; i++) {
        char from[160], to[160];
        int64_t bytes;
        snprintf(from, sizeof from, "%s/%s", base, files[i]);
        snprintf(to, sizeof to, "%s/%s", bare, files[i]);
        char *text = read_bytes(from, &bytes);
        write_bytes(to, text, (size_t)bytes);
        f2b_free(text);
    }
    f2b_trained_model_options o = at(NULL, bare);
    assert_null(f2b_trained_model_open(&o));
    assert_failed(F2B_ERR_FORMAT, "no weights", "--checkpoint");
    assert_ok(make_run(bare, run, &method, 3, true, true));
    o = at(run, NULL);
    f2b_trained_model *m = f2b_trained_model_open(&o);
    if (m == NULL) fail_msg("%s", f2b_last_error());
    assert_ok(merge(run, merged, F2B_STAGE_NONE));
    o = at(NULL, merged);
    f2b_trained_model *again = f2b_trained_model_open(&o);
    if (again == NULL) fail_msg("%s", f2b_last_error());
    assert_int_equal(again->model->weights.n_frozen, m->model->weights.n_frozen);
    for (int64_t i = 0; i < again->model->weights.n_frozen; i++) {
        const f2b_tensor *a = again->model->weights.frozen[i], *b = m->model->weights.frozen[i];
        assert_int_equal(a->dtype, b->dtype);
        assert_memory_equal(a->data, b->data, f2b_tensor_bytes(a));
    }
    f2b_trained_model_close(again);
    f2b_trained_model_close(m);

    /* what stayed random in the run is not kept */
    const char *part = in_temp("run_part");
    assert_ok(make_run(bare, part, &method, 3, true, false));
    o = at(part, NULL);
    assert_null(f2b_trained_model_open(&o));
    assert_failed(F2B_ERR_FORMAT, "vision_tower", "no weights");
}

/* An export of a trained language model on a base with weights proves itself against that base. */
static void test_full_export_is_proven(void **state)
{
    (void)state;
    const f2b_method method = method_of(F2B_FORWARD_BASE, F2B_LANGUAGE_MODEL_FULL);
    const char *run = in_temp("run_full2"), *export = in_temp("export_full2");
    f2b_export_proof proof;
    assert_ok(make_run(base, run, &method, 5, false, false));
    assert_ok(export_run(run, export, &proof));
    assert_true(proof.generation > 1e-4);
    assert_ok(make_run(base, run, &method, 0, false, false));       /* nothing trained */
    assert_int_equal(export_run(run, export, &proof), F2B_ERR_INVALID);
    assert_failed(F2B_ERR_INVALID, "changes nothing", "was the checkpoint trained at all?");
    assert_true(f2b_export_is_one(export));                         /* the earlier one stays */
    assert_int_equal(access(in_temp("export_full2.partial"), F_OK), -1);
}

static void test_untrained_adapters_are_not_exported(void **state)
{
    (void)state;
    const f2b_method method = method_of(F2B_FORWARD_DOUBLE, F2B_LANGUAGE_MODEL_LORA);
    const char *run = in_temp("run_start"), *export = in_temp("export_start");
    f2b_export_proof proof;
    assert_ok(make_run(base, run, &method, 0, false, false));
    assert_int_equal(export_run(run, export, &proof), F2B_ERR_INVALID);
    assert_failed(F2B_ERR_INVALID, "every lora_B is zero", "train it first");
    assert_int_equal(access(export, F_OK), -1);
    assert_int_equal(access(in_temp("export_start.partial"), F_OK), -1);
    assert_int_equal(merge(run, export, F2B_STAGE_GENERATION), F2B_ERR_INVALID);
}

static void test_single_forward(void **state)
{
    (void)state;
    f2b_method method = method_of(F2B_FORWARD_SINGLE, F2B_LANGUAGE_MODEL_LORA);
    method.temperature_learned = false, method.temperature = 0.02;
    const char *run = in_temp("run_single"), *export = in_temp("export_single");
    f2b_export_proof proof;
    assert_ok(make_run(base, run, &method, 3, false, false));
    assert_ok(export_run(run, export, &proof));
    assert_true(proof.compression > 1e-3 && proof.generation > 1e-3);
}

static void test_another_base_is_refused(void **state)
{
    (void)state;
    const f2b_method method = method_of(F2B_FORWARD_DOUBLE, F2B_LANGUAGE_MODEL_LORA);
    const char *run = in_temp("run_other"), *other = in_temp("other");
    assert_ok(make_run(base, run, &method, 3, false, false));
    const f2b_method full = method_of(F2B_FORWARD_BASE, F2B_LANGUAGE_MODEL_FULL);
    const char *full_run = in_temp("run_other_full");
    assert_ok(make_run(base, full_run, &full, 8, false, false));
    assert_ok(merge(full_run, other, F2B_STAGE_NONE));
    const f2b_trained_model_options o = at(run, other);
    assert_null(f2b_trained_model_open(&o));
    assert_failed(F2B_ERR_FORMAT, "xxh3:", "run_other");
    assert_non_null(strstr(f2b_last_error(), "other has xxh3:"));
    const f2b_trained_model_options nothing = at(NULL, NULL);
    assert_null(f2b_trained_model_open(&nothing));
    assert_failed(F2B_ERR_USAGE, "--checkpoint", "--model");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run_checkpoint_and_export), cmocka_unit_test(test_full_and_merged),
        cmocka_unit_test(test_full_export_is_proven),
        cmocka_unit_test(test_untrained_adapters_are_not_exported),
        cmocka_unit_test(test_single_forward), cmocka_unit_test(test_another_base_is_refused),
    };
    return cmocka_run_group_tests(tests, make_base, remove_temp_folder);
}
