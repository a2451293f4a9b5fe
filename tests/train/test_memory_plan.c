/*
 * The memory plan: what --check states is what the run's allocator then counts, by tag, for every
 * kind of run; and activation checkpointing takes as few layers as the memory needs, with the same
 * numbers whatever it takes.
 */
#include "tests/support/check_op.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "autograd/core/rng.h"
#include "checkpoints/atomic_file.h"
#include "tests/support/tiny_world.h"
#include "train/trainer.h"

enum { MOST_OVERRIDES = 8 };

static char folder[64];
static uint64_t numbers;            /* of all steps of the last run */
static int64_t told;                /* reports of progress */

static void quiet(void *user, const char *text) { (void)user, (void)text; }
static bool go_on(void *user) { (void)user; return false; }

static void on_step(void *user, const f2b_metrics_row *row, int64_t steps)
{
    (void)user, (void)steps;
    const double values[] = { isnan(row->loss_ar) ? 0 : row->loss_ar,
                              isnan(row->loss_disc) ? 0 : row->loss_disc, row->grad_norm };
    uint64_t bits[3];
    memcpy(bits, values, sizeof bits);
    for (int i = 0; i < 3; i++) numbers = f2b_hash_mix(numbers ^ bits[i]);
}

static void on_progress(void *user, int64_t step, int64_t steps, const f2b_step_progress *at)
{
    (void)user;
    assert_true(step >= 1 && step <= steps);
    assert_true(at->micro_batch >= 0 && at->micro_batch < at->micro_batches);
    assert_true(at->done >= 0 && at->done <= at->of && at->pass != NULL);
    told++;
}

static const f2b_trainer_events events = { quiet, on_step, go_on, NULL, on_progress };

/* `also` is overrides divided by spaces. */
static f2b_session *open_run(const char *also)
{
    char *yaml = f2b_path_join(folder, "run.yaml"), text[512], *rest = text;
    const char *list[MOST_OVERRIDES];
    int n = 0;
    snprintf(text, sizeof text, "%s", also);
    for (char *dir; (dir = strstr(text, "DIR")) != NULL;) {
        char behind[256];
        snprintf(behind, sizeof behind, "%s", dir + 3);
        snprintf(dir, sizeof text - (size_t)(dir - text), "%s%s", folder, behind);
    }
    for (char *one; (one = strtok_r(rest, " ", &rest)) != NULL;) {
        assert_true(n < MOST_OVERRIDES);
        list[n++] = one;
    }
    f2b_config *config = f2b_config_load(yaml, list, n);
    f2b_free(yaml);
    if (config == NULL) fail_msg("%s: %s", also, f2b_last_error());
    f2b_session *s = f2b_session_open(config, F2B_HOST, quiet, NULL);
    if (s == NULL) fail_msg("%s: %s", also, f2b_last_error());
    return s;
}

static void train(f2b_session *s, const char *what)
{
    numbers = 0, told = 0;
    if (f2b_train_run(s, F2B_RESUME_NONE, NULL, &events) != F2B_OK)
        fail_msg("%s: %s", what, f2b_last_error());
    assert_true(told > 0);
}

/* ---- Plan and fact ---- */

/* What a tag may be off by beside 5 %: nothing for what steps take; sizes of files, names and pictures on
 * their way do not grow with the run. */
static int64_t slack(int tag)
{
    switch (tag) {
    case F2B_TAG_FILES:
    case F2B_TAG_DATA:
    case F2B_TAG_IMAGES:
    case F2B_TAG_OTHER: return (int64_t)128 << 10;
    default: return 0;
    }
}

static void compare(const char *what)
{
    f2b_alloc_trim();
    f2b_bytes_peak_reset();
    f2b_session *s = open_run(what);
    for (int64_t i = 0; i < s->model->parameters.n; i++)
        assert_null(s->model->parameters.items[i].tensor->grad);
    train(s, what);
    assert_int_equal(s->memory.steps, 4);
    assert_true(s->memory.rows > 0 && s->memory.rows <= s->memory.most_rows);
    assert_true(s->memory.most >= s->memory.peak[F2B_TAG_COUNT]);
    for (int tag = 0; tag <= F2B_TAG_COUNT; tag++) {
        const int64_t plan = s->memory.peak[tag], fact = f2b_bytes_peak((f2b_tag)tag);
        if (llabs(plan - fact) > fact / 20 + slack(tag))
            fail_msg("%s: %s was planned as %lld, and is %lld", what, f2b_tag_name((f2b_tag)tag),
                     (long long)plan, (long long)fact);
    }
    f2b_session_close(s);
}

