/*
 * The instructions of tensor_core.cuh against plain loops over the layouts that the PTX ISA gives,
 * written down here a second time; under emulation also what it finds when they are misused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "autograd/core/dtype.h"
#include "autograd/device/device.h"
#include "tests/cuda/matrices.h"
#include "tests/emulation/emulation.h"

void f2b_emulation_set_order(f2b_emulation_order order, uint64_t seed) F2B_WEAK;

enum { LANES = 32 };
static const f2b_device cuda = { F2B_CUDA, 0 };
static bool device_is_there;

static void *on_device(const void *host, size_t bytes)
{
    void *x = f2b_alloc(cuda, bytes, F2B_TAG_OTHER);
    assert_non_null(x);
    assert_int_equal(f2b_copy(x, cuda, host, F2B_HOST, bytes), F2B_OK);
    return x;
}

static void back(void *host, void *x, size_t bytes)
{
    if (f2b_copy(host, F2B_HOST, x, cuda, bytes) != F2B_OK) fail_msg("%s", f2b_last_error());
    f2b_free(x);
}

static int setup(void **state)
{
    (void)state;
    device_is_there = f2b_device_open(cuda) == F2B_OK;
    if (!device_is_there) print_message("there is no CUDA device here\n");
    return 0;
}

static uint32_t pair(float low, float high)
{
    return (uint32_t)f2b_f32_to_bf16(low) | (uint32_t)f2b_f32_to_bf16(high) << 16;
}

/* Small whole numbers: every order of the sum gives the same. */
static void multiply(void **state)
{
    (void)state;
    if (!device_is_there) skip();
    float a[16][16], b[16][8], c[16][8], got[LANES][4];
    uint32_t ra[LANES][4], rb[LANES][2];
    for (int i = 0; i < 16; i++) {
        for (int k = 0; k < 16; k++) a[i][k] = (float)((i * 7 + k * 5) % 13 - 6);
        for (int j = 0; j < 8; j++) {
            b[i][j] = (float)((i * 3 + j * 11) % 17 - 8);
            c[i][j] = (float)(i * 8 + j);
        }
    }
    for (int l = 0; l < LANES; l++) {
        const int g = l / 4, t = l % 4 * 2;
        ra[l][0] = pair(a[g][t], a[g][t + 1]), ra[l][1] = pair(a[g + 8][t], a[g + 8][t + 1]);
        ra[l][2] = pair(a[g][t + 8], a[g][t + 9]), ra[l][3] = pair(a[g + 8][t + 8], a[g + 8][t + 9]);
        rb[l][0] = pair(b[t][g], b[t + 1][g]), rb[l][1] = pair(b[t + 8][g], b[t + 9][g]);
        got[l][0] = c[g][t], got[l][1] = c[g][t + 1], got[l][2] = c[g + 8][t], got[l][3] = c[g + 8][t + 1];
    }
    void *da = on_device(ra, sizeof ra), *db = on_device(rb, sizeof rb), *dc = on_device(got, sizeof got);
    assert_int_equal(f2b_matrices_multiply(dc, da, db), 0);
    back(got, dc, sizeof got), f2b_free(da), f2b_free(db);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            float want = c[i][j];
            for (int k = 0; k < 16; k++) want += a[i][k] * b[k][j];
            assert_true(got[i % 8 * 4 + j / 2][i / 8 * 2 + j % 2] == want);
        }
}

