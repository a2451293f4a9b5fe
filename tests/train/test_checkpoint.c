/* The state of a run through a checkpoint: equal bits, and what a resume refuses. */
#include "tests/support/check_op.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/atomic_file.h"
#include "train/checkpoint.h"

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/f2b_checkpoint_XXXXXX");
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    (void)state;
    return f2b_folder_remove(folder) != F2B_OK;
}

/* A configuration whose run is the test's folder, with overrides. */
static f2b_config *config_with(const char *const *overrides, int n)
{
    char *text = f2b_sprintf(F2B_TAG_OTHER, "model: {path: base}\nrun: {dir: %s, keep: 2}\n"
                             "data: {conversations: [{path: c}]}\ntrain: {steps: 10}\n"
                             "method: {loss: autoregressive}\n", folder);
    assert_non_null(text);
    f2b_config *config = f2b_config_parse(text, "x", "/somewhere", overrides, n);
    f2b_free(text);
    if (config == NULL) fail_msg("%s", f2b_last_error());
    return config;
}

static void add(f2b_parameters *list, const char *name, int64_t rows, float first)
{
    f2b_tensor *t =
        f2b_tensor_new(F2B_HOST, F2B_F32, 2, (int64_t[]){ rows, 3 }, F2B_TAG_PARAMETERS);
    assert_non_null(t);
    for (int64_t i = 0; i < f2b_numel(t); i++) ((float *)t->data)[i] = first + (float)i / 7;
    assert_int_equal(f2b_parameters_add(list, t, name, F2B_GROUP_LORA, true), F2B_OK);
}

static f2b_parameters registry(float first)
{
    f2b_parameters list = { 0 };
    add(&list, "z.lora_A", 2, first);
    add(&list, "summary_tokens", 4, first + 1);
    add(&list, "a.lora_B", 1, first + 2);
    return list;
}

static f2b_optimizer *optimizer_of(const f2b_parameters *list, float first)
{
    f2b_optimizer *o = f2b_optimizer_new(list);
    assert_non_null(o);
    for (int64_t i = 0; i < list->n; i++) {
        for (int64_t k = 0; k < f2b_numel(o->m[i]); k++) {
            ((float *)o->m[i]->data)[k] = first * (float)k - 1e-30f;
            ((float *)o->v[i]->data)[k] = first / (float)(k + 1);
        }
        o->updates[i] = 100 + i;
    }
    return o;
}

static void save(const f2b_config *config, const f2b_parameters *list, const f2b_optimizer *o,
                 f2b_run_position at)
{
    f2b_snapshot *s = f2b_snapshot_new(config, "base-1", list, o);
    assert_non_null(s);
    if (f2b_snapshot_take(s, &at, false) != F2B_OK || f2b_snapshot_write(s, NULL, NULL) != F2B_OK)
        fail_msg("%s", f2b_last_error());
    f2b_snapshot_free(s);
}

/* Resume from the folder's newest into fresh tensors of the registry's shapes. */
static f2b_status resume(const f2b_config *config, const char *base, const f2b_parameters *list,
                         f2b_optimizer *o, f2b_run_position *at)
{
    f2b_state_file *file = f2b_state_open(folder, NULL, NULL);
    if (file == NULL) return f2b_last_status();
    const f2b_status status = f2b_checkpoint_resume(file, config, base, list, o, at);
    f2b_state_close(file);
    return status;
}

static void gives_the_same_bits(void **state)
{
    (void)state;
    f2b_config *config = config_with(NULL, 0);
    f2b_parameters list = registry(0.1f), other = registry(5);
    ((float *)list.items[0].tensor->data)[1] = -0.0f;
    ((float *)list.items[0].tensor->data)[2] = 1e-42f;      /* denormal */
    f2b_optimizer *o = optimizer_of(&list, 0.3f), *p = f2b_optimizer_new(&other);
    save(config, &list, o, (f2b_run_position){ 7, 3, 2 });
    f2b_run_position at = { 0 };
    if (resume(config, "base-1", &other, p, &at) != F2B_OK) fail_msg("%s", f2b_last_error());
    assert_int_equal(at.step, 7);
    assert_int_equal(at.skipped, 3);
    assert_int_equal(at.skipped_in_a_row, 2);
    for (int64_t i = 0; i < list.n; i++) {
        const size_t bytes = f2b_tensor_bytes(list.items[i].tensor);
        assert_memory_equal(list.items[i].tensor->data, other.items[i].tensor->data, bytes);
        assert_memory_equal(o->m[i]->data, p->m[i]->data, bytes);
        assert_memory_equal(o->v[i]->data, p->v[i]->data, bytes);
        assert_int_equal(o->updates[i], p->updates[i]);
    }
    f2b_optimizer_free(o);
    f2b_optimizer_free(p);
    f2b_parameters_clear(&list);
    f2b_parameters_clear(&other);
    f2b_config_free(config);
}

