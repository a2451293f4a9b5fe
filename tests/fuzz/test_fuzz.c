/*
 * Every reader on its kept corpus (tests/fuzz/corpus, found by coverage: scripts/fuzz.sh) and on
 * random damage to it, two seconds a format: no crash, no hang, no unbounded memory. The order of
 * inputs is fixed; only how far it goes depends on the clock.
 *
 * F2B_FUZZ_SECONDS=600 goes on so long with each format, F2B_FUZZ_FORMAT=tar takes one,
 * F2B_FUZZ_SEED=7 another order. An input that fails is written to fuzz-failure-FORMAT.
 */
#include <omp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "autograd/core/alloc.h"
#include "autograd/core/rng.h"
#include "tests/support/fuzz_formats.h"

enum { MAX_INPUTS = 4096, MAX_BYTES = 1 << 15, HANG_SECONDS = 20,
       WAIT_SECONDS = 240 };
#define MEMORY_LIMIT ((int64_t)1 << 30)

typedef struct input {
    uint8_t *bytes;
    size_t n;
} input;

static const f2b_fuzz_format *format;   /* what runs now, for the report of a failure */
static input now;

static void save_input(void)
{
    char name[64];
    if (now.bytes == NULL) return;
    snprintf(name, sizeof name, "fuzz-failure-%s", format->name);
    FILE *file = fopen(name, "wb");
    if (file == NULL) return;
    fwrite(now.bytes, 1, now.n, file);
    fclose(file);
    fprintf(stderr, "fuzz: the input is in %s\n", name);
}

static void on_signal(int number)
{
    if (number == SIGPROF) fprintf(stderr, "fuzz: an input took %d seconds of work\n", HANG_SECONDS);
    if (number == SIGALRM) fprintf(stderr, "fuzz: an input waited %d seconds\n", WAIT_SECONDS);
    save_input();
    _exit(1);
}

/* The sanitizers' own way to die. */
extern void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static int64_t resident_peak(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (int64_t)usage.ru_maxrss * 1024;
}

/* A hang is told by the processor's time, which other work on the machine does not count in; one that
 * waits for something by the clock. 0: off. */
static void limit_time(int work, int wait)
{
    const struct itimerval timer = { .it_value = { .tv_sec = work } };
    (void)setitimer(ITIMER_PROF, &timer, NULL);
    alarm((unsigned)wait);
}

/* The copy has just its size, so that reading on is found. */
static void read_one(const uint8_t *bytes, size_t n)
{
    const int64_t before = resident_peak();
    now = (input){ malloc(n > 0 ? n : 1), n };
    memcpy(now.bytes, bytes, n);
    f2b_bytes_peak_reset();
    const int64_t in_use = f2b_bytes_in_use(F2B_TAG_COUNT);
    limit_time(HANG_SECONDS, WAIT_SECONDS);
    format->read(now.bytes, n);
    limit_time(0, 0);
    const bool small = f2b_bytes_peak(F2B_TAG_COUNT) < MEMORY_LIMIT &&
                       resident_peak() - before < MEMORY_LIMIT;
    if (!small || f2b_bytes_in_use(F2B_TAG_COUNT) != in_use) {
        save_input();
        fail_msg("%s: %s", format->name, small ? "memory is left behind" : "too much memory");
    }
    free(now.bytes);
    now.bytes = NULL;
}

/* The members of tests/fuzz/corpus/FORMAT.tar. */
static int load_corpus(input *inputs)
{
    char path[128], header[512];
    snprintf(path, sizeof path, "tests/fuzz/corpus/%s.tar", format->name);
    FILE *file = fopen(path, "rb");
    if (file == NULL) fail_msg("%s is not there", path);
    int n = 0;
    while (fread(header, 1, 512, file) == 512 && header[0] != '\0') {
        assert_true(n < MAX_INPUTS);
        const size_t size = strtoul(header + 124, NULL, 8);
        assert_true(header[156] == '0' && size <= MAX_BYTES);
        inputs[n] = (input){ malloc(size + 1), size };
        assert_int_equal(fread(inputs[n].bytes, 1, size, file), size);
        fseek(file, (long)(-size & 511), SEEK_CUR);
        n++;
    }
    fclose(file);
    assert_true(n > 0);
    return n;
}

/* ---- Damage ---- */

static size_t below(f2b_rng *rng, size_t n) { return (size_t)f2b_rng_below(rng, (uint64_t)n); }

/* Put `size` bytes in the place of `cut` at `at`; too much is left out. */
static size_t replace(uint8_t *bytes, size_t n, size_t at, size_t cut, const void *with,
                      size_t size)
{
    if (at + cut > n || n - cut + size > MAX_BYTES) return n;
    memmove(bytes + at + size, bytes + at + cut, n - at - cut);
    memcpy(bytes + at, with, size);
    return n - cut + size;
}

