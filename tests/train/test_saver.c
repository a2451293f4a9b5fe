/*
 * Checkpoints that are written while training goes on: steps do not wait for a file system that does
 * not answer; a kill costs the checkpoint that was being written, no other; a write that fails ends
 * the run with its own error. The file system is that of tests/checkpoints/fault_calls.h: this
 * program's main thread is spared, the thread that writes is not.
 */
#include "tests/support/check_op.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/atomic_file.h"
#include "tests/checkpoints/fault_calls.h"
#include "tests/support/tiny_world.h"
#include "train/trainer.h"

enum { STEPS = 12, SAVE_EVERY = 4 };

static char folder[64];

/* Which write meets what, after how many of its calls. */
static struct { int64_t step; int mode, calls; } disturb;

/* What the callbacks of the run at hand do and see. */
static struct {
    int64_t steps, stop_after, saving;
    int64_t seen_saving[STEPS + 1];     /* at each step: the checkpoint that was being written */
    void (*at_step)(int64_t step);
    char notes[1 << 12];
    double loss[STEPS + 1];
} now;

static void note(void *user, const char *text)
{
    (void)user;
    const size_t n = strlen(now.notes);
    snprintf(now.notes + n, sizeof now.notes - n, "%s\n", text);
}

static void step(void *user, const f2b_metrics_row *row, int64_t steps)
{
    (void)user, (void)steps;
    now.steps = row->step;
    now.seen_saving[row->step] = now.saving;
    now.loss[row->step] = row->loss;
    if (now.at_step != NULL) now.at_step(row->step);
}

static bool stop(void *user)
{
    (void)user;
    return now.stop_after > 0 && now.steps >= now.stop_after;
}

/* Before the first call of a write. */
static void saving(void *user, int64_t at)
{
    (void)user;
    now.saving = at;
    if (at == disturb.step) calls_left = disturb.calls, mode = disturb.mode;
}

static const f2b_trainer_events events = { note, step, stop, NULL, NULL, saving };

/* A run, with what was set in `disturb`, which is then forgotten. */
static f2b_status train(const char *run, f2b_resume resume, void (*at_step)(int64_t step),
                        int64_t stop_after)
{
    char *yaml = f2b_path_join(folder, "run.yaml");
    char *dir = f2b_sprintf(F2B_TAG_OTHER, "run.dir=%s/%s", folder, run);
    const char *overrides[] = { dir, "train.steps=12", "run.save_every=4", "run.keep=0" };
    f2b_config *config = f2b_config_load(yaml, overrides, sizeof overrides / sizeof *overrides);
    f2b_free(yaml);
    f2b_free(dir);
    if (config == NULL) fail_msg("%s", f2b_last_error());
    f2b_session *s = f2b_session_open(config, F2B_HOST, note, NULL);
    if (s == NULL) fail_msg("%s", f2b_last_error());
    assert_true(s->memory.saves_beside);
    memset(&now, 0, sizeof now);
    now.at_step = at_step, now.stop_after = stop_after;
    hangs = let_go = false;
    const f2b_status status = f2b_train_run(s, resume, NULL, &events);
    mode = PASS;
    memset(&disturb, 0, sizeof disturb);
    assert_int_equal(now.saving, 0);
    f2b_session_close(s);
    return status;
}

static bool there(const char *run, int64_t at)
{
    char *path = f2b_sprintf(F2B_TAG_OTHER, "%s/%s/checkpoints/step-%08lld", folder, run,
                             (long long)at);
    const bool is = access(path, F_OK) == 0;
    f2b_free(path);
    return is;
}

static void failed(f2b_status status, f2b_status want, const char *words)
{
    if (status != want || strstr(f2b_last_error(), words) == NULL)
        fail_msg("status %d: %s (instead of %d: %s)", status, f2b_last_error(), want, words);
}

/* ---- Steps go on ---- */

static void look_at_the_hanging_write(int64_t at)
{
    if (at == SAVE_EVERY + 1) await_hanging();
    if (at > SAVE_EVERY && at < 2 * SAVE_EVERY)
        assert_true(hangs && !there("slow", SAVE_EVERY));
    if (at == 2 * SAVE_EVERY - 1) let_calls_go();
}

