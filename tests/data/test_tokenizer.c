/* The tokenizer against published ids, and a small file of our own writing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>

#include "autograd/core/alloc.h"
#include "autograd/core/rng.h"
#include "tests/data/tokenizer_fixture.h"

/* The fact sheet's vectors, no start token. */
static void llava_vectors(void **state)
{
    (void)state;
    static const struct { const char *text; unsigned flags; const char *ids;
    } cases[] = {
        { "Hello world", 0, "15043 3186" },
        { "  two spaces", 0, "259 1023 8162" },
        { "a\tb", 0, "263 12 29890" },
        { "caf\u00e9 \u65e5\u672c\u8a9e \U0001F917 \u2028x", 0,
          "274 28059 29871 30325 30346 30968 29871 243 162 167 154 29871 31353 29916" },
        { "1234567 3.14", 0,
          "29871 29896 29906 29941 29946 29945 29953 29955 29871 29941 29889 29896 29946" },
        { " ", 0, "259" },
        { "", 0, "" },
        { "\n", 0, "29871 13" },
        { "Summarize the image in a few words.", 0,
          "6991 3034 675 278 1967 297 263 2846 3838 29889" },
        { "Summarize the image in a few words.", F2B_ENCODE_CONTINUE,
          "11139 3034 675 278 1967 297 263 2846 3838 29889" },
        { "ASSISTANT:", 0, "319 1799 9047 13566 29901" },
        { "ASSISTANT: ", 0, "319 1799 9047 13566 29901 29871" },
        { "USER: ", 0, "3148 1001 29901 29871" },
        { "yes", 0, "4874" },
        { "Yes", 0, "3869" },
        { "no", 0, "694" },
        { "No", 0, "1939" },
        { "a\xFFz", 0, "263 30140 29920" }, /* malformed UTF-8 is U+FFFD */
        { "a</s>b", 0, "263 829 29879 29958 29890" },
        { "a</s>b", F2B_ENCODE_CONTROL, "263 2 29890" },
        { "</s>b", F2B_ENCODE_CONTROL, "2 29890" },
        { "a</s> b", F2B_ENCODE_CONTROL, "263 2 289" },
        { "a<unk><s>b", F2B_ENCODE_CONTROL, "263 0 1 29890" },
    };
    f2b_tokenizer *t = open_llava(false);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_encodes(t, cases[i].text, strlen(cases[i].text), cases[i].flags, cases[i].ids);
    assert_int_equal(f2b_tokenizer_pieces(t), 32000);
    assert_int_equal(f2b_tokenizer_bos(t), 1);
    assert_int_equal(f2b_tokenizer_eos(t), 2);
    assert_int_equal(f2b_tokenizer_unk(t), 0);
    int normal = 0;
    for (int32_t i = 0; i < 32000; i++)
        normal += f2b_tokenizer_piece_type(t, i) == F2B_PIECE_NORMAL;
    assert_int_equal(normal, 31741);
    assert_int_equal(f2b_tokenizer_find(t, "\xE2\x96\x81"), 29871);
    assert_int_equal(f2b_tokenizer_find(t, "no such piece"), -1);
    f2b_tokenizer_free(t);
}

/* The texts of llama.cpp's published test, parted by lines `__ggml_vocab_test__`; all legacy. */
static void llava_control_words(void **state)
{
    (void)state;
    static const char separator[] = "\n__ggml_vocab_test__\n";
    f2b_tokenizer *t = open_llava(true);
    FILE *in = fopen(LLAVA_FOLDER "/ggml-vocab-tinyllama.gguf.inp", "rb");
    FILE *out = fopen(LLAVA_FOLDER "/ggml-vocab-tinyllama.gguf.out", "rb");
    assert_true(in != NULL && out != NULL);
    char text[4096], ids[256];
    text[fread(text, 1, sizeof text - 1, in)] = '\0';
    int n = 0;
    for (char *at = text, *end; (end = strstr(at, separator)) != NULL;
         at = end + strlen(separator), n++) {
        assert_non_null(fgets(ids, sizeof ids, out));
        ids[strcspn(ids, "\n")] = '\0';
        assert_encodes(t, at, (size_t)(end - at), F2B_ENCODE_CONTROL, ids);
    }
    assert_in_range(n, 10, 20);
    fclose(in);
    fclose(out);
    f2b_tokenizer_free(t);
}