static void load(void **state)
{
    (void)state;
    if (!device_is_there) skip();
    uint16_t x[4][8][8];
    uint32_t r[LANES][4], turned[LANES][4];
    for (int i = 0; i < 256; i++) x[i / 64][i / 8 % 8][i % 8] = (uint16_t)(i + 1);
    for (int missing = 0; missing <= 11; missing += 11) {
        void *dx = on_device(x, sizeof x), *dr = on_device(r, sizeof r), *dt = on_device(r, sizeof r);
        assert_int_equal(f2b_matrices_load(dr, dt, dx, missing), 0);
        back(r, dr, sizeof r), back(turned, dt, sizeof turned), f2b_free(dx);
        for (int i = 0; i < 256; i++) {
            const int m = i / 64, row = i / 8 % 8, col = i % 8;
            const uint32_t want = m * 8 + row < 32 - missing ? x[m][row][col] : 0;
            assert_int_equal(r[row * 4 + col / 2][m] >> (16 * (col % 2)) & 0xFFFF, want);
            assert_int_equal(turned[col * 4 + row / 2][m] >> (16 * (row % 2)) & 0xFFFF, want);
        }
    }
}

static void numbers(void **state)
{
    (void)state;
    if (!device_is_there) skip();
    float x[LANES], y[LANES], words[LANES];
    uint32_t pairs[LANES];
    for (int l = 0; l < LANES; l++) x[l] = (float)(l - 20) * 1.37f;
    x[0] = -INFINITY;
    void *dx = on_device(x, sizeof x), *dy = on_device(x, sizeof y), *dp = on_device(x, sizeof x);
    void *dw = on_device(y, sizeof words);
    assert_int_equal(f2b_matrices_numbers(dy, dp, dw, dx), 0);
    back(y, dy, sizeof y), back(pairs, dp, sizeof pairs), back(words, dw, sizeof words), f2b_free(dx);
    for (int l = 0; l < LANES; l++) {
        assert_true(fabs(y[l] - exp2(x[l])) <= ldexp(exp2(x[l]), -22));
        assert_int_equal(pairs[l], pair(x[l], 2 * x[l]));
        assert_true(words[l] == x[l]);
    }
}

/* ---- Misuse ---- */

static float out[LANES];
static void *device_out, *device_x;

/* What a child process says on stderr that makes the mistake. */
static void expect(f2b_matrices_mistake mistake, const char *words)
{
    int ends[2];
    char text[4096] = "";
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)dup2(ends[1], STDERR_FILENO);
        (void)signal(SIGABRT, SIG_DFL);
        (void)f2b_matrices_wrong(mistake, device_out, device_x);
        _exit(f2b_device_wait(cuda) == F2B_OK ? 0 : 1);
    }
    close(ends[1]);
    size_t used = 0;
    for (ssize_t n; used < sizeof text - 1 && (n = read(ends[0], text + used, sizeof text - 1 - used)) > 0;)
        used += (size_t)n;
    close(ends[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFSIGNALED(status) || strstr(text, words) == NULL)
        fail_msg("mistake %d: \"%s\" lacks \"%s\"", (int)mistake, text, words);
}

static void misuse(void **state)
{
    (void)state;
    if (f2b_emulation_set_order == NULL) skip();
    float x[LANES];
    for (int l = 0; l < LANES; l++) x[l] = (float)l;
    device_x = on_device(x, sizeof x), device_out = on_device(out, sizeof out);
    expect(MATRICES_LANE_MISSING, "the mask names lane 9, which is not there");
    expect(MATRICES_TWO_PLACES, "a warp exchange that some of its lanes never reach");
    expect(MATRICES_BEYOND_SHARED, "16 bytes at 128 of shared memory, of which there are 128");
    expect(MATRICES_ODD_ADDRESS, "16 bytes at 8 of shared memory");
    expect(MATRICES_NEVER_WAITED, "ends without waiting for its copy");
    assert_int_equal(f2b_matrices_wrong(MATRICES_READ_TOO_EARLY, device_out, device_x), 0);
    back(out, device_out, sizeof out);
    f2b_free(device_x);
    for (int l = 0; l < LANES; l++) assert_true(isnan(out[l]));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(multiply), cmocka_unit_test(load),
                                        cmocka_unit_test(numbers), cmocka_unit_test(misuse) };
    return cmocka_run_group_tests_name("tensor cores", tests, setup, NULL);
}
