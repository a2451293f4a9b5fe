/* Runs from within: bad numbers, starting from what another run trained, stops and resumes. */
#include "tests/support/check_op.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoints/atomic_file.h"
#include "tests/support/tiny_world.h"
#include "train/trainer.h"

static char folder[64], notes[1 << 16];
static int64_t steps_seen, stop_after;      /* stop_after < 0: count questions instead of steps */
static int64_t questions;

static void note(void *user, const char *text)
{
    (void)user;
    snprintf(notes + strlen(notes), sizeof notes - strlen(notes), "%s\n", text);
}

static f2b_metrics_row rows[64];

static void step(void *user, const f2b_metrics_row *row, int64_t steps)
{
    (void)user, (void)steps;
    rows[steps_seen++] = *row;
}

static bool stop(void *user)
{
    (void)user;
    questions++;
    return stop_after > 0 ? steps_seen >= stop_after : stop_after < 0 && questions >= -stop_after;
}

static const f2b_trainer_events events = { note, step, stop, NULL };

static int make_world(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/f2b_trainer_XXXXXX");
    if (mkdtemp(folder) == NULL || f2b_tiny_world_write(folder) != F2B_OK) {
        print_error("%s\n", f2b_last_error());
        return 1;
    }
    return 0;
}

static int remove_world(void **state)
{
    (void)state;
    return f2b_folder_remove(folder) != F2B_OK;
}

/* Open run.yaml with up to three overrides (NULL ends them); its run is dir/`run`. */
static f2b_session *open_run(const char *run, const char *a, const char *b, const char *c)
{
    char *yaml = f2b_path_join(folder, "run.yaml");
    char *dir = f2b_sprintf(F2B_TAG_OTHER, "run.dir=%s/%s", folder, run);
    const char *overrides[] = { dir, a, b, c };
    int n = 1;
    while (n < 4 && overrides[n] != NULL) n++;
    f2b_config *config = f2b_config_load(yaml, overrides, n);
    if (config == NULL) fail_msg("%s", f2b_last_error());
    f2b_session *s = f2b_session_open(config, F2B_HOST, note, NULL);
    if (s == NULL) fail_msg("%s", f2b_last_error());
    f2b_free(yaml);
    f2b_free(dir);
    steps_seen = stop_after = questions = 0;
    notes[0] = '\0';
    return s;
}

static void expect(f2b_status got, f2b_status want, const char *words)
{
    if (got != want || (want != F2B_OK && strstr(f2b_last_error(), words) == NULL))
        fail_msg("status %d: %s (instead of %d: %s)", got, f2b_last_error(), want, words);
}

static f2b_tensor *find(const f2b_session *s, const char *name)
{
    const f2b_parameter *p = f2b_parameters_find(&s->model->parameters, name);
    if (p == NULL) fail_msg("no parameter %s", name);
    return p->tensor;
}

/* Adam's count for a tensor in the newest checkpoint, and its step. */
static int64_t updates_of(const char *run, const char *name, int64_t *at)
{
    char *dir = f2b_path_join(folder, run);
    f2b_state_file *file = f2b_state_open(dir, NULL, NULL);
    if (file == NULL) fail_msg("%s", f2b_last_error());
    const int64_t i = f2b_state_find(file, name);
    assert_true(i >= 0);
    const int64_t updates = f2b_state_at(file, i)->updates;
    *at = f2b_state_step(file);
    f2b_state_close(file);
    f2b_free(dir);
    return updates;
}

#define LAYER "language_model.model.layers.1.mlp.up_proj."

/* A NaN in the generation adapter: steps with pass 2 are skipped, caption steps go on. */
static void bad_numbers_skip_a_step(void **state)
{
    (void)state;
    f2b_session *s = open_run("bad", "train.steps=12", NULL, NULL);
    f2b_tensor *poisoned = find(s, LAYER "generation.lora_B");
    ((float *)poisoned->data)[0] = NAN;
    expect(f2b_train_run(s, F2B_RESUME_AUTO, NULL, &events), F2B_OK, "");
    int64_t skipped = 0, captions = 0, at;
    for (int64_t i = 0; i < 12; i++) {
        const bool bad = rows[i].kind != F2B_BATCH_CAPTION;
        skipped += bad, captions += !bad;
        assert_int_equal(rows[i].step, i + 1);
        assert_int_equal(rows[i].skipped, skipped);
        assert_true(isfinite(rows[i].grad_norm) == !bad);
        /* The schedule goes on: warm-up of ceil(0.03 * 12) = 1 update, then the cosine. */
        const double factor = f2b_learning_rate_factor(F2B_LR_COSINE, 0.03, i, 12);
        assert_true(fabs(rows[i].lr - 0.01 * factor) < 1e-12);
    }
    assert_true(skipped > 0 && captions > 0);
    assert_non_null(strstr(notes, "was skipped: its loss or gradient is not finite"));
    assert_int_equal(updates_of("bad", LAYER "compression.lora_B", &at), captions);
    assert_int_equal(at, 12);
    assert_int_equal(updates_of("bad", LAYER "generation.lora_B", &at), 0);
    /* What was not updated has its first values still. */
    assert_true(((const float *)poisoned->data)[1] == 0);
    f2b_session_close(s);
}