/* 100 captions with the ids of the reference library, there and back. */
static void llava_captions(void **state)
{
    (void)state;
    f2b_tokenizer *t = open_llava(false);
    FILE *file = fopen(LLAVA_FOLDER "/sentencepiece_ids_cc3m_first100.jsonl", "rb");
    assert_non_null(file);
    char line[8192];
    int n = 0;
    for (; fgets(line, sizeof line, file) != NULL; n++) {
        json_t *record = json_loads(line, 0, NULL);
        const char *text = json_string_value(json_object_get(record, "text"));
        const json_t *ids = json_object_get(record, "ids");
        assert_true(text != NULL && json_is_array(ids));
        f2b_ids got = { 0 };
        assert_int_equal(f2b_tokenizer_encode(t, text, strlen(text), F2B_ENCODE_PLAIN, &got),
                         F2B_OK);
        assert_int_equal(got.n, json_array_size(ids));
        for (int64_t i = 0; i < got.n; i++)
            assert_int_equal(got.ids[i], json_integer_value(json_array_get(ids, (size_t)i)));
        char *back = f2b_tokenizer_decode(t, got.ids, got.n);
        assert_string_equal(back, text);
        f2b_free(back);
        f2b_ids_free(&got);
        json_decref(record);
    }
    assert_int_equal(n, 100);
    fclose(file);
    f2b_tokenizer_free(t);
}

static void llava_decodes(void **state)
{
    (void)state;
    static const struct { int32_t ids[6]; int64_t n; const char *text; } cases[] = {
        { { 1, 263, 2, 263 }, 4, "a a" },
        { { 29871, 29871, 263 }, 3, "  a" },
        { { 243, 162, 167, 154, 3 }, 4, "\U0001F917" },
        { { 243, 162, 263 }, 3, "\uFFFD\uFFFD a" },
        { { 243, 162, 167 }, 3, "\uFFFD\uFFFD\uFFFD" },
        { { 0, 263 }, 2, " \u2047  a" },
        { { 13, 263 }, 2, "\n a" },
        { { 0 }, 0, "" },
    };
    f2b_tokenizer *t = open_llava(false);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = f2b_tokenizer_decode(t, cases[i].ids, cases[i].n);
        assert_string_equal(text, cases[i].text);
        f2b_free(text);
    }
    assert_null(f2b_tokenizer_decode(t, (int32_t[]){ 32000 }, 1));
    assert_int_equal(f2b_last_status(), F2B_ERR_INVALID);
    assert_null(f2b_tokenizer_decode(t, (int32_t[]){ -200 }, 1));
    f2b_tokenizer_free(t);
}

/* Cutting at spaces is exact only where no piece has a space inside; the small file's "he_" has. */
static void small_file_merges(void **state)
{
    (void)state;
    f2b_tokenizer *t = open_small(NULL);
    if (t == NULL) fail_msg("%s", f2b_last_error());
    assert_true(f2b_tokenizer_legacy(t));
    const int32_t first = 259;
    assert_string_equal(f2b_tokenizer_piece(t, first), "he");
    assert_int_equal(f2b_tokenizer_piece_type(t, first), F2B_PIECE_NORMAL);
    assert_int_equal(f2b_tokenizer_piece_type(t, 3 + 'A'), F2B_PIECE_BYTE);
    assert_int_equal(f2b_tokenizer_piece_type(t, 1), F2B_PIECE_CONTROL);
    assert_encodes(t, "hello world", 11, 0, "263 268");             /* whole words */
    assert_encodes(t, "hello", 5, F2B_ENCODE_CONTINUE, "262");
    assert_encodes(t, "he he", 5, F2B_ENCODE_CONTINUE, "270 259");   /* "he_", "he" */
    assert_encodes(t, "aaaa", 4, F2B_ENCODE_CONTINUE, "272 286");    /* a tie: the leftmost first */
    assert_encodes(t, "on", 2, F2B_ENCODE_CONTINUE, "273");
    assert_encodes(t, "non", 3, F2B_ENCODE_CONTINUE,
                   "287 273"); /* the better score, not the left */
    assert_encodes(t, "z", 1, F2B_ENCODE_CONTINUE, "125");           /* no piece: its byte */
    assert_encodes(t, "\0h", 2, F2B_ENCODE_CONTINUE, "3 278");
    assert_encodes(t, "\u65e5", 3, F2B_ENCODE_CONTINUE, "233 154 168");
    f2b_tokenizer_free(t);
}

/* Streaming gives the same text as the whole, and never half a character. */
static void small_file_streams(void **state)
{
    (void)state;
    f2b_tokenizer *t = open_small(NULL);
    f2b_rng rng = f2b_rng_new(1, F2B_RNG_TEST, 0, 0, 0);
    for (int round = 0; round < 200; round++) {
        int32_t ids[12];
        f2b_decoder decoder = { 0 };
        f2b_text text = { 0 };
        for (int i = 0; i < 12; i++) {
            ids[i] = (int32_t)f2b_rng_below(&rng, (uint64_t)f2b_tokenizer_pieces(t));
            assert_int_equal(f2b_tokenizer_decode_next(t, &decoder, ids[i], &text), F2B_OK);
            if (text.n == 0) continue;
            json_t *valid = json_stringn(text.text, text.n);        /* NULL unless UTF-8 */
            assert_non_null(valid);
            json_decref(valid);
        }
        assert_int_equal(f2b_tokenizer_decode_end(&decoder, &text), F2B_OK);
        char *whole = f2b_tokenizer_decode(t, ids, 12);
        assert_string_equal(whole, text.n > 0 ? text.text : "");
        f2b_free(whole);
        f2b_text_free(&text);
    }
    f2b_tokenizer_free(t);
}

