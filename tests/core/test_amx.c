/* The AMX instructions one by one: shapes, strides, arithmetic, and what is refused. Without AMX this
 * checks the model (tests/support/amx_trap.h) against the manual, to the bit. On a processor with AMX it
 * checks the processor against the model; should its order of sums be another, that is said, and only the
 * error of rounding is limited: nothing of ours counts on the order. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "autograd/core/dtype.h"
#include "autograd/core/rng.h"
#include "autograd/device/cpu/products.h"
#include "tests/support/amx_trap.h"

#if defined(__x86_64__) && defined(__linux__)
#include <immintrin.h>
#define AMX __attribute__((target("amx-tile,amx-bf16")))
#define SEEN_ALL __asm__ volatile("" : : : "memory")

typedef struct shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} shapes;

enum { ROWS = F2B_TILE_ROWS, WORDS = F2B_TILE_WORDS };

/* Tile 0: sums, tile 1: A, tile 2: B. */
static shapes shapes_of(int rows, int pairs, int cols)
{
    return (shapes){ .palette = 1, .rows = { (uint8_t)rows, (uint8_t)rows, (uint8_t)pairs },
                     .bytes = { (uint16_t)(4 * cols), (uint16_t)(4 * pairs), (uint16_t)(4 * cols) } };
}

AMX static void product(const shapes *s, float c[][WORDS], const uint32_t a[][WORDS],
                        const uint32_t b[][WORDS])
{
    SEEN_ALL;
    _tile_loadconfig(s);
    _tile_loadd(0, c, 64);
    _tile_loadd(1, a, 64);
    _tile_stream_loadd(2, b, 64);
    _tile_dpbf16ps(0, 1, 2);
    _tile_stored(0, c, 64);
    _tile_release();
}

/* Pairs of values of any size, some of them subnormal, and the same in f32. */
static void draw(f2b_rng *r, uint32_t words[][WORDS], bool rough)
{
    for (int i = 0; i < ROWS * WORDS; i++) {
        uint32_t bits = (uint32_t)f2b_rng_below(r, 65536) << 16 | (uint32_t)f2b_rng_below(r, 65536);
        if (!rough) bits = (bits & 0x83FF83FFu) | 0x3C003C00u;      /* 2^-7 to 2 */
        else if ((bits >> 23 & 255) > 190 || (bits >> 7 & 255) > 190) bits = 0x00013F80u;
        words[i / WORDS][i % WORDS] = bits;
    }
}

/* The same bits; with a tolerance, on a processor, so near. */
static void same(float got, float want, float tolerance)
{
    if (memcmp(&got, &want, sizeof got) == 0) return;
    if (f2b_amx_is_trapped()) fail_msg("%.9g, not %.9g", (double)got, (double)want);
    print_message("this processor sums in another order than the manual: %.9g, not %.9g\n", (double)got,
                  (double)want);
    if (tolerance > 0) assert_true(fabsf(got - want) <= tolerance * (1 + fabsf(want)));
}

static void one_product(f2b_rng *r, int rows, int pairs, int cols, bool rough)
{
    uint32_t a[ROWS][WORDS], b[ROWS][WORDS];
    float c[ROWS][WORDS], want[ROWS][WORDS];
    draw(r, a, rough), draw(r, b, rough);
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < WORDS; j++) c[i][j] = f2b_rng_uniform(r) - 0.5f;
    if (rough) c[0][0] = 1e-40f;
    memcpy(want, c, sizeof c);
    f2b_amx_products(want, (const uint32_t (*)[WORDS])a, (const uint32_t (*)[WORDS])b, rows, pairs, cols);
    const shapes s = shapes_of(rows, pairs, cols);
    product(&s, c, (const uint32_t (*)[WORDS])a, (const uint32_t (*)[WORDS])b);
    for (int m = 0; m < ROWS; m++)
        for (int n = 0; n < WORDS; n++) {
            const bool inside = m < rows && n < cols;
            if (!rough && inside) assert_true(isfinite(c[m][n]));
            same(c[m][n], want[m][n], inside && !rough ? 1e-5f : 0);
        }
}

static void products(void **state)
{
    (void)state;
    f2b_amx_trap();
    f2b_rng r = f2b_rng_new(1, F2B_RNG_TEST, 1, 0, 0);
    for (int rough = 0; rough < 2; rough++) {
        one_product(&r, 16, 16, 16, rough);
        one_product(&r, 1, 16, 16, rough);
        one_product(&r, 16, 1, 16, rough);
        one_product(&r, 16, 16, 1, rough);
        one_product(&r, 5, 7, 11, rough);
    }
}

/* The order of sums: even and odd k each by itself from 0, together, then to the sum. Each line's
 * value would be another in any other order, or with a product that is rounded. */
