/*
 * A save that is killed, or that finds the disk full, at any call to the file system: the n-th fails
 * (fault_calls.h), for every n until a save comes through. After each: what was saved before, or
 * what was being saved, is there to the bit, and the next save works.
 */
#include "tests/checkpoints/state_fixture.h"

#include <sys/resource.h>

#include "checkpoints/safetensors.h"
#include "tests/checkpoints/fault_calls.h"

static state_fixture fixture;

static f2b_status save(int64_t step)
{
    fill_state(&fixture, step);
    return f2b_state_save(temp_folder, &fixture.state, 2, NULL, NULL);
}

/* The child's work: save step 2 with the n-th call disturbed; its exit code says how it went. */
static int disturbed_save(int how, int n)
{
    const int before = open_files();
    mode = how;
    calls_left = n;
    const f2b_status status = save(2);
    const bool reached = calls_left < 0;
    mode = PASS;
    if (status == F2B_OK) return reached ? 1 : 0;       /* 1: the failure was survived */
    if (how == FAIL && !strstr(f2b_last_error(), "No space left")) {
        fprintf(stderr, "call %d: %s\n", n, f2b_last_error());
        return 9;
    }
    /* Nothing must stay open, or the room of the failed write would not come back. */
    if (open_files() != before) return 8;
    return save(2) == F2B_OK ? 2 : 7;                   /* the same process can try again */
}

static int run_child(int how, int n)
{
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(60);
        _exit(disturbed_save(how, n));
    }
    int result;
    assert_int_equal(waitpid(child, &result, 0), child);
    if (WIFSIGNALED(result)) return how == KILL && WTERMSIG(result) == SIGKILL ? 3 : 6;
    return WEXITSTATUS(result);
}

static int64_t step_found(void)
{
    notes all = { 0 };
    f2b_state_file *file = f2b_state_open(temp_folder, take_note, &all);
    if (!file || all.n) fail_msg("%s", file ? all.text[0] : f2b_last_error());
    const int64_t step = f2b_state_step(file);
    assert_state_is(file, step);
    f2b_state_close(file);
    return step;
}

static void killed_at_every_call(void **state)
{
    (void)state;
    int found[3] = { 0 }, n = 0, result = 3;
    for (; result != 0; ++n) {
        assert_ok(save(1));             /* step 2 of the round before is given up by this */
        result = run_child(KILL, n);
        if (result != 0 && result != 3) fail_msg("call %d: the child ended with %d", n, result);
        const int64_t step = step_found();
        assert_true(step == 1 || step == 2);
        ++found[step];
    }
    print_message("%d calls; step 1 was found %d times, step 2 %d times\n", n, found[1], found[2]);
    assert_in_range(n, 20, 400);
    assert_true(found[1] > 10 && found[2] > 2);
}

static void killed_while_replacing_the_same_step(void **state)
{
    (void)state;
    assert_ok(save(2));
    for (int n = 0, result = 3; result != 0; ++n) {
        result = run_child(KILL, n);
        if (result != 0 && result != 3) fail_msg("call %d: the child ended with %d", n, result);
        assert_int_equal(step_found(), 2);
    }
}

static void full_disk_at_every_call(void **state)
{
    (void)state;
    int n = 0, result = 2, failed = 0;
    for (; result != 0; ++n) {
        assert_ok(save(1));
        result = run_child(FAIL, n);
        if (result > 2) fail_msg("call %d: the child ended with %d", n, result);
        failed += result == 2;
        assert_int_equal(step_found(), 2);
    }
    assert_true(failed > 10);
}

/* The other way to run out of room: a limit that only the writes themselves find. */
static int limited_save(void)
{
    const struct rlimit limit = { 6000, RLIM_INFINITY };
    struct rlimit before;
    signal(SIGXFSZ, SIG_IGN);
    if (getrlimit(RLIMIT_FSIZE, &before) != 0 || setrlimit(RLIMIT_FSIZE, &limit) != 0) return 9;
    const f2b_status status = save(2);
    if (setrlimit(RLIMIT_FSIZE, &before) != 0) return 9;
    if (status != F2B_ERR_IO || !strstr(f2b_last_error(), "File too large")) return 8;
    if (access(in_temp("checkpoints/step-00000002.partial"), F_OK) == 0) return 7;
    return save(3) == F2B_OK ? 0 : 6;
}

static void file_size_limit(void **state)
{
    (void)state;
    assert_ok(save(1));
    const pid_t child = fork();         /* HDF5 leaks the cache of a file that it cannot write */
    if (child == 0) _exit(limited_save());
    int result;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_int_equal(result, 0);
    assert_int_equal(step_found(), 3);
}

/* The same for a single file: old or new contents, never a mixture, and ENOSPC is told. */
static void single_files(void **state)
{
    (void)state;
    const float old_values[2] = { 1, 2 }, new_values[2] = { 3, 4 };
    f2b_named_array t = { .name = "t", .dtype = F2B_F32, .ndim = 1, .shape = { 2 } };
    const char *path = in_temp("t.safetensors");
    int n = 0;
    for (f2b_status status = F2B_ERR_IO; status != F2B_OK; ++n) {
        t.data = old_values;
        assert_ok(f2b_safetensors_write(path, &t, 1, NULL, 0));
        t.data = new_values;
        mode = FAIL;
        calls_left = n;
        status = f2b_safetensors_write(path, &t, 1, NULL, 0);
        mode = PASS;
        if (status != F2B_OK) assert_failed(F2B_ERR_IO, "No space left", "");
        f2b_safetensors *file = f2b_safetensors_open(path);
        assert_non_null(file);
        const float first = *(const float *)f2b_safetensors_find(file, "t")->data;
        assert_true(first == 1 || first == 3);
        f2b_safetensors_close(file);
        char partial[300];
        snprintf(partial, sizeof partial, "%s" F2B_PARTIAL_SUFFIX, path);
        assert_int_equal(access(partial, F_OK), -1);
    }
    assert_in_range(n, 5, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        F2B_CKPT_TEST(killed_at_every_call), F2B_CKPT_TEST(killed_while_replacing_the_same_step),
        F2B_CKPT_TEST(full_disk_at_every_call), F2B_CKPT_TEST(file_size_limit),
        F2B_CKPT_TEST(single_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