static size_t damage_once(f2b_rng *rng, uint8_t *bytes, size_t n, const input *other)
{
    static const uint64_t numbers[] = { 0, 1, 0x7f, 0xff, 0x7fffffff, 0xffffffff, INT64_MAX,
                                        UINT64_MAX, 0x80000000, 0xffff };
    const size_t at = below(rng, n + 1), left = n - at;
    static uint8_t piece[MAX_BYTES];
    size_t size;
    switch (below(rng, 8)) {
    case 0: return at;                                      /* cut off */
    case 1: return replace(bytes, n, at, below(rng, left + 1), "", 0);
    case 2:                                                 /* again */
        size = below(rng, left + 1);
        memcpy(piece, bytes + at, size);
        return replace(bytes, n, at, 0, piece, size);
    case 3: {                                               /* a number of 1, 2, 4, 8 bytes */
        const uint64_t value = numbers[below(rng, sizeof numbers / sizeof *numbers)];
        size = (size_t)1 << below(rng, 4);
        return replace(bytes, n, at, size < left ? size : left, &value, size);
    }
    case 4:
    case 5: {                                               /* a word of the format */
        int words = 0;
        while (format->words[words] != NULL) words++;
        const char *word = format->words[below(rng, (size_t)words)];
        size = strlen(word);
        const bool over = below(rng, 2) == 0;
        return replace(bytes, n, at, over ? size < left ? size : left : 0, word, size);
    }
    case 6:                                                 /* the end of another input */
        if (other->n == 0) return n;
        size = below(rng, other->n);
        return replace(bytes, n, at, left, other->bytes + size, other->n - size);
    default:
        if (left > 0) bytes[at] = (uint8_t)f2b_rng_u32(rng);
        return n;
    }
}

static void run_format(const f2b_fuzz_format *which)
{
    static input inputs[MAX_INPUTS];
    const char *seconds = getenv("F2B_FUZZ_SECONDS"), *seed = getenv("F2B_FUZZ_SEED");
    const double limit = seconds != NULL ? strtod(seconds, NULL) : 2;
    format = which;
    const int n = load_corpus(inputs);
    for (int i = 0; i < n; i++) read_one(inputs[i].bytes, inputs[i].n);
    f2b_rng rng = f2b_rng_new(seed != NULL ? strtoull(seed, NULL, 10) : 1, F2B_RNG_TEST,
                              f2b_hash_text(format->name), 0, 0);
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    int64_t rounds = 0;
    do {
        static uint8_t bytes[MAX_BYTES];
        const input *base = &inputs[below(&rng, (size_t)n)];
        size_t size = base->n;
        memcpy(bytes, base->bytes, size);
        for (size_t times = 1 + below(&rng, 5); times > 0; times--)
            size = damage_once(&rng, bytes, size, &inputs[below(&rng, (size_t)n)]);
        read_one(bytes, size);
        rounds++;
        clock_gettime(CLOCK_MONOTONIC, &to);
    } while (difftime(to.tv_sec, from.tv_sec) < limit);
    print_message("%s: %d inputs kept, %lld damaged\n", format->name, n, (long long)rounds);
    for (int i = 0; i < n; i++) free(inputs[i].bytes);
}

static void corpus_and_damage(void **state)
{
    (void)state;
    const char *only = getenv("F2B_FUZZ_FORMAT");
    if (only != NULL && f2b_fuzz_find(only) == NULL) fail_msg("there is no format %s", only);
    for (int i = 0; i < f2b_fuzz_n_formats; i++)
        if (only == NULL || strcmp(only, f2b_fuzz_formats[i].name) == 0)
            run_format(&f2b_fuzz_formats[i]);
}

/* Deep nesting and long runs must cost neither the stack nor unbounded time. */
static void extremes(void **state)
{
    (void)state;
    static const struct {
        const char *format;
        char first, last;
        const char *start, *end;
    } cases[] = {
        { "llava", '[', '[', "", "" },          { "llava", '[', ']', "", "" },
        { "llava", '\\', '\\', "[\"", "" },     { "llava", ',', ',', "[", "]" },
        { "llava", '{', '{', "[", "" },         { "coco", '[', ']', "{\"images\": ", "}" },
        { "coco", '9', '9', "{\"x\": ", "}" },  { "tsv", '\t', '\t', "", "" },
        { "tsv", '\n', '\n', "", "" },          { "tsv", 'x', 'x', "", "\ta.jpg\n" },
        { "config", '[', ']', "model: ", "" },  { "config", '{', '{', "", "" },
        { "config", '-', '-', "a: ", "" },      { "method", '[', ']', "", "" },
        { "model", '[', ']', "{\"a\": ", "}" }, { "image", ' ', '1', "P2 3 3 9 ", "" },
        { "image", '#', '#', "P2 ", "\n" },     { "tokenizer", '\n', '\n', "", "" },
        { "tar", '0', '0', "", "" },            { "gguf", '\xff', '\xff', "GGUF\3", "" },
        { "safetensors", '[', ']', "\x00\x00\x08", "" },
    };
    const size_t n = 1 << 19;
    uint8_t *bytes = malloc(n);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        memset(bytes, cases[i].first, n / 2);
        memset(bytes + n / 2, cases[i].last, n / 2);
        memcpy(bytes, cases[i].start, strlen(cases[i].start));
        memcpy(bytes + n - strlen(cases[i].end), cases[i].end, strlen(cases[i].end));
        format = f2b_fuzz_find(cases[i].format);
        read_one(bytes, n);
    }
    free(bytes);
}

int main(void)
{
    signal(SIGALRM, on_signal);
    signal(SIGPROF, on_signal);
    signal(SIGABRT, on_signal);
    if (__sanitizer_set_death_callback != NULL) __sanitizer_set_death_callback(save_input);
    atexit(f2b_fuzz_end);
    omp_set_num_threads(1);             /* files so small that threads only wait for each other */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(corpus_and_damage), cmocka_unit_test(extremes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
