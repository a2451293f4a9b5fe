/* Prompts and labels against LLaVA's own (published ids), and what becomes of bad records. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>

#include "autograd/core/alloc.h"
#include "data/prompt/prompt.h"
#include "tests/data/tokenizer_fixture.h"

#define SYS                                                                                        \
    "1 319 13563 1546 263 12758 1404 322 385 23116 21082 20255 29889 450 20255 4076 8444 29892 "   \
    "13173 29892 322 1248 568 6089 304 278 1404 29915 29879 5155 29889"
#define CAT                                                                                        \
    SYS " 3148 1001 29901 29871 -200 29871 13 5618 2927 338 278 6635 29973 13 22550 278 1139 773 " \
        "263 2323 1734 470 16549 29889 319 1799 9047 13566 29901"
#define CAT_QUESTION "What color is the cat?\nAnswer the question using a single word or phrase."

static const f2b_prompt_limits wide = { .image_rows = 16, .max_length = 2048 };

static void sequence_free(f2b_sequence *s)
{
    f2b_free(s->ids);
    f2b_free(s->labels);
    *s = (f2b_sequence){ 0 };
}

/* The fact sheet's evaluation prompt and its two-round training sample. */
static void llava_two_rounds(void **state)
{
    (void)state;
    const f2b_turn turns[] = {
        { "human", CAT_QUESTION "\n<image>" }, { "gpt", "Black" },
        { "human", "Is it asleep?" }, { "gpt", "No" },
    };
    for (int legacy = 0; legacy < 2; legacy++) {
        f2b_tokenizer *t = open_llava(legacy);
        f2b_sequence s;
        char *text;
        assert_int_equal(f2b_prompt_open(t, turns, 1, true, &s, &text, NULL), F2B_OK);
        assert_ids(s.ids, s.n, CAT);
        assert_null(s.labels);
        assert_non_null(strstr(text, "questions. USER: <image>\nWhat color"));
        assert_string_equal(text + strlen(text) - 18, "phrase. ASSISTANT:");
        f2b_free(text);
        sequence_free(&s);

        assert_int_equal(f2b_prompt_conversation(t, turns, 4, true, wide, &s, NULL, NULL), F2B_OK);
        assert_int_equal(s.n, legacy ? 77 : 76);
        assert_ids(s.ids, s.n,
                   legacy ? CAT " 6054 2 3148 1001 29901 1317 372 408 5436 29973 319 1799 9047 "
                                "13566 29901 1939 2"
                          : CAT " 6054 2 11889 29901 1317 372 408 5436 29973 319 1799 9047 "
                                "13566 29901 1939 2");
        const int64_t kept[4] = { 60, 61, s.n - 2, s.n - 1 };
        for (int64_t i = 0, k = 0; i < s.n; i++) {
            const bool label = k < 4 && i == kept[k];
            k += label;
            assert_int_equal(s.labels[i], label ? s.ids[i] : F2B_NO_LABEL);
        }

        f2b_sequence open;      /* history and question: the training ids before the last answer */
        assert_int_equal(f2b_prompt_open(t, turns, 3, true, &open, NULL, NULL), F2B_OK);
        assert_int_equal(open.n, s.n - 2);
        assert_memory_equal(open.ids, s.ids, (size_t)open.n * sizeof *open.ids);
        sequence_free(&open);
        sequence_free(&s);
        f2b_tokenizer_free(t);
    }
}

