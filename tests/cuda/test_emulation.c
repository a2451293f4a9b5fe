/*
 * The emulated device finds the mistakes it is there for (planted.h), and nothing in a right kernel.
 * What ends the program is tried in a child process.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "autograd/device/cuda/cuda_device.h"
#include "tests/cuda/planted.h"
#include "tests/emulation/emulation.h"

static const f2b_device cuda = { F2B_CUDA, 0 };
static float in[64], out[64];
static float *device_in, *device_out;

static int setup(void **state)
{
    (void)state;
    for (int i = 0; i < 64; i++) in[i] = (float)i + 1;
    device_in = f2b_alloc(cuda, sizeof in, F2B_TAG_OTHER);
    device_out = f2b_alloc(cuda, sizeof out, F2B_TAG_OTHER);
    assert_non_null(device_in);
    assert_non_null(device_out);
    assert_int_equal(f2b_copy(device_in, cuda, in, F2B_HOST, sizeof in), F2B_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    f2b_free(device_in);
    f2b_free(device_out);
    return 0;
}

static bool reverses(f2b_planted mistake)
{
    assert_int_equal(f2b_planted_reverse(mistake, device_out, device_in), cudaSuccess);
    assert_int_equal(f2b_copy(out, F2B_HOST, device_out, cuda, sizeof out), F2B_OK);
    for (int i = 0; i < 64; i++)
        if (!(out[i] == in[63 - i])) return false;
    return true;
}

static void races(void **state)
{
    (void)state;
    for (int order = 0; order < F2B_EMULATION_ORDERS; order++) {
        f2b_emulation_set_order((f2b_emulation_order)order, 11);
        assert_true(reverses(PLANTED_NOTHING));
        assert_false(reverses(PLANTED_MISSING_BARRIER));
        assert_false(reverses(PLANTED_UNSET_SHARED));
    }
}

static void refused_launches(void **state)
{
    (void)state;
    assert_int_equal(f2b_planted_reverse(PLANTED_NO_BLOCKS, device_out, device_in),
                     cudaErrorInvalidConfiguration);
    assert_int_equal(f2b_planted_reverse(PLANTED_TOO_MANY_THREADS, device_out, device_in),
                     cudaErrorInvalidConfiguration);
}

/* A result is not there before somebody waits for it. */
static void missing_wait(void **state)
{
    (void)state;
    float late[64] = { 0 };
    assert_int_equal(f2b_planted_reverse(PLANTED_NOTHING, device_out, device_in), cudaSuccess);
    assert_int_equal(cudaMemcpyAsync(late, device_out, sizeof late, cudaMemcpyDeviceToHost,
                                     f2bi_cuda_stream(0)), cudaSuccess);
    assert_true(late[0] == 0);
    assert_int_equal(f2b_device_wait(cuda), F2B_OK);
    assert_true(late[0] == 64);
}

/* ---- What ends the program ---- */

typedef void mistake_fn(void);

static void dies(mistake_fn *mistake, const char *words)
{
    int ends[2];
    char text[8192] = "";
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)dup2(ends[1], STDERR_FILENO);
        (void)signal(SIGABRT, SIG_DFL);     /* cmocka's would go on with its tests */
        (void)signal(SIGSEGV, SIG_DFL);
        mistake();
        _exit(0);
    }
    close(ends[1]);
    size_t used = 0;
    for (ssize_t n; used < sizeof text - 1 && (n = read(ends[0], text + used, sizeof text - 1 - used)) > 0;)
        used += (size_t)n;
    close(ends[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) fail_msg("nothing was found; wanted \"%s\"", words);
    if (strstr(text, words) == NULL) fail_msg("\"%s\" lacks \"%s\"", text, words);
}

static void run(f2b_planted mistake)
{
    (void)f2b_planted_reverse(mistake, device_out, device_in);
    if (f2b_device_wait(cuda) != F2B_OK) fprintf(stderr, "%s\n", f2b_last_error());
}
static void not_reached(void) { run(PLANTED_BARRIER_NOT_REACHED); }
static void two_barriers(void) { run(PLANTED_TWO_BARRIERS); }
static void without_lane(void) { run(PLANTED_SHUFFLE_WITHOUT_LANE); }
static void host_memory(void)
{
    (void)f2b_planted_reverse(PLANTED_NOTHING, device_out, in);
    if (f2b_device_wait(cuda) != F2B_OK) fprintf(stderr, "%s\n", f2b_last_error());
}
static void device_memory(void) { ((volatile float *)device_in)[0] = 1; }
#if defined(__SANITIZE_ADDRESS__)
static void out_of_bounds(void) { run(PLANTED_OUT_OF_BOUNDS); }
#endif

static void faults(void **state)
{
    (void)state;
    dies(not_reached, "reverse, block 0,0,0: a barrier that some threads never reach");
    dies(two_barriers, "threads wait at different barriers");
    dies(without_lane, "the mask names lane 5, which is not there");
    dies(host_memory, "argument 3 of reverse points into the host's memory");
    dies(device_memory, "");
#if defined(__SANITIZE_ADDRESS__)
    dies(out_of_bounds, "use-after-poison");
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(races), cmocka_unit_test(refused_launches), cmocka_unit_test(missing_wait),
        cmocka_unit_test(faults),
    };
    return cmocka_run_group_tests_name("emulation", tests, setup, teardown);
}
