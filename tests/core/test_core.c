/* Status texts, allocator accounting, and Philox against the published vectors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "autograd/core/alloc.h"
#include "autograd/core/rng.h"
#include "autograd/core/status.h"
#include "autograd/device/device_memory.h"

static void status_keeps_text_and_context(void **state)
{
    (void)state;
    assert_int_equal(f2b_fail(F2B_ERR_IO, "read %d", 7), F2B_ERR_IO);
    assert_int_equal(f2b_fail_context("%s", "a.json"), F2B_ERR_IO);
    assert_string_equal(f2b_last_error(), "a.json: read 7");
    f2b_clear_error();
    assert_int_equal(f2b_last_status(), F2B_OK);
}

static void allocator_counts_by_tag(void **state)
{
    (void)state;
    const int64_t before = f2b_bytes_in_use(F2B_TAG_DATA);
    char *block = f2b_alloc_host(100000, F2B_TAG_DATA);
    assert_non_null(block);
    assert_int_equal((uintptr_t)block % 64, 0);
    assert_int_equal(f2b_bytes_in_use(F2B_TAG_DATA), before + 100000);
    block = f2b_realloc(block, 300000, F2B_TAG_DATA);
    assert_int_equal(f2b_bytes_in_use(F2B_TAG_DATA), before + 300000);
    f2b_free(block);
    assert_int_equal(f2b_bytes_in_use(F2B_TAG_DATA), before);
    assert_true(f2b_bytes_peak(F2B_TAG_DATA) >= before + 300000);
    assert_null(f2b_calloc(SIZE_MAX / 2, 4, F2B_TAG_DATA));
    assert_int_equal(f2b_last_status(), F2B_ERR_MEMORY);
}

/* Resident bytes of the process. */
static int64_t resident(void)
{
    long long pages = 0, all = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%lld %lld", &all, &pages), 2);
    fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

/* Freed blocks wait for their size to come again, but few beside others: at a peak a sixteenth is kept. */
static void kept_blocks_give_way(void **state)
{
    (void)state;
    if (!F2BI_KEEP_BLOCKS) skip();
    const size_t MiB = (size_t)1 << 20, small = 8 * MiB, large = 100 * MiB;
    const int64_t before = resident();
    char *blocks[10];
    for (int i = 0; i < 10; i++) memset(blocks[i] = f2b_alloc_host(small, F2B_TAG_SCRATCH), 1, small);
    const uintptr_t place = (uintptr_t)blocks[9];
    for (int i = 0; i < 10; i++) f2b_free(blocks[i]);
    char *again = f2b_alloc_host(small, F2B_TAG_SCRATCH);       /* the last one that was freed */
    assert_true((uintptr_t)again == place);
    f2b_free(again);
    char *block = f2b_alloc_host(large, F2B_TAG_SCRATCH);
    assert_non_null(block);
    memset(block, 1, large);
    assert_true(resident() - before < (int64_t)(large + large / 16 + large / 20));
    f2b_free(block);
    f2b_alloc_trim();
    assert_true(resident() - before < (int64_t)(4 * MiB));
}

/* At a peak a block of another size takes the pages of a kept one, with what was in them: the system has none
 * to clear. What is in use stays as it is. */
static void other_sizes_take_the_pages(void **state)
{
    (void)state;
    if (!F2BI_KEEP_BLOCKS) skip();
    enum { TURNS = 8 };
    const size_t MiB = (size_t)1 << 20;
    const size_t sizes[TURNS] = { 24 * MiB, 40 * MiB + 5, 48 * MiB, 36 * MiB,
                                  20 * MiB, 44 * MiB,     30 * MiB, 40 * MiB };
    f2b_alloc_trim();
    unsigned char *other = f2b_alloc_host(9 * MiB, F2B_TAG_SCRATCH);
    memset(other, 7, 9 * MiB);
    f2b_bytes_peak_reset();
    for (int i = 0; i < TURNS; i++) {
        unsigned char *block = f2b_alloc_host(sizes[i], F2B_TAG_SCRATCH);
        assert_non_null(block);
        assert_int_equal((uintptr_t)block % 64, 0);
        const size_t had = i == 0 ? 0 : sizes[i - 1] < sizes[i] ? sizes[i - 1] : sizes[i];
        for (size_t at = 0; at + 2 * MiB < had; at += MiB / 2) assert_int_equal(block[at], i);
        memset(block, i + 1, sizes[i]);
        f2b_free(block);
    }
    for (size_t at = 0; at < 9 * MiB; at++) assert_int_equal(other[at], 7);
    f2b_free(other);
    f2b_alloc_trim();
}

/* Blocks of many sizes come and go, so that pages are moved, split and given back: what is in use keeps its bytes, and
 * no more is resident than at the peak. */
static void pages_that_wander_lose_nothing(void **state)
{
    (void)state;
    enum { SLOTS = 24, TURNS = 3000 };
    const size_t MiB = (size_t)1 << 20, most = 120 * MiB;
    struct { unsigned char *at; size_t bytes; unsigned char mark; } slot[SLOTS] = { 0 };
    f2b_rng r = f2b_rng_new(11, F2B_RNG_TEST, 0, 0, 0);
    f2b_alloc_trim();
    f2b_bytes_peak_reset();
    const int64_t before = resident();
    size_t used = 0;
    for (int turn = 0; turn < TURNS; turn++) {
        const int i = (int)f2b_rng_below(&r, SLOTS);
        for (size_t at = 0; at < slot[i].bytes; at += 4096) assert_int_equal(slot[i].at[at], slot[i].mark);
        if (slot[i].at != NULL) assert_int_equal(slot[i].at[slot[i].bytes - 1], slot[i].mark);
        f2b_free(slot[i].at);
        used -= slot[i].bytes;
        slot[i].at = NULL, slot[i].bytes = 0;
        const size_t bytes = MiB + (size_t)f2b_rng_below(&r, MiB << f2b_rng_below(&r, 6));
        if (used + bytes > most) continue;
        slot[i].at = f2b_alloc_host(bytes, F2B_TAG_SCRATCH);
        assert_non_null(slot[i].at);
        slot[i].bytes = bytes, slot[i].mark = (unsigned char)turn;
        memset(slot[i].at, slot[i].mark, bytes);
        used += bytes;
        if (F2BI_KEEP_BLOCKS && turn % 100 == 0) assert_true(resident() - before < (int64_t)(most + most / 4));
    }
    for (int i = 0; i < SLOTS; i++) f2b_free(slot[i].at);
    f2b_alloc_trim();
    if (F2BI_KEEP_BLOCKS) assert_true(resident() - before < (int64_t)(8 * MiB));
}

/* Random123's kat_vectors for philox4x32 with 10 rounds. */
static void philox_known_answers(void **state)
{
    (void)state;
    uint32_t out[4];
    f2b_philox((uint32_t[]){ 0, 0, 0, 0 }, (uint32_t[]){ 0, 0 }, out);
    assert_int_equal(out[0], 0x6627e8d5u);
    assert_int_equal(out[1], 0xe169c58du);
    assert_int_equal(out[2], 0xbc57ac4cu);
    assert_int_equal(out[3], 0x9b00dbd8u);
    f2b_philox((uint32_t[]){ 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 },
               (uint32_t[]){ 0xa4093822, 0x299f31d0 }, out);
    assert_int_equal(out[0], 0xd16cfe09u);
    assert_int_equal(out[1], 0x94fdcceb);
    assert_int_equal(out[2], 0x5001e420u);
    assert_int_equal(out[3], 0x24126ea1u);
}

static void streams_differ_and_repeat(void **state)
{
    (void)state;
    f2b_rng a = f2b_rng_new(1, F2B_RNG_TEST, 2, 3, 4), b = f2b_rng_new(1, F2B_RNG_TEST, 2, 3, 5);
    f2b_rng again = f2b_rng_new(1, F2B_RNG_TEST, 2, 3, 4);
    int equal = 0;
    for (int i = 0; i < 64; i++) {
        const uint32_t x = f2b_rng_u32(&a);
        equal += x == f2b_rng_u32(&b);
        assert_int_equal(x, f2b_rng_at(&again, (uint64_t)i));
    }
    assert_true(equal < 2);
    int seen[5] = { 0 };
    for (int i = 0; i < 1000; i++) seen[f2b_rng_below(&a, 5)]++;
    for (int i = 0; i < 5; i++) assert_in_range(seen[i], 120, 280);
}

static void a_ledger_counts_apart(void **state)
{
    (void)state;
    const int64_t before = f2b_bytes_in_use(F2B_TAG_COUNT);
    f2b_ledger ledger = { 0 };
    assert_null(f2b_ledger_use(&ledger));
    char *real = f2b_alloc_host(1000, F2B_TAG_SCRATCH);
    char *counted = f2b_alloc_counted(F2B_HOST, (size_t)1 << 50, F2B_TAG_ACTIVATIONS);
    char *there = f2b_alloc_counted((f2b_device){ F2B_CUDA, 0 }, 4096, F2B_TAG_CACHE);
    assert_true(f2b_ledger_use(NULL) == &ledger);
    assert_non_null(real);
    assert_non_null(counted);
    for (int i = 0; i < 64; i++) assert_int_equal(counted[i], 0);
    assert_int_equal(f2b_bytes_in_use(F2B_TAG_COUNT), before);
    assert_int_equal(ledger.all.in_use[F2B_TAG_ACTIVATIONS], (int64_t)1 << 50);
    assert_int_equal(ledger.all.in_use[F2B_TAG_COUNT], ((int64_t)1 << 50) + 5096);
    assert_int_equal(ledger.of[F2B_CUDA].in_use[F2B_TAG_COUNT], 4096);
    assert_int_equal(ledger.of[F2B_CPU].in_use[F2B_TAG_CACHE], 0);
    f2b_free(there);
    f2b_free(counted);          /* whoever frees it, and whenever */
    f2b_free(real);
    assert_int_equal(ledger.all.in_use[F2B_TAG_COUNT], 0);
    assert_int_equal(ledger.all.peak[F2B_TAG_SCRATCH], 1000);
    assert_null(f2b_alloc_counted(F2B_HOST, SIZE_MAX, F2B_TAG_SCRATCH));
    assert_int_equal(f2b_bytes_in_use(F2B_TAG_COUNT), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_keeps_text_and_context), cmocka_unit_test(allocator_counts_by_tag),
        cmocka_unit_test(a_ledger_counts_apart), cmocka_unit_test(kept_blocks_give_way),
        cmocka_unit_test(other_sizes_take_the_pages), cmocka_unit_test(pages_that_wander_lose_nothing),
        cmocka_unit_test(philox_known_answers), cmocka_unit_test(streams_differ_and_repeat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