static void the_plan_is_what_comes(void **state)
{
    (void)state;
    static const char *const runs[] = {
        "train.precision=f32 data.workers=0",
        "train.precision=bf16 model.weights=bf16 lora.r=2 summary.tokens=1",
        "train.precision=bf16 model.weights=nf4 lora.r=32 lora.dropout=0",
        "model.weights=int8 trainable.language_model=full data.workers=3",
        "train.micro_batch_tokens=100000 summary.tokens=9",
        "train.micro_batch_tokens=1 lora.r=32",
        "train.activation_checkpointing=layer lora.dropout=0",
        "train.activation_checkpointing=layer train.micro_batch_tokens=1000 train.precision=bf16",
        "trainable.vision_tower=true trainable.projector=true",
        "trainable.vision_tower=true train.activation_checkpointing=layer method.temperature=learned",
        "method.forward=single method.adapters=single run.eval_every=2",
        "method.forward=base trainable.language_model=full trainable.projector=true",
        "method.loss=contrastive sampler.contrastive_batch=20",
        "method.loss=autoregressive sampler.conversation_batch=9",
        "sampler.group_images=true train.micro_batch_tokens=1000",
        "data.feature_cache=DIR/features train.micro_batch_tokens=1000",
    };
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) compare(runs[i]);
}

/* ---- As few layers as it takes ---- */

static int64_t layers_within(int64_t limit, int64_t *held)
{
    char also[128];
    snprintf(also, sizeof also, "train.memory_limit=%lldB", (long long)limit);
    f2b_session *s = open_run(also);
    const int64_t n = s->memory.checkpoint_layers;
    assert_true(limit == 1 ? s->memory.packed == 0 : limit < (int64_t)1 << 40 || s->memory.packed > 0);
    if (held != NULL) *held = f2b_memory_held(F2B_CPU, s->memory.most) + s->memory.mapped;
    assert_int_equal(s->memory.available, limit);
    f2b_session_close(s);
    return n;
}

static void as_few_layers_as_it_takes(void **state)
{
    (void)state;
    int64_t none, some, all;
    assert_int_equal(layers_within((int64_t)1 << 40, &none), 0);
    assert_int_equal(layers_within(1, &all), 6);
    assert_true(all < none);
    assert_int_equal(layers_within(none, NULL), 0);
    const int64_t n = layers_within((none + all) / 2, &some);
    assert_true(n > 0 && n < 6 && some <= (none + all) / 2);
    assert_int_equal(layers_within(some, NULL), n);
    assert_int_equal(layers_within(some - 1, NULL), n + 1);     /* one byte less: one layer more */
}

static void the_same_numbers_with_any_number_of_layers(void **state)
{
    (void)state;
    uint64_t first = 0;
    int64_t peak = INT64_MAX;
    for (int64_t n = 0; n <= 6; n += 2) {
        f2b_session *s = open_run("train.micro_batch_tokens=1000 trainable.vision_tower=true");
        s->memory.checkpoint_layers = n;
        f2b_alloc_trim();
        f2b_bytes_peak_reset();
        train(s, "some layers");
        if (n == 0) first = numbers;
        assert_true(numbers == first);
        assert_true(f2b_bytes_peak(F2B_TAG_ACTIVATIONS) < peak);
        peak = f2b_bytes_peak(F2B_TAG_ACTIVATIONS);
        f2b_session_close(s);
    }
}

static void what_does_not_fit_does_not_start(void **state)
{
    (void)state;
    f2b_session *s = open_run("train.memory_limit=1MiB");
    assert_int_equal(f2b_train_run(s, F2B_RESUME_NONE, NULL, &events), F2B_ERR_MEMORY);
    assert_non_null(strstr(f2b_last_error(), "may take 1 MiB (train.memory_limit), with 6 of 6"));
    assert_non_null(strstr(f2b_last_error(), "lower train.micro_batch_tokens"));
    f2b_session_close(s);
    s = open_run("train.memory_limit=1MiB train.activation_checkpointing=none");
    assert_int_equal(f2b_train_run(s, F2B_RESUME_NONE, NULL, &events), F2B_ERR_MEMORY);
    assert_non_null(strstr(f2b_last_error(), "set train.activation_checkpointing: auto"));
    f2b_session_close(s);
}

