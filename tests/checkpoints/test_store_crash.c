/*
 * Writing a store that is killed, or that finds the disk full, at any call to the file system
 * (fault_calls.h), for every call until it comes through. After each: the shards written before are
 * there, nothing half-written is taken for whole, and going on gives the bytes of one go.
 */
#include "tests/checkpoints/store_fixture.h"
#include "tests/checkpoints/fault_calls.h"

enum { IMAGES = 11 };

static int disturbed_write(int how, int n)
{
    const int before = open_files();
    mode = how;
    calls_left = n;
    const f2b_status status = write_store(in_temp("s"), IMAGES);
    const bool reached = calls_left < 0;
    mode = PASS;
    if (status == F2B_OK) return reached ? 1 : 0;       /* 1: the failure was survived */
    if (how == FAIL && !strstr(f2b_last_error(), "No space left")) {
        fprintf(stderr, "call %d: %s\n", n, f2b_last_error());
        return 9;
    }
    /* Nothing must stay open, or the room of the failed write would not come back. */
    return open_files() == before ? 2 : 8;
}

static int run_child(int how, int n)
{
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(60);
        _exit(disturbed_write(how, n));
    }
    int result;
    assert_int_equal(waitpid(child, &result, 0), child);
    if (WIFSIGNALED(result)) return how == KILL && WTERMSIG(result) == SIGKILL ? 3 : 6;
    return WEXITSTATUS(result);
}

static void assert_same(const char *name)
{
    char a[40], b[40];
    snprintf(a, sizeof a, "whole/%s", name);
    snprintf(b, sizeof b, "s/%s", name);
    int64_t n, m;
    char *x = read_bytes(in_temp(a), &n), *y = read_bytes(in_temp(b), &m);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, (size_t)n);
    f2b_free(x);
    f2b_free(y);
}

/* Disturb the write at every call; how many images each disturbed store held goes to found. */
static int disturb_every_call(int how, int found[IMAGES + 1])
{
    int n = 0;
    assert_ok(write_store(in_temp("whole"), IMAGES));
    for (int result = -1; result != 0; ++n) {
        assert_ok(f2b_folder_remove(in_temp("s")));
        result = run_child(how, n);
        if (result > 3) fail_msg("call %d: the child ended with %d", n, result);
        if (access(in_temp("s/store.json"), F_OK) == 0)
            ++found[assert_store_is_sound(in_temp("s"))];
        assert_ok(write_store(in_temp("s"), IMAGES));
        assert_same("shard-00000.h5");
        assert_same("shard-00001.h5");
        assert_same("shard-00002.h5");
        assert_same("store.json");
    }
    return n;
}

static void killed_at_every_call(void **state)
{
    (void)state;
    int found[IMAGES + 1] = { 0 };
    const int n = disturb_every_call(KILL, found);
    print_message("%d calls; 0, 4, 8, 11 images were found %d, %d, %d, %d times\n", n, found[0],
                  found[4], found[8], found[11]);
    assert_in_range(n, 40, 400);
    assert_true(found[0] > 5 && found[4] > 5 && found[8] > 5 && found[11] > 0);
}

static void full_disk_at_every_call(void **state)
{
    (void)state;
    int found[IMAGES + 1] = { 0 };
    const int n = disturb_every_call(FAIL, found);
    assert_in_range(n, 40, 400);
    assert_true(found[0] > 5 && found[4] > 5 && found[8] > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        F2B_CKPT_TEST(killed_at_every_call),
        F2B_CKPT_TEST(full_disk_at_every_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