static void order_of_sums(void **state)
{
    (void)state;
    f2b_amx_trap();
    static const struct { float c, a[6], b[6], want; } lines[] = {
        /* 2^24 + 1 is a tie and falls back to 2^24; even and odd apart: 1 + 1 + 2^24 holds both. */
        { 16777216, { 1, 1 }, { 1, 1 }, 16777218 },
        /* The even chain is 2^24 + 1 - 2^24 = 0, whatever the odd one adds. */
        { 0, { 16777216, 0, 1, 4, -16777216, 0 }, { 1, 0, 1, 1, 1, 0 }, 4 },
        /* Fused: (1 + 2^-7)^2 = 1 + 2^-6 + 2^-14 exactly, minus 2^-6, minus 1. */
        { 0, { 1.0078125f, 0, -0.015625f, 0, -1, 0 }, { 1.0078125f, 0, 1, 0, 1, 0 }, 0.00006103515625f },
        /* Subnormal operands, sums and results are 0. */
        { 1e-40f, { 1e-40f, 0 }, { 1, 0 }, 0 },
        { 0, { 1.5e-38f, -1.2e-38f }, { 1, 1 }, 0 },
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        float c[ROWS][WORDS] = { { lines[i].c } };
        uint32_t a[ROWS][WORDS] = { { 0 } }, b[ROWS][WORDS] = { { 0 } };
        for (int k = 0; k < 6; k++) {
            const int shift = k % 2 * 16;
            a[0][k / 2] |= (uint32_t)f2b_f32_to_bf16(lines[i].a[k]) << shift;
            b[k / 2][0] |= (uint32_t)f2b_f32_to_bf16(lines[i].b[k]) << shift;
        }
        const shapes s = shapes_of(1, 16, 1);
        product(&s, c, (const uint32_t (*)[WORDS])a, (const uint32_t (*)[WORDS])b);
        same(c[0][0], lines[i].want, 0);
    }
}

/* Rows apart, rows backwards, an index that is scaled, and tiles that are zeroed and given back. */
AMX static void strides_of(void)
{
    float from[40][32] = { { 0 } }, to[16][32] = { { 0 } };
    for (int i = 0; i < 40; i++)
        for (int j = 0; j < 32; j++) from[i][j] = (float)(32 * i + j);
    const shapes s = shapes_of(16, 3, 16);
    shapes got;
    memset(&got, 0xFF, sizeof got);
    SEEN_ALL;
    _tile_loadconfig(&s);
    __asm__ volatile("sttilecfg %0" : "=m"(got));
    assert_memory_equal(&got, &s, sizeof s);
    _tile_loadd(0, from[0] + 5, 256);
    _tile_stored(0, to, 128);
    for (int r = 0; r < 16; r++) {
        assert_memory_equal(to[r], from[2 * r] + 5, 64);
        for (int j = 16; j < 32; j++) assert_true(to[r][j] == 0);
    }
    _tile_loadd(0, from[39] + 16, -128);
    _tile_stored(0, to, 128);
    for (int r = 0; r < 16; r++) assert_memory_equal(to[r], from[39 - r] + 16, 64);
    __asm__ volatile("tileloadd 128(%0,%1,4), %%tmm2" : : "r"(from), "r"(32L) : "memory");
    __asm__ volatile("tilestored %%tmm2, (%0,%1,8)" : : "r"(to), "r"(16L) : "memory");
    for (int r = 0; r < 3; r++) assert_memory_equal(to[r], from[1 + r], 64);
    for (int r = 3; r < 16; r++) assert_memory_equal(to[r], from[39 - r] + 16, 64);
    _tile_zero(0);
    _tile_stored(0, to, 128);
    for (int r = 0; r < 16; r++)
        for (int j = 0; j < 16; j++) assert_true(to[r][j] == 0);
    _tile_release();
    __asm__ volatile("sttilecfg %0" : "=m"(got));
    for (size_t i = 0; i < sizeof got; i++) assert_int_equal(((unsigned char *)&got)[i], 0);
}

static void strides(void **state)
{
    (void)state;
    f2b_amx_trap();
    strides_of();
}

AMX static void misuse(int which)
{
    static float c[ROWS][WORDS];
    shapes s = shapes_of(16, 16, 16);
    if (which == 0) s.palette = 7;
    if (which == 1) s.rows[3] = 4;                          /* and no bytes */
    if (which == 2) s.rows[0] = 17;
    if (which == 3) s.reserved[5] = 1;
    if (which == 4) s.rows[2] = 15;                         /* A has 16 pairs */
    if (which == 5) s.bytes[0] = 60;
    if (which == 6) s.rows[1] = 15;
    SEEN_ALL;
    if (which != 7) _tile_loadconfig(&s);
    _tile_loadd(1, c, 64);
    if (which == 8) _tile_loadd(5, c, 64);                  /* not set up */
    if (which == 9) __asm__ volatile(".byte 0xC4, 0xE2, 0x6A, 0x5C, 0xC9");      /* tdpbf16ps 1, 1, 2 */
    if (which == 10) _tile_release();
    _tile_dpbf16ps(0, 1, 2);
    _tile_release();
}

/* Number 11 is right. */
static void refused(void **state)
{
    (void)state;
    f2b_amx_trap();
    for (int which = 0; which <= 11; which++) {
        const pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            fclose(stderr);
            misuse(which);
            _exit(0);
        }
        int how;
        assert_int_equal(waitpid(child, &how, 0), child);
        if (which == 11) assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
        else assert_true(!WIFEXITED(how) || WEXITSTATUS(how) != 0);
    }
}

int main(void)
{
    f2b_amx_trap();
    if (!f2b_amx_is_trapped() && !f2b_products_available(F2B_PRODUCTS_AMX_BF16)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products), cmocka_unit_test(order_of_sums), cmocka_unit_test(strides),
        cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void) { return 0; }
#endif