/* ---- A copy to save from, where there is room ---- */

static f2b_session *saving_run(int64_t limit)
{
    char also[128];
    snprintf(also, sizeof also, "run.save_every=1 train.memory_limit=%lldB", (long long)limit);
    return open_run(also);
}

static void a_copy_to_save_from(void **state)
{
    (void)state;
    f2b_alloc_trim();
    f2b_bytes_peak_reset();
    f2b_session *s = saving_run((int64_t)1 << 40);
    assert_true(s->memory.saves && s->memory.saves_beside);
    int64_t bytes = 0;
    for (int64_t i = 0; i < s->model->parameters.n; i++)
        bytes += 3 * (int64_t)f2b_tensor_bytes(s->model->parameters.items[i].tensor);
    assert_int_equal(s->memory.state, bytes);
    assert_int_equal(s->memory.peak[F2B_TAG_SNAPSHOT], bytes);
    train(s, "with a copy");
    const uint64_t with = numbers;
    assert_int_equal(f2b_bytes_peak(F2B_TAG_SNAPSHOT), bytes);
    assert_true(f2b_bytes_peak(F2B_TAG_COUNT) <= s->memory.peak[F2B_TAG_COUNT] + slack(F2B_TAG_DATA));
    int64_t enough = f2b_memory_held(F2B_CPU, s->memory.most) + s->memory.mapped;
    assert_true(s->memory.packed > 0);
    f2b_session_close(s);

    /* One byte less: weights are not packed, or there is no copy; and not one layer more that is computed again. */
    f2b_bytes_peak_reset();         /* the plan's peak is not to be that of the run before */
    s = saving_run(enough);
    assert_true(s->memory.saves_beside && s->memory.packed > 0);
    f2b_session_close(s);
    s = saving_run(enough - 1);
    assert_true(!s->memory.saves_beside || s->memory.packed == 0);
    if (s->memory.saves_beside) enough = f2b_memory_held(F2B_CPU, s->memory.most) + s->memory.mapped;
    f2b_session_close(s);
    s = saving_run(enough - 1);
    assert_true(s->memory.saves && !s->memory.saves_beside);
    assert_int_equal(s->memory.checkpoint_layers, 0);
    f2b_alloc_trim();
    f2b_bytes_peak_reset();
    train(s, "without a copy");
    assert_true(numbers == with);
    assert_int_equal(f2b_bytes_peak(F2B_TAG_SNAPSHOT), 0);
    f2b_session_close(s);
    s = open_run("run.save_every=0");           /* at the end there is nothing to go on with */
    assert_true(!s->memory.saves && !s->memory.saves_beside);
    f2b_session_close(s);
}

/* ---- The world ---- */

static void edit(const char *name, const char *from, const char *to)
{
    char *path = f2b_path_join(folder, name), *text = f2b_read_file(path, 1 << 20, NULL);
    char *at = text != NULL ? strstr(text, from) : NULL;
    if (at == NULL) fail_msg("%s has no %s", name, from);
    char *edited = f2b_sprintf(F2B_TAG_OTHER, "%.*s%s%s", (int)(at - text), text, to,
                               at + strlen(from));
    assert_int_equal(f2b_write_file(path, edited, strlen(edited)), F2B_OK);
    f2b_free(edited);
    f2b_free(text);
    f2b_free(path);
}

static int make_world(void **state)
{
    (void)state;
    strcpy(folder, access("/dev/shm", W_OK) == 0 ? "/dev/shm/f2b_plan_XXXXXX"
                                                 : "/tmp/f2b_plan_XXXXXX");
    omp_set_num_threads(1);
    if (mkdtemp(folder) == NULL || f2b_tiny_world_write(folder) != F2B_OK) return 1;
    edit("run.yaml", "steps: 16", "steps: 4");
    edit("run.yaml", "save_every: 2", "save_every: 0");
    edit("model/config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 6");
    return 0;
}

static int remove_world(void **state)
{
    (void)state;
    return f2b_folder_remove(folder) != F2B_OK;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_plan_is_what_comes),
        cmocka_unit_test(as_few_layers_as_it_takes),
        cmocka_unit_test(the_same_numbers_with_any_number_of_layers),
        cmocka_unit_test(what_does_not_fit_does_not_start),
        cmocka_unit_test(a_copy_to_save_from),
    };
    return cmocka_run_group_tests(tests, make_world, remove_world);
}