static void llava_pass_one(void **state)
{
    (void)state;
    f2b_tokenizer *t = open_llava(false);
    const char *prompt = "Summarize the image in a few words.";
    f2b_sequence s;
    assert_int_equal(f2b_prompt_image(t, F2B_TEMPLATE_PLAIN, prompt, &s), F2B_OK);
    assert_ids(s.ids, s.n, "1 -200 29871 13 11139 3034 675 278 1967 297 263 2846 3838 29889");
    sequence_free(&s);
    assert_int_equal(f2b_prompt_image(t, F2B_TEMPLATE_VICUNA_V1, prompt, &s), F2B_OK);
    assert_ids(s.ids, s.n,
               SYS " 3148 1001 29901 29871 -200 29871 13 11139 3034 675 278 1967 297 263 2846 3838 "
                   "29889 319 1799 9047 13566 29901");
    sequence_free(&s);
    assert_int_equal(
        f2b_prompt_caption(t, F2B_TEMPLATE_VICUNA_V1, prompt, " \u3000Hello world\n", 77, &s, NULL),
        F2B_OK);
    assert_ids(s.ids, s.n,
               SYS " 3148 1001 29901 15043 3186 13 11139 3034 675 278 1967 297 263 2846 3838 29889 "
                   "319 1799 9047 13566 29901");
    sequence_free(&s);
    assert_int_equal(f2b_prompt_caption(t, F2B_TEMPLATE_PLAIN, prompt, "Hello world", 1, &s, NULL),
                     F2B_OK);
    assert_ids(s.ids, s.n, "1 15043 13 11139 3034 675 278 1967 297 263 2846 3838 29889");
    sequence_free(&s);
    /* U+1F917 is four byte pieces: two of them are no character */
    assert_int_equal(f2b_prompt_caption(t, F2B_TEMPLATE_PLAIN, "x", "a \U0001F917", 4, &s, NULL),
                     F2B_OK);
    assert_ids(s.ids, s.n, "1 263 29871 13 29916");
    sequence_free(&s);
    f2b_prompt_fault fault;
    assert_int_equal(f2b_prompt_caption(t, F2B_TEMPLATE_PLAIN, "x", " \n\u00A0", 4, &s, &fault),
                     F2B_ERR_DATA);
    assert_int_equal(fault, F2B_PROMPT_EMPTY_CAPTION);
    f2b_tokenizer_free(t);
}

/* What max_ids keeps of a caption are its own first ids, whatever they are. */
static void llava_captions_cut(void **state)
{
    (void)state;
    f2b_tokenizer *t = open_llava(true);
    const char *caption =
        "photograph of the sign being repaired by 3.14 brave people in a  caf\u00e9 - \u65e5\u672c";
    f2b_ids whole = { 0 };
    assert_int_equal(f2b_tokenizer_encode(t, caption, strlen(caption), F2B_ENCODE_PLAIN, &whole),
                     F2B_OK);
    for (int64_t n = 1; n <= whole.n; n++) {
        f2b_sequence s;
        assert_int_equal(f2b_prompt_caption(t, F2B_TEMPLATE_PLAIN, "", caption, n, &s, NULL),
                         F2B_OK);
        assert_int_equal(s.n, n + 2);           /* start, caption, "\n" */
        assert_int_equal(s.ids[n + 1], 13);
        assert_memory_equal(s.ids + 1, whole.ids, (size_t)n * sizeof *s.ids);
        sequence_free(&s);
    }
    f2b_ids_free(&whole);
    f2b_tokenizer_free(t);
}

static int64_t read_turns(const json_t *record, f2b_turn turns[64])
{
    const json_t *list = json_object_get(record, "conversations");
    const int64_t n = (int64_t)json_array_size(list);
    assert_in_range(n, 1, 64);
    for (int64_t i = 0; i < n; i++) {
        const json_t *turn = json_array_get(list, (size_t)i);
        turns[i] = (f2b_turn){ json_string_value(json_object_get(turn, "from")),
                               json_string_value(json_object_get(turn, "value")) };
    }
    return n;
}

static void assert_equals_json(const int32_t *got, int64_t n, const json_t *expected)
{
    assert_int_equal(n, json_array_size(expected));
    for (int64_t i = 0; i < n; i++)
        assert_int_equal(got[i], json_integer_value(json_array_get(expected, (size_t)i)));
}

/* 60 real records; for the first five LLaVA's own text, ids and labels. */
static void llava_records(void **state)
{
    (void)state;
    json_t *records = json_load_file(CONVERSATIONS_FOLDER "/llava_instruct_first60.json", 0, NULL);
    FILE *file = fopen(CONVERSATIONS_FOLDER "/expected_first5.jsonl", "rb");
    if (records == NULL || file == NULL) {
        print_message("skipped: %s is not there\n", CONVERSATIONS_FOLDER);
        skip();
    }
    f2b_tokenizer *tokenizers[2] = { open_llava(false), open_llava(true) };
    assert_int_equal(json_array_size(records), 60);
    f2b_turn turns[64];
    for (size_t i = 0; i < 60; i++) {
        json_t *expected = i < 5 ? json_loadf(file, JSON_DISABLE_EOF_CHECK, NULL) : NULL;
        assert_true(i >= 5 || expected != NULL);
        const int64_t n = read_turns(json_array_get(records, i), turns);
        for (int legacy = 0; legacy < 2; legacy++) {
            const json_t *ids = json_object_get(expected, legacy ? "legacy" : "non_legacy");
            f2b_sequence s;
            char *text;
            if (f2b_prompt_conversation(tokenizers[legacy], turns, n, true, wide, &s, &text,
                                        NULL) != F2B_OK)
                fail_msg("record %zu: %s", i, f2b_last_error());
            if (expected != NULL) {
                assert_string_equal(text, json_string_value(json_object_get(expected, "prompt")));
                assert_equals_json(s.ids, s.n, json_object_get(ids, "input_ids"));
                assert_equals_json(s.labels, s.n, json_object_get(ids, "labels"));
            }
            f2b_free(text);
            sequence_free(&s);
        }
        json_decref(expected);
    }
    fclose(file);
    json_decref(records);
    f2b_tokenizer_free(tokenizers[0]);
    f2b_tokenizer_free(tokenizers[1]);
}

