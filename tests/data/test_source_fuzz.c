/*
 * Damaged files of every format: truncations and flipped bytes. No crash, no hang; only statuses.
 * F2B_FUZZ_SECONDS=600 goes on so long with each format, with other damage each time.
 */
#include <time.h>

#include "tests/data/data_fixtures.h"

#include "autograd/core/rng.h"
#include "data/source/source.h"

/* Whether a format gets another round; without the variable, a fixed number of rounds. */
static bool again(int round, time_t begin)
{
    const char *seconds = getenv("F2B_FUZZ_SECONDS");
    return seconds == NULL ? round < 250 : time(NULL) - begin < strtol(seconds, NULL, 10);
}

/* Open, read all records and their images; whatever comes out must be a status or a fault. */
static void drive(f2b_source_role role, const char *path)
{
    const f2b_source_options o = { .role = role, .name = "fuzz[0]", .path = path };
    f2b_source *s = f2b_source_open(&o);
    if (s == NULL) {
        assert_int_not_equal(f2b_last_status(), F2B_OK);
        assert_int_not_equal(f2b_last_status(), F2B_ERR_MEMORY);
        return;
    }
    f2b_record r = { 0 };
    for (int64_t i = 0; i < f2b_source_count(s); i++) {
        assert_int_equal(f2b_source_read(s, i, &r), F2B_OK);
        (void)f2b_source_image_key(s, i);
        (void)f2b_source_stem_key(s, i);
        if (r.fault != F2B_FAULT_NONE || r.image == NULL ||
            role == F2B_SOURCE_CONVERSATION_CAPTIONS)
            continue;
        uint8_t *bytes;
        int64_t n;
        assert_int_equal(f2b_source_image(s, &r, &bytes, &n), F2B_OK);
        f2b_free(bytes);
    }
    f2b_record_clear(&r);
    f2b_source_free(s);
}

static void damage(f2b_source_role role, const char *name, const char *bytes, size_t n,
                   uint64_t seed)
{
    f2b_rng rng = f2b_rng_new(seed, F2B_RNG_TEST, 1, 2, 3);
    char *copy = malloc(n + 16);
    const time_t begin = time(NULL);
    for (int round = 0; again(round, begin); round++) {
        size_t m = n;
        memcpy(copy, bytes, n);
        if (round % 3 == 0) m = (size_t)f2b_rng_below(&rng, n + 1);
        for (int flips = (int)f2b_rng_below(&rng, 5); flips > 0 && m > 0; flips--) {
            const size_t at = (size_t)f2b_rng_below(&rng, m);
            static const char special[] = "{}[]\",:\\\t\n\0\x80\xff 0";
            copy[at] = f2b_rng_below(&rng, 2) ? (char)f2b_rng_u32(&rng)
                                              : special[f2b_rng_below(&rng, sizeof special - 1)];
        }
        drive(role, fixture_write(name, copy, m));
    }
    free(copy);
}

static const char llava[] =
    "[{\"id\": \"1\", \"image\": \"a.jpg\", \"conversations\": [{\"from\": \"human\", \"value\": "
    "\"<image>\\nWhat \\u00e9?\"}, {\"from\": \"gpt\", \"value\": \"That.\"}]},\n {\"id\": 2, "
    "\"conversations\": [{\"from\": \"human\", \"value\": \"x\"}, {\"from\": \"gpt\", \"value\": "
    "\"y\"}]}]";
static const char coco[] =
    "{\"info\": {\"year\": 2017}, \"images\": [{\"id\": 1, \"file_name\": \"a.jpg\"}, {\"id\": 2, "
    "\"file_name\": \"b.jpg\"}], \"annotations\": [{\"id\": 9, \"image_id\": 2, \"caption\": "
    "\"two\"}, "
    "{\"id\": 8, \"image_id\": 1, \"caption\": \"one\"}]}";
static const char tsv[] = "one cat\ta.jpg\ntwo dogs\tb.jpg\r\n\xc3\xa9 three\ta.jpg\n";

static void json_and_rows(void **state)
{
    (void)state;
    fixture_text("a.jpg", "image");
    damage(F2B_SOURCE_CONVERSATIONS, "f1.json", llava, sizeof llava - 1, 1);
    damage(F2B_SOURCE_CAPTIONS, "f2.json", llava, sizeof llava - 1, 2);
    damage(F2B_SOURCE_CAPTIONS, "f3.json", coco, sizeof coco - 1, 3);
    damage(F2B_SOURCE_CONVERSATION_CAPTIONS, "f4.json", coco, sizeof coco - 1, 4);
    damage(F2B_SOURCE_CAPTIONS, "f5.tsv", tsv, sizeof tsv - 1, 5);
}

static void archives(void **state)
{
    (void)state;
    static fixture_tar tar;
    tar_pax(&tar, "path", "a/long/name.jpg", 'x');
    tar_add(&tar, "1.jpg", "image", '0');
    tar_add(&tar, "@LongLink", "a/long/name.txt", 'L');
    tar_add(&tar, "1.txt", "caption", '0');
    tar_add(&tar, "2.jpg", "image", '0');
    tar_add(&tar, "2.json", "{\"caption\": \"c\"}", '0');
    damage(F2B_SOURCE_CAPTIONS, "f.tar", tar.bytes, tar.n + 1024, 6);
    /* With checksums made right again, so that what lies behind them is reached. */
    f2b_rng rng = f2b_rng_new(7, F2B_RNG_TEST, 1, 2, 3);
    static fixture_tar copy;
    const time_t begin = time(NULL);
    for (int round = 0; again(round, begin); round++) {
        copy = tar;
        for (int flips = 0; flips < 3; flips++) {
            const size_t block = (size_t)f2b_rng_below(&rng, tar.n / 512) * 512;
            copy.bytes[block + f2b_rng_below(&rng, 512)] = (char)f2b_rng_u32(&rng);
            copy.bytes[block + 124 + f2b_rng_below(&rng, 33)] =
                "01234567xgLK0\x80\xff"[f2b_rng_below(&rng, 15)];
            tar_seal(copy.bytes + block);
        }
        drive(F2B_SOURCE_CAPTIONS, tar_write(&copy, "s.tar"));
    }
}

/* Deep nesting and long runs must cost neither the stack nor unbounded time. */
static void extremes(void **state)
{
    (void)state;
    const size_t n = 1 << 20;
    char *text = malloc(n + 2);
    memset(text, '[', n);
    drive(F2B_SOURCE_CONVERSATIONS, fixture_write("deep.json", text, n));
    memset(text + n / 2, ']', n / 2);
    drive(F2B_SOURCE_CONVERSATIONS, fixture_write("balanced.json", text, n));
    memset(text, '\\', n);
    text[0] = '[', text[1] = '"';
    drive(F2B_SOURCE_CONVERSATIONS, fixture_write("slashes.json", text, n));
    memset(text, ',', n);
    text[0] = '[', text[n - 1] = ']';
    drive(F2B_SOURCE_CONVERSATIONS, fixture_write("commas.json", text, 4096));
    memset(text, '\t', n);
    drive(F2B_SOURCE_CAPTIONS, fixture_write("tabs.tsv", text, n));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_and_rows), cmocka_unit_test(archives), cmocka_unit_test(extremes),
    };
    return cmocka_run_group_tests(tests, fixture_begin, fixture_end);
}