static void ten_in_a_row_end_the_run(void **state)
{
    (void)state;
    f2b_session *s = open_run("ten", "run.save_every=0", NULL, NULL);
    ((float *)find(s, "summary_tokens")->data)[0] = INFINITY;
    ((float *)find(s, LAYER "generation.lora_A")->data)[0] = INFINITY;
    expect(f2b_train_run(s, F2B_RESUME_AUTO, NULL, &events), F2B_ERR_NUMBERS,
           "not finite in 10 steps");
    int64_t at;
    assert_int_equal(steps_seen, 10);
    assert_int_equal(updates_of("ten", LAYER "compression.lora_B", &at), 0);
    assert_int_equal(at, 10);                   /* saved, though save_every is off */
    f2b_session_close(s);
    /* The count goes on where the run does: one more bad step ends it again. */
    s = open_run("ten", "run.save_every=0", NULL, NULL);
    expect(f2b_train_run(s, F2B_RESUME_AUTO, NULL, &events), F2B_ERR_NUMBERS, "last step 11");
    assert_int_equal(steps_seen, 1);
    assert_int_equal(rows[0].skipped, 11);
    f2b_session_close(s);
}

static void train(f2b_session *s)
{
    expect(f2b_train_run(s, F2B_RESUME_AUTO, NULL, &events), F2B_OK, "");
    f2b_session_close(s);
}

/* start_from: a run, one of its checkpoints; new moments and step 0; frozen targets are refused. */
static void starts_from_what_was_trained(void **state)
{
    (void)state;
    train(open_run("first", "train.steps=4", NULL, NULL));
    static const char *const ways[] = { "first", "first/checkpoints/step-00000004" };
    for (int i = 0; i < 2; i++) {
        char *from = f2b_sprintf(F2B_TAG_OTHER, "trainable.start_from=%s/%s", folder, ways[i]);
        f2b_session *trained = open_run("first", "train.steps=4", NULL, NULL);
        expect(f2b_train_run(trained, F2B_RESUME_AUTO, NULL, &events), F2B_OK, "");
        f2b_session *s = open_run("second", "train.steps=1", from, NULL);   /* rate 0 in step 1 */
        expect(f2b_train_run(s, F2B_RESUME_NONE, NULL, &events), F2B_OK, "");
        for (int64_t k = 0; k < s->model->parameters.n; k++) {
            const f2b_tensor *a = s->model->parameters.items[k].tensor;
            assert_memory_equal(a->data, find(trained, a->name)->data, f2b_tensor_bytes(a));
        }
        int64_t at;
        assert_true(updates_of("second", LAYER "compression.lora_B", &at) <= 1);
        assert_int_equal(at, 1);
        f2b_session_close(trained);
        f2b_session_close(s);
        f2b_free(from);
    }
    char *from = f2b_sprintf(F2B_TAG_OTHER, "trainable.start_from=%s/first", folder);
    f2b_session *s = open_run("third", "trainable.language_model=frozen", from, NULL);
    expect(f2b_train_run(s, F2B_RESUME_AUTO, NULL, &events), F2B_ERR_FORMAT,
           "has no place in this model");
    f2b_session_close(s);
    s = open_run("third", "summary.tokens=5", from, NULL);
    expect(f2b_train_run(s, F2B_RESUME_AUTO, NULL, &events), F2B_ERR_FORMAT, "summary_tokens");
    f2b_session_close(s);
    f2b_free(from);
    s = open_run("third", "trainable.start_from=/tmp/f2b-not-there", NULL, NULL);
    expect(f2b_train_run(s, F2B_RESUME_AUTO, NULL, &events), F2B_ERR_NOT_FOUND,
           "trainable.start_from");
    f2b_session_close(s);
}