static void steps_do_not_wait_for_a_write(void **state)
{
    (void)state;
    disturb.step = SAVE_EVERY, disturb.mode = HANG, disturb.calls = 5;
    assert_int_equal(train("slow", F2B_RESUME_NONE, look_at_the_hanging_write, 0), F2B_OK);
    for (int i = SAVE_EVERY + 1; i < 2 * SAVE_EVERY; i++)
        assert_int_equal(now.seen_saving[i], SAVE_EVERY);
    for (int64_t at = SAVE_EVERY; at <= STEPS; at += SAVE_EVERY) assert_true(there("slow", at));
    const char *first = strstr(now.notes, "saved checkpoint step-00000004");
    assert_true(first != NULL && strstr(first, "saved checkpoint step-00000008") != NULL &&
                strstr(first, "saved checkpoint step-00000012") != NULL);
}

/* ---- A kill ---- */

static void kill_in_the_write(int64_t at)
{
    if (at < 2 * SAVE_EVERY + 2) return;
    await_hanging();
    kill(getpid(), SIGKILL);
}

static void a_kill_costs_one_checkpoint(void **state)
{
    (void)state;
    assert_int_equal(train("whole", F2B_RESUME_NONE, NULL, 0), F2B_OK);
    double want[STEPS + 1];
    memcpy(want, now.loss, sizeof want);
    disturb.step = 2 * SAVE_EVERY, disturb.mode = HANG, disturb.calls = 5;
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)train("killed", F2B_RESUME_NONE, kill_in_the_write, 0);
        _exit(0);
    }
    memset(&disturb, 0, sizeof disturb);
    int result;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFSIGNALED(result) && WTERMSIG(result) == SIGKILL);
    assert_true(there("killed", SAVE_EVERY) && !there("killed", 2 * SAVE_EVERY));
    /* It goes on from what was written while training went on, and has the same numbers. */
    assert_int_equal(train("killed", F2B_RESUME_AUTO, NULL, 0), F2B_OK);
    assert_non_null(strstr(now.notes, "step-00000004"));
    assert_true(now.loss[SAVE_EVERY] == 0);
    for (int i = SAVE_EVERY + 1; i <= STEPS; i++) assert_true(now.loss[i] == want[i]);
}

/* ---- A write that fails ---- */

static void a_failed_write_ends_the_run(void **state)
{
    (void)state;
    disturb.step = 2 * SAVE_EVERY, disturb.mode = FAIL, disturb.calls = 5;
    failed(train("full", F2B_RESUME_NONE, NULL, 0), F2B_ERR_IO, "No space left on device");
    assert_in_range(now.steps, 2 * SAVE_EVERY, STEPS);
    assert_true(there("full", SAVE_EVERY) && !there("full", 2 * SAVE_EVERY) &&
                !there("full", STEPS));
    assert_int_equal(train("full", F2B_RESUME_AUTO, NULL, 0), F2B_OK);
    assert_true(there("full", STEPS));
}

/* A stop finds the write under way: it waits, and says what came of it. */
static void let_go_after_the_step(int64_t at)
{
    if (at != 2 * SAVE_EVERY + 1) return;
    await_hanging();
    let_calls_go();
}

static void a_stop_waits_for_the_write(void **state)
{
    (void)state;
    disturb.step = 2 * SAVE_EVERY, disturb.mode = HANG, disturb.calls = 5;
    failed(train("stop", F2B_RESUME_NONE, let_go_after_the_step, 2 * SAVE_EVERY + 1),
           F2B_ERR_STOPPED, "stopped after step 9; the state is saved");
    assert_true(there("stop", 2 * SAVE_EVERY) && there("stop", 2 * SAVE_EVERY + 1));
    disturb.step = 2 * SAVE_EVERY, disturb.mode = FAIL, disturb.calls = 5;
    failed(train("stop", F2B_RESUME_NONE, NULL, 2 * SAVE_EVERY), F2B_ERR_IO,
           "No space left on device");
    assert_int_equal(now.steps, 2 * SAVE_EVERY);
    assert_true(there("stop", SAVE_EVERY) && !there("stop", 2 * SAVE_EVERY));
}

/* ---- The world ---- */

static int make_world(void **state)
{
    (void)state;
    spared = true;
    omp_set_num_threads(1);             /* a forked process has no threads to wait for */
    strcpy(folder, "/tmp/f2b_saver_XXXXXX");
    return mkdtemp(folder) == NULL || f2b_tiny_world_write(folder) != F2B_OK;
}

static int remove_world(void **state)
{
    (void)state;
    return f2b_folder_remove(folder) != F2B_OK;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_do_not_wait_for_a_write),
        cmocka_unit_test(a_kill_costs_one_checkpoint),
        cmocka_unit_test(a_failed_write_ends_the_run),
        cmocka_unit_test(a_stop_waits_for_the_write),
    };
    return cmocka_run_group_tests(tests, make_world, remove_world);
}