/* ---- with the small tokenizer: rules that need no real vocabulary ---------------------------- */

#define H(text) { "human", text }
#define G(text) { "gpt", text }

static void faults_have_names(void **state)
{
    (void)state;
    static const struct {
        f2b_turn turns[5];
        int n;
        bool image;
        f2b_prompt_fault fault;
    } cases[] = {
        { { H("<image>\nhello"), G("world") }, 2, true, F2B_PROMPT_OK },
        { { H("hello<image>"), G("world") }, 2, true, F2B_PROMPT_OK },
        { { H("<image>"), G("world") }, 2, true, F2B_PROMPT_OK },
        { { H("hello"), G("world"), H("t <image>"), G("no") }, 4, true, F2B_PROMPT_OK },
        { { G("hi"), H("hello"), G("world") }, 3, false, F2B_PROMPT_OK },
        { { H("hello"), G("world <s>") }, 2, false, F2B_PROMPT_OK },
        { { H("hello ASSISTANT:"), G("world") },
          2,
          false,
          F2B_PROMPT_OK }, /* LLaVA's split takes it */
        { { H("x") }, 0, false, F2B_PROMPT_NO_TURNS },
        { { G("x") }, 1, false, F2B_PROMPT_NO_TURNS },
        { { { "system", "x" }, G("y") }, 2, false, F2B_PROMPT_UNKNOWN_SPEAKER },
        { { H("x"), H("y") }, 2, false, F2B_PROMPT_TURN_ORDER },
        { { H("x"), G("y"), H("z") }, 3, false, F2B_PROMPT_ODD_TURNS },
        { { H(""), G("y") }, 2, false, F2B_PROMPT_EMPTY_QUESTION },
        { { H("x"), G(" \n") }, 2, false, F2B_PROMPT_EMPTY_ANSWER },
        { { H("x"), G("y") }, 2, true, F2B_PROMPT_NO_IMAGE_MARK },
        { { H("<image>x<image>"), G("y") }, 2, true, F2B_PROMPT_TWO_IMAGE_MARKS },
        { { H("<image>"), G("y"), H("<image>"), G("y") }, 4, true, F2B_PROMPT_TWO_IMAGE_MARKS },
        { { H("<image>"), G("y") }, 2, false, F2B_PROMPT_IMAGE_IN_TEXT },
        { { H("x"), G("<image>") }, 2, true, F2B_PROMPT_IMAGE_IN_ANSWER },
        { { H("x"), G("y ASSISTANT: z") }, 2, false, F2B_PROMPT_MASK_MISMATCH },
        { { H("x"), G("y"), H("z ASSISTANT: "), G("w") }, 4, false, F2B_PROMPT_MASK_MISMATCH },
        { { H("x"), G("y</s>z") }, 2, false, F2B_PROMPT_MASK_MISMATCH },
        { { H("x</s>"), G("y") }, 2, false, F2B_PROMPT_MASK_MISMATCH },
        { { H("x"), G("<unk>") }, 2, false, F2B_PROMPT_MASK_MISMATCH },
    };
    f2b_tokenizer *t = open_small(NULL);
    const int64_t before = f2b_bytes_in_use(F2B_TAG_COUNT);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        f2b_sequence s = { 0 };
        char *text = NULL;
        f2b_prompt_fault fault = F2B_PROMPT_FAULTS;
        const f2b_status status =
            f2b_prompt_conversation(t, cases[i].turns, cases[i].n, cases[i].image,
                                    (f2b_prompt_limits){ 4, 4096 }, &s, &text, &fault);
        if (fault != cases[i].fault) fail_msg("case %zu: %s", i, f2b_prompt_fault_name(fault));
        assert_int_equal(status, fault == F2B_PROMPT_OK ? F2B_OK : F2B_ERR_DATA);
        if (fault != F2B_PROMPT_OK) {
            assert_null(s.ids);
            assert_null(text);
            assert_string_equal(f2b_last_error(), f2b_prompt_fault_text(fault));
        }
        f2b_free(text);
        sequence_free(&s);
    }
    assert_int_equal(f2b_bytes_in_use(F2B_TAG_COUNT), before);
    f2b_tokenizer_free(t);
}

