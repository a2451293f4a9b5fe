/* What the tests of tokenizer and prompts share: temporary model folders, and LLaVA's own tokenizer
 * where it is there. Include after cmocka.h. */
#ifndef F2B_TESTS_DATA_TOKENIZER_FIXTURE_H
#define F2B_TESTS_DATA_TOKENIZER_FIXTURE_H

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/tokenizer/tokenizer.h"

#define LLAVA_FOLDER "../shared/data/llava-1.5-7b-metadata"
#define CONVERSATIONS_FOLDER "../shared/data/llava-conversations"

/* A new temporary folder in `folder` [64]. */
static inline void make_folder(char folder[64])
{
    strcpy(folder, "/tmp/f2b-tokenizer-XXXXXX");
    assert_non_null(mkdtemp(folder));
}

static inline void write_text(const char *folder, const char *name, const char *text, size_t bytes)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

static inline void remove_folder(const char *folder)
{
    static const char *const names[] = { "tokenizer.model", "tokenizer_config.json" };
    char path[PATH_MAX];
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        (void)unlink(path);
    }
    assert_int_equal(rmdir(folder), 0);
}

/* LLaVA's tokenizer.model in a folder that says `legacy`; skips the test without the file. */
static inline f2b_tokenizer *open_llava(bool legacy)
{
    char source[PATH_MAX], folder[64], link[PATH_MAX];
    if (realpath(LLAVA_FOLDER "/tokenizer.model", source) == NULL) {
        print_message("skipped: %s/tokenizer.model is not there\n", LLAVA_FOLDER);
        skip();
    }
    make_folder(folder);
    snprintf(link, sizeof link, "%s/tokenizer.model", folder);
    assert_int_equal(symlink(source, link), 0);
    const char *config = legacy ? "{\"legacy\": true}" : "{\"legacy\": false}";
    write_text(folder, "tokenizer_config.json", config, strlen(config));
    f2b_tokenizer *t = f2b_tokenizer_open(folder);
    remove_folder(folder);
    if (t == NULL) fail_msg("%s", f2b_last_error());
    assert_int_equal(f2b_tokenizer_legacy(t), legacy);
    return t;
}

/* A small tokenizer of our own writing: words of the prompts and merges that reach some of them. */
static inline f2b_status write_small(const char *path)
{
#define M "\xE2\x96\x81"
    static const char *const pieces[] = {
        "he",      "ll",    "hell",     "hello", M "hello", "wo", "rl", "worl",   "world",
        M "world", M "t",   "he" M,     "aa",    "aaa",     "on", "no", M "hell", M M,
        M,         "h",     "e",        "l",     "o",       "w",  "r",  "d",      "t",
        "a",       "n",     "\xC3\xA9", ":",     M "U",     "SE", "R:", M "USE",  M "USER:",
        "USE",     "USER:", "U",        "S",     "E",       "R",  "A",  "I",      "T",
        "N",       "k",     "?",        ".",
    };
#undef M
    enum { N = sizeof pieces / sizeof *pieces };
    f2b_piece list[N];
    for (int i = 0; i < N; i++) list[i] = (f2b_piece){ pieces[i], -(float)i };
    list[13].score = list[12].score;            /* "aa" and "aaa": a tie */
    return f2b_tokenizer_write(path, list, N);
}

static inline f2b_tokenizer *open_small(const char *config)
{
    char folder[64], path[PATH_MAX];
    make_folder(folder);
    snprintf(path, sizeof path, "%s/tokenizer.model", folder);
    if (write_small(path) != F2B_OK) fail_msg("%s", f2b_last_error());
    if (config != NULL) write_text(folder, "tokenizer_config.json", config, strlen(config));
    f2b_tokenizer *t = f2b_tokenizer_open(folder);
    remove_folder(folder);
    return t;
}

/* Ids as "1 2 3", for messages that show what differs. */
static inline char *ids_text(const int32_t *ids, int64_t n)
{
    f2b_text text = { 0 };
    char number[16];
    assert_int_equal(f2b_text_add(&text, ""), F2B_OK);
    for (int64_t i = 0; i < n; i++) {
        snprintf(number, sizeof number, "%s%d", i > 0 ? " " : "", ids[i]);
        assert_int_equal(f2b_text_add(&text, number), F2B_OK);
    }
    return text.text;
}

static inline void assert_ids(const int32_t *ids, int64_t n, const char *expected)
{
    char *got = ids_text(ids, n);
    assert_string_equal(got, expected);
    f2b_free(got);
}

static inline void assert_encodes(const f2b_tokenizer *t, const char *text, size_t bytes,
                                  unsigned flags, const char *expected)
{
    f2b_ids ids = { 0 };
    if (f2b_tokenizer_encode(t, text, bytes, flags, &ids) != F2B_OK)
        fail_msg("%s", f2b_last_error());
    assert_ids(ids.ids, ids.n, expected);
    f2b_ids_free(&ids);
}

#endif