/* A resumed run does not need what it started from. */
static void resumes_without_its_start(void **state)
{
    (void)state;
    char *from = f2b_sprintf(F2B_TAG_OTHER, "trainable.start_from=%s/gone", folder);
    train(open_run("gone", "train.steps=2", NULL, NULL));
    f2b_session *s = open_run("next", from, NULL, NULL);
    stop_after = 2;
    expect(f2b_train_run(s, F2B_RESUME_AUTO, NULL, &events), F2B_ERR_STOPPED,
           "stopped after step 2");
    f2b_session_close(s);
    char *gone = f2b_path_join(folder, "gone");
    assert_int_equal(f2b_folder_remove(gone), F2B_OK);
    train(open_run("next", from, NULL, NULL));
    f2b_free(gone);
    f2b_free(from);
}

static bool there(const char *name)
{
    char *path = f2b_path_join(folder, name);
    const bool is = access(path, F_OK) == 0;
    f2b_free(path);
    return is;
}

/* Stops at any question end with the state of the last whole step, and the end is the same. */
static void stops_between_micro_batches(void **state)
{
    (void)state;
    train(open_run("whole", "train.steps=8", "run.eval_every=3", "run.save_every=0"));
    double want[8];
    for (int i = 0; i < 8; i++) want[i] = rows[i].loss;
    for (int64_t after = 1; after < 40; after += 4) {
        f2b_session *s = open_run("parts", "train.steps=8", "run.eval_every=3", "run.save_every=0");
        stop_after = -after;
        f2b_status status = f2b_train_run(s, F2B_RESUME_NONE, NULL, &events);
        expect(status, F2B_ERR_STOPPED, "the state is saved");
        assert_true(questions == after);        /* nothing is asked, or done, after the stop */
        const int64_t done = steps_seen;
        f2b_session_close(s);
        s = open_run("parts", "train.steps=8", "run.eval_every=3", "run.save_every=0");
        expect(f2b_train_run(s, F2B_RESUME_AUTO, NULL, &events), F2B_OK, "");
        assert_int_equal(done + steps_seen, 8);
        for (int64_t i = 0; i < steps_seen; i++) assert_true(rows[i].loss == want[done + i]);
        f2b_session_close(s);
        char *a = f2b_path_join(folder, "whole/evaluations.jsonl");
        char *b = f2b_path_join(folder, "parts/evaluations.jsonl");
        char *x = f2b_read_file(a, 1 << 20, NULL), *y = f2b_read_file(b, 1 << 20, NULL);
        assert_non_null(x);
        assert_non_null(y);
        assert_string_equal(x, y);
        f2b_free(a), f2b_free(b), f2b_free(x), f2b_free(y);
    }
}

/* A run that is moved aside is whole; another run's checkpoint starts a run of its own. */
static void earlier_runs_are_kept(void **state)
{
    (void)state;
    train(open_run("a", "train.steps=2", NULL, NULL));
    f2b_session *s = open_run("a", "train.steps=3", NULL, NULL);
    expect(f2b_train_run(s, F2B_RESUME_AUTO, NULL, &events), F2B_ERR_CONFIG,
           "train.steps was 2, is now 3");
    f2b_session_close(s);
    s = open_run("a", "train.steps=3", NULL, NULL);
    expect(f2b_train_run(s, F2B_RESUME_NONE, NULL, &events), F2B_OK, "");
    assert_non_null(strstr(notes, "/a/before-1"));
    f2b_session_close(s);
    assert_true(there("a/before-1/checkpoints/step-00000002") &&
                there("a/before-1/metrics.jsonl") && there("a/before-1/config.yaml") &&
                there("a/checkpoints/step-00000003"));
    assert_false(there("a/before-1/lock"));
    train(open_run("b", "train.steps=3", NULL, NULL));
    char *from = f2b_path_join(folder, "a/before-1");
    s = open_run("b", "train.steps=2", NULL, NULL);
    expect(f2b_train_run(s, F2B_RESUME_PATH, from, &events), F2B_OK, "");
    f2b_session_close(s);
    assert_true(there("b/before-1/checkpoints/step-00000003") &&
                there("b/checkpoints/step-00000002"));
    f2b_free(from);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_numbers_skip_a_step), cmocka_unit_test(ten_in_a_row_end_the_run),
        cmocka_unit_test(starts_from_what_was_trained), cmocka_unit_test(resumes_without_its_start),
        cmocka_unit_test(stops_between_micro_batches), cmocka_unit_test(earlier_runs_are_kept),
    };
    return cmocka_run_group_tests(tests, make_world, remove_world);
}