static void configuration_is_read(void **state)
{
    (void)state;
    static const struct { const char *config; f2b_status status; bool legacy; } cases[] = {
        { "{}", F2B_OK, true },
        { "{\"legacy\": null}", F2B_OK, true },
        { "{\"legacy\": false, \"add_bos_token\": true}", F2B_OK, false },
        { "{\"legacy\": 1}", F2B_ERR_FORMAT, false },
        { "{\"legacy\": fals}", F2B_ERR_FORMAT, false },
        { "[]", F2B_ERR_FORMAT, false },
        { "{\"add_bos_token\": false}", F2B_ERR_UNSUPPORTED, false },
        { "{\"add_eos_token\": true}", F2B_ERR_UNSUPPORTED, false },
        { "{\"add_prefix_space\": false}", F2B_ERR_UNSUPPORTED, false },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        f2b_tokenizer *t = open_small(cases[i].config);
        assert_int_equal(t != NULL, cases[i].status == F2B_OK);
        if (t != NULL) assert_int_equal(f2b_tokenizer_legacy(t), cases[i].legacy);
        else assert_int_equal(f2b_last_status(), cases[i].status);
        f2b_tokenizer_free(t);
    }
    assert_null(f2b_tokenizer_open("/nonexistent"));
    assert_int_equal(f2b_last_status(), F2B_ERR_NOT_FOUND);
    assert_non_null(strstr(f2b_last_error(), "/nonexistent"));
}

static void writer_refuses(void **state)
{
    (void)state;
    const f2b_piece twice[] = { { "a", 0 }, { "a", -1 } }, empty[] = { { "", 0 } };
    const f2b_piece malformed[] = { { "\xC3", 0 } }, control[] = { { "</s>", 0 } };
    const char *path = "/tmp/f2b-never-written.model";
    assert_int_equal(f2b_tokenizer_write(path, twice, 2), F2B_ERR_INVALID);
    assert_int_equal(f2b_tokenizer_write(path, empty, 1), F2B_ERR_INVALID);
    assert_int_equal(f2b_tokenizer_write(path, malformed, 1), F2B_ERR_INVALID);
    assert_int_equal(f2b_tokenizer_write(path, control, 1), F2B_ERR_INVALID);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(f2b_tokenizer_write("/nonexistent/t.model", twice, 1), F2B_ERR_IO);
    assert_int_equal(f2b_tokenizer_write("/dev/full", twice, 1), F2B_ERR_IO);
}

/* ---- a tool for test_tokenizer_oracle.py ----------------------------------------------------- */

/* JSON strings to ids, or JSON arrays of ids to texts, a line each. */
static int convert_lines(const f2b_tokenizer *t, bool decode, unsigned flags)
{
    char *line = NULL;
    size_t capacity = 0;
    for (ssize_t n; (n = getline(&line, &capacity, stdin)) > 0;) {
        json_t *in = json_loadb(line, (size_t)n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL), *out;
        f2b_ids ids = { 0 };
        if (decode) {
            for (size_t i = 0; i < json_array_size(in); i++) {
                const int32_t id = (int32_t)json_integer_value(json_array_get(in, i));
                if (f2b_ids_push(&ids, id)) return 1;
            }
            char *text = f2b_tokenizer_decode(t, ids.ids, ids.n);
            out = json_string(text);
            f2b_free(text);
        } else {
            if (f2b_tokenizer_encode(t, json_string_value(in), json_string_length(in), flags, &ids))
                return 1;
            out = json_array();
            for (int64_t i = 0; i < ids.n; i++)
                json_array_append_new(out, json_integer(ids.ids[i]));
        }
        json_dumpf(out, stdout, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
        putchar('\n');
        json_decref(in);
        json_decref(out);
        f2b_ids_free(&ids);
    }
    free(line);
    return 0;
}

static int tool(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "write") == 0) return write_small(argv[2]) != F2B_OK;
    if (argc != 4) return 2;
    f2b_tokenizer *t = f2b_tokenizer_open(argv[2]);
    if (t == NULL) {
        fprintf(stderr, "%s\n", f2b_last_error());
        return 1;
    }
    const int code = convert_lines(t, strcmp(argv[1], "decode") == 0, (unsigned)atoi(argv[3]));
    f2b_tokenizer_free(t);
    return code;
}

int main(int argc, char **argv)
{
    if (argc > 1) return tool(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llava_vectors),
        cmocka_unit_test(llava_control_words),
        cmocka_unit_test(llava_captions),
        cmocka_unit_test(llava_decodes),
        cmocka_unit_test(small_file_merges),
        cmocka_unit_test(small_file_streams),
        cmocka_unit_test(configuration_is_read),
        cmocka_unit_test(writer_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