/* max_length counts rows, an image many; what is cut away is not looked at. */
static void cut_to_rows(void **state)
{
    (void)state;
    const f2b_turn turns[] = { H("<image>\nhello"), G("world"), H("hello"), G("no ASSISTANT: no") };
    f2b_tokenizer *t = open_small(NULL);
    const f2b_prompt_limits all = { 4, 4096 };
    f2b_sequence whole, s;
    f2b_prompt_fault fault;
    assert_int_equal(f2b_prompt_conversation(t, turns, 2, true, all, &whole, NULL, NULL), F2B_OK);
    assert_int_equal(f2b_prompt_conversation(t, turns, 4, true, all, &s, NULL, &fault),
                     F2B_ERR_DATA);
    assert_int_equal(fault, F2B_PROMPT_MASK_MISMATCH);

    const int64_t rows = whole.n + 3;           /* one of its ids is four rows */
    for (int64_t max = rows; max >= rows - 2; max--) {
        const f2b_prompt_limits limits = { 4, max };
        const f2b_status status =
            f2b_prompt_conversation(t, turns, 4, true, limits, &s, NULL, &fault);
        if (max == rows - 2) {                  /* `world</s>` is two ids: no label is left */
            assert_int_equal(status, F2B_ERR_DATA);
            assert_int_equal(fault, F2B_PROMPT_NO_LABEL);
            continue;
        }
        assert_int_equal(status, F2B_OK);
        assert_int_equal(s.n, max - 3);
        assert_memory_equal(s.ids, whole.ids, (size_t)s.n * sizeof *s.ids);
        assert_memory_equal(s.labels, whole.labels, (size_t)s.n * sizeof *s.ids);
        sequence_free(&s);
    }
    int64_t image = 0;
    while (whole.ids[image] != F2B_IMAGE_ID) image++;
    assert_int_equal(f2b_prompt_conversation(t, turns, 2, true, (f2b_prompt_limits){ 4, image + 3 },
                                             &s, NULL, &fault),
                     F2B_ERR_DATA);
    assert_int_equal(fault, F2B_PROMPT_IMAGE_CUT);
    sequence_free(&whole);
    f2b_tokenizer_free(t);
}

/* A vocabulary whose "USER:" is one piece with or without a space: LLaVA's fixed corrections would
 * not fit, the labels do, in both modes. */
static void labels_fit_any_vocabulary(void **state)
{
    (void)state;
    const f2b_turn turns[] = { H("hello"), G("world"), H("t?"), G(" no.") };
    for (int legacy = 0; legacy < 2; legacy++) {
        f2b_tokenizer *t = open_small(legacy ? "{\"legacy\": true}" : "{\"legacy\": false}");
        f2b_sequence s;
        assert_int_equal(f2b_prompt_conversation(t, turns, 4, false, (f2b_prompt_limits){ 4, 4096 },
                                                 &s, NULL, NULL),
                         F2B_OK);
        char *labels[2];
        f2b_ids kept = { 0 };
        int64_t second = 0, n = 0;
        for (int64_t i = 0; i < s.n; i++) {
            if (s.labels[i] == F2B_NO_LABEL) continue;
            assert_int_equal(s.labels[i], s.ids[i]);
            assert_int_equal(f2b_ids_push(&kept, s.ids[i]), F2B_OK);
            if (s.ids[i] == 2 && n++ == 0) second = kept.n;
        }
        assert_int_equal(n, 2);
        labels[0] = f2b_tokenizer_decode(t, kept.ids, second);
        labels[1] = f2b_tokenizer_decode(t, kept.ids + second, kept.n - second);
        assert_string_equal(labels[0], "world");
        assert_string_equal(labels[1], " no.");
        f2b_free(labels[0]);
        f2b_free(labels[1]);
        f2b_ids_free(&kept);
        sequence_free(&s);
        f2b_tokenizer_free(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llava_two_rounds),
        cmocka_unit_test(llava_pass_one),
        cmocka_unit_test(llava_captions_cut),
        cmocka_unit_test(llava_records),
        cmocka_unit_test(faults_have_names),
        cmocka_unit_test(cut_to_rows),
        cmocka_unit_test(labels_fit_any_vocabulary),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