/* Expect the resume to be refused with these words. */
static void refused(const f2b_config *config, const char *base, const f2b_parameters *list,
                    f2b_status code, const char *words)
{
    f2b_optimizer *o = f2b_optimizer_new(list);
    f2b_run_position at;
    assert_non_null(o);
    const f2b_status status = resume(config, base, list, o, &at);
    if (status != code || strstr(f2b_last_error(), words) == NULL)
        fail_msg("status %d: %s (instead of %d: %s)", status, f2b_last_error(), code, words);
    f2b_optimizer_free(o);
}

static void refuses_other_settings(void **state)
{
    (void)state;
    f2b_config *config = config_with(NULL, 0);
    f2b_parameters list = registry(1);
    f2b_optimizer *o = optimizer_of(&list, 1);
    save(config, &list, o, (f2b_run_position){ 3, 0, 0 });
    refused(config, "base-2", &list, F2B_ERR_CONFIG,
            "another base model (base-1) than /somewhere/base");
    static const struct { const char *set, *words; } settings[] = {
        { "train.learning_rate=0.5", "train.learning_rate was 0.0002, is now 0.5" },
        { "train.steps=11", "train.steps was 10, is now 11" },
        { "train.seed=1", "train.seed was 42, is now 1" },
        { "train.micro_batch_tokens=7", "train.micro_batch_tokens was 16384, is now 7" },
        { "sampler.conversation_batch=4", "sampler.conversation_batch was 128, is now 4" },
        { "lora.dropout=0.5", "lora.dropout was 0.05, is now 0.5" },
        { "data.conversations[0].path=/d", "data.conversations was" },
        { "trainable.start_from=/x", "trainable.start_from was null, is now" },
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        f2b_config *now = config_with(&settings[i].set, 1);
        refused(now, "base-1", &list, F2B_ERR_CONFIG, settings[i].words);
        f2b_config_free(now);
    }
    const char *const harmless[] = {
        "run.save_every=1", "run.keep=9", "run.log_every=5", "data.workers=0",
        "train.activation_checkpointing=layer", "model.path=/moved", "data.bad_records=error",
        "data.max_bad_fraction=0.5" };
    f2b_config *now = config_with(harmless, sizeof harmless / sizeof *harmless);
    f2b_run_position at;
    if (resume(now, "base-1", &list, o, &at) != F2B_OK) fail_msg("%s", f2b_last_error());
    f2b_config_free(now);
    f2b_optimizer_free(o);
    f2b_parameters_clear(&list);
    f2b_config_free(config);
}

static void refuses_other_tensors(void **state)
{
    (void)state;
    f2b_config *config = config_with(NULL, 0);
    f2b_parameters list = registry(1);
    f2b_optimizer *o = optimizer_of(&list, 1);
    save(config, &list, o, (f2b_run_position){ 3, 0, 0 });
    f2b_parameters fewer = { 0 };
    add(&fewer, "z.lora_A", 2, 0);
    refused(config, "base-1", &fewer, F2B_ERR_FORMAT, "has 3 tensors, this run trains 1");
    f2b_parameters shaped = { 0 };
    add(&shaped, "z.lora_A", 2, 0);
    add(&shaped, "summary_tokens", 5, 0);
    add(&shaped, "a.lora_B", 1, 0);
    refused(config, "base-1", &shaped, F2B_ERR_FORMAT,
            "summary_tokens is [4, 3] there and [5, 3] here");
    f2b_parameters named = { 0 };
    add(&named, "z.lora_A", 2, 0);
    add(&named, "summary_tokens", 4, 0);
    add(&named, "b.lora_B", 1, 0);
    refused(config, "base-1", &named, F2B_ERR_FORMAT, "lacks the tensor b.lora_B");
    f2b_optimizer_free(o);
    f2b_parameters_clear(&list);
    f2b_parameters_clear(&fewer);
    f2b_parameters_clear(&shaped);
    f2b_parameters_clear(&named);
    f2b_config_free(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(gives_the_same_bits, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(refuses_other_settings, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(refuses_other_tensors, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
