/* Readers of conversations and captions: what they give, and what they call a fault. */
#include "tests/data/data_fixtures.h"

#include "data/source/source.h"

static f2b_source *open_as(f2b_source_role role, const char *path, const char *images)
{
    const f2b_source_options o = {
        .role = role, .name = "test[0]", .path = path, .images = images
    };
    return f2b_source_open(&o);
}

static f2b_source *open_text(f2b_source_role role, const char *name, const char *text)
{
    return open_as(role, fixture_text(name, text), NULL);
}

static void expect_fault(const f2b_source *s, int64_t i, const char *fault)
{
    f2b_record r = { 0 };
    assert_int_equal(f2b_source_read(s, i, &r), F2B_OK);
    assert_string_equal(f2b_fault_name(r.fault), fault);
    f2b_record_clear(&r);
}

static void llava_conversations(void **state)
{
    (void)state;
    f2b_source *s = open_text(
        F2B_SOURCE_CONVERSATIONS, "a.json",
        " [\n{\"id\": 7, \"image\": \"x\\/y\\u00e9.jpg\", \"conversations\": ["
        "{\"from\": \"human\", \"value\": \"a \\\"b\\\\\\\" [{ <image>\"}, {\"value\": \"c\", "
        "\"from\": \"gpt\"}]},\n"
        " {\"id\": \"t\", \"conversations\": [{\"from\": \"human\", \"value\": \"q\"}, "
        "{\"from\": \"gpt\", \"value\": \"\"}], \"image\": null},"
        " 17 ,\n {\"id\": 1 \"x\": 2}, {\"id\": 1, \"id\": 2, \"conversations\": []}, {}{},"
        "{\"conversations\": [{\"from\": \"human\"}]}, {\"image\": [\"x.jpg\"], \"conversations\": "
        "[]},"
        "{\"nested\": {\"image\": \"no.jpg\"}, \"conversations\": []}]\n ");
    assert_non_null(s);
    assert_int_equal(f2b_source_count(s), 9);
    assert_string_equal(f2b_source_format(s), "LLaVA JSON");
    f2b_record r = { 0 };
    assert_int_equal(f2b_source_read(s, 0, &r), F2B_OK);
    assert_int_equal(r.fault, F2B_FAULT_NONE);
    assert_string_equal(r.image, "x/y\xc3\xa9.jpg");
    assert_int_equal(r.n_turns, 2);
    assert_string_equal(r.turns[0].value, "a \"b\\\" [{ <image>");
    assert_string_equal(r.turns[1].from, "gpt");
    assert_int_equal(f2b_source_read(s, 1, &r), F2B_OK);
    assert_int_equal(r.fault, F2B_FAULT_NONE);
    assert_null(r.image);
    f2b_record_clear(&r);
    for (int i = 2; i < 6; i++) expect_fault(s, i, "unreadable_json");
    expect_fault(s, 6, "bad_field");
    expect_fault(s, 7, "bad_field");
    expect_fault(s, 8, "ok");
    assert_true(f2b_source_image_key(s, 0) != 0);
    assert_true(f2b_source_image_key(s, 1) == 0);
    assert_true(f2b_source_image_key(s, 8) == 0);       /* only the record's own field counts */
    f2b_source_free(s);
}

static void captions_of_three_formats_agree(void **state)
{
    (void)state;
    f2b_source *all[] = {
        open_text(F2B_SOURCE_CAPTIONS, "c.tsv", "one cat\ta/1.jpg\r\ntwo dogs\tb/2.png\n"),
        open_text(
            F2B_SOURCE_CAPTIONS, "l.json",
            "[{\"image\":\"a/1.jpg\",\"conversations\":[{\"from\":\"human\",\"value\":\"<image>\"},"
            "{\"from\":\"gpt\",\"value\":\"one cat\"}]},{\"image\":\"b/2.png\",\"conversations\":"
            "[{\"from\":\"gpt\",\"value\":\"two dogs\"}]}]"),
        open_text(F2B_SOURCE_CAPTIONS, "o.json",
                  "{\"info\":{\"annotations\":[1,2]},\"annotations\":[{\"caption\":\"one "
                  "cat\",\"image_id\":12,"
                  "\"id\":1},{\"image_id\":3,\"caption\":\"two "
                  "dogs\"}],\"images\":[{\"file_name\":\"b/2.png\","
                  "\"id\":3},{\"id\":12,\"file_name\":\"a/1.jpg\"}]}"),
    };
    static const char *const captions[] = { "one cat", "two dogs" }, *const images[] = {
        "a/1.jpg", "b/2.png"
    };
    for (int k = 0; k < 3; k++) {
        assert_non_null(all[k]);
        assert_int_equal(f2b_source_count(all[k]), 2);
        f2b_record r = { 0 };
        for (int i = 0; i < 2; i++) {
            assert_int_equal(f2b_source_read(all[k], i, &r), F2B_OK);
            assert_int_equal(r.fault, F2B_FAULT_NONE);
            assert_string_equal(r.caption, captions[i]);
            assert_string_equal(r.image, images[i]);
            assert_true(f2b_source_image_key(all[k], i) == f2b_source_image_key(all[0], i));
        }
        f2b_record_clear(&r);
    }
    assert_true(f2b_source_stem_key(all[1], 0) == f2b_source_stem_key(all[2], 0));
    assert_true(f2b_source_stem_key(all[1], 0) != f2b_source_stem_key(all[1], 1));
    for (int k = 0; k < 3; k++) f2b_source_free(all[k]);
}

static void tsv_faults(void **state)
{
    (void)state;
    f2b_source *s =
        open_text(F2B_SOURCE_CAPTIONS, "f.tsv",
                  "\xEF\xBB\xBFok\tx.jpg\nno tab\n\na\tb\tc\nbad \xff\tx.jpg\nname\t\nlast\tz.jpg");
    assert_non_null(s);
    assert_int_equal(f2b_source_count(s), 7);
    f2b_record r = { 0 };
    assert_int_equal(f2b_source_read(s, 0, &r), F2B_OK);
    assert_string_equal(r.caption, "ok");
    for (int i = 1; i < 6; i++) expect_fault(s, i, "malformed_row");
    assert_int_equal(f2b_source_read(s, 6, &r), F2B_OK);
    assert_string_equal(r.image, "z.jpg");
    f2b_record_clear(&r);
    f2b_source_free(s);
}

/* Rows and strings across the pieces in which files are read. */
static void long_rows_and_texts(void **state)
{
    (void)state;
    const size_t big = (1 << 20) + 77;
    char *text = malloc(3 * big);
    size_t n = (size_t)sprintf(text, "a\tx.jpg\n");
    memset(text + n, 'w', big);
    n += big;
    n += (size_t)sprintf(text + n, "\ty.jpg\n");
    memset(text + n, 'v', big - 5000);
    n += big - 5000;
    n += (size_t)sprintf(text + n, "\tz.jpg\nb\tx.jpg");
    f2b_source *s = open_as(F2B_SOURCE_CAPTIONS, fixture_write("long.tsv", text, n), NULL);
    assert_non_null(s);
    assert_int_equal(f2b_source_count(s), 4);
    expect_fault(s, 0, "ok");
    expect_fault(s, 1, "malformed_row");
    expect_fault(s, 2, "ok");
    expect_fault(s, 3, "ok");
    assert_true(f2b_source_image_key(s, 0) == f2b_source_image_key(s, 3));
    f2b_source_free(s);
    /* A quote, an escape or a key at every position around the end of a piece. */
    for (int shift = 0; shift < 64; shift++) {
        const char *tail = "\\\\\\\"\"},{\"a\":\"\\n\",\"image\":\"q.jpg\",\"conversations\":[]},"
                           "{\"image\":\"q.jpg\",\"conversations\":[]}]";
        n = (size_t)sprintf(text, "[{\"id\":\"");
        memset(text + n, 'x', (1 << 20) - n - (size_t)shift);
        n = (size_t)((1 << 20) - shift);
        n += (size_t)sprintf(text + n, "%s", tail);
        s = open_as(F2B_SOURCE_CONVERSATIONS, fixture_write("long.json", text, n), NULL);
        assert_non_null(s);
        assert_int_equal(f2b_source_count(s), 3);
        expect_fault(s, 0, "bad_field");
        expect_fault(s, 1, "ok");
        assert_true(f2b_source_image_key(s, 1) == f2b_source_image_key(s, 2));
        assert_true(f2b_source_image_key(s, 1) != 0);
        f2b_source_free(s);
    }
    free(text);
}

static void files_that_cannot_be_divided(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",        "   ",   "[]",    "{}",          "[{\"a\": 1}", "[{\"a\": \"unterminated}]",
        "[1, 2]]", "[1] 2", "hello", "[{\"a\": [}", "\"text\"",    "]",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        f2b_clear_error();
        assert_null(open_text(F2B_SOURCE_CONVERSATIONS, "b.json", texts[i]));
        assert_int_equal(f2b_last_status(), F2B_ERR_FORMAT);
        assert_non_null(strstr(f2b_last_error(), "b.json"));
    }
    assert_null(open_text(F2B_SOURCE_CONVERSATIONS, "b.json", "[{\"a\": 1}, {\"b\": [1,"));
    assert_non_null(strstr(f2b_last_error(), "record 1"));
    assert_null(open_text(F2B_SOURCE_CONVERSATION_CAPTIONS, "b.json", "{\"images\": []}"));
    assert_non_null(strstr(f2b_last_error(), "annotations"));
    assert_null(open_text(F2B_SOURCE_CONVERSATION_CAPTIONS, "b.json",
                          "{\"images\":[{\"id\":1,\"file_name\":\"a\"},{\"id\":1,\"file_name\":"
                          "\"b\"}],\"annotations\":[1]}"));
    assert_non_null(strstr(f2b_last_error(), "same id"));
    assert_null(open_as(F2B_SOURCE_CAPTIONS, fixture_path("none.tsv"), NULL));
    assert_int_equal(f2b_last_status(), F2B_ERR_NOT_FOUND);
    assert_null(
        open_as(F2B_SOURCE_CAPTIONS, fixture_text("x.tsv", "a\tb\n"), fixture_path("none/")));
    assert_int_equal(f2b_last_status(), F2B_ERR_NOT_FOUND);
    assert_null(open_as(F2B_SOURCE_CAPTIONS, fixture_folder, NULL));
    assert_null(open_as(F2B_SOURCE_CAPTIONS, fixture_path("{9..1}.tar"), NULL));
    assert_int_equal(f2b_last_status(), F2B_ERR_CONFIG);
}

static void coco_faults(void **state)
{
    (void)state;
    f2b_source *s = open_text(
        F2B_SOURCE_CONVERSATION_CAPTIONS, "k.json",
        "{\"images\":[{\"id\":\"s\",\"file_name\":\"000000000042.jpg\"},{\"id\":5}, "
        "3],\"annotations\":["
        "{\"image_id\":\"s\",\"caption\":\"good\"},{\"image_id\":9,\"caption\":\"unknown\"},"
        "{\"image_id\":5,\"caption\":\"nameless\"},{\"caption\":\"no "
        "id\"},{\"image_id\":\"s\"},[]]}");
    assert_non_null(s);
    static const char *const faults[] = { "ok", "unknown_image", "bad_field", "unknown_image",
                                          "bad_field", "unreadable_json" };
    assert_int_equal(f2b_source_count(s), 6);
    for (int i = 0; i < 6; i++) expect_fault(s, i, faults[i]);
    f2b_source *c = open_text(F2B_SOURCE_CONVERSATIONS, "m.json",
        "[{\"image\":\"coco/train2017/000000000042.png\",\"conversations\":[]}]");
    assert_true(f2b_source_stem_key(c, 0) == f2b_source_stem_key(s, 0));
    assert_true(f2b_source_stem_key(s, 1) == 0);
    f2b_source_free(c);
    f2b_source_free(s);
}

static void image_names_stay_in_their_folder(void **state)
{
    (void)state;
    static const struct { const char *name, *fault;
    } cases[] = {
        { "in.jpg", "ok" },
        { "sub/../in.jpg", "unsafe_image_name" },
        { "../secret", "unsafe_image_name" },
        { "..", "unsafe_image_name" },
        { "a..b", "missing_image" },
        { "link", "unsafe_image_name" },
        { "inner", "ok" },
        { "empty.jpg", "broken_image" },
        { "sub", "broken_image" },
        { "https://host/in.jpg", "missing_image" },
        { "none.jpg", "missing_image" },
        { "in.jpg/x", "missing_image" },
        { "pipe", "broken_image" },
    };
    mkdir(fixture_path("images"), 0777);
    mkdir(fixture_path("images/sub"), 0777);
    fixture_text("images/in.jpg", "JPEG");
    fixture_text("images/empty.jpg", "");
    fixture_text("secret", "S");
    assert_int_equal(symlink("../secret", fixture_path("images/link")), 0);
    assert_int_equal(symlink("in.jpg", fixture_path("images/inner")), 0);
    assert_int_equal(mkfifo(fixture_path("images/pipe"), 0666), 0);
    char text[2048] = "";
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        sprintf(text + strlen(text), "c\t%s\n", cases[i].name);
    sprintf(text + strlen(text), "c\t/etc/passwd\n");
    f2b_source *s =
        open_as(F2B_SOURCE_CAPTIONS, fixture_text("n.tsv", text), fixture_path("images"));
    assert_non_null(s);
    f2b_record r = { 0 };
    uint8_t *bytes;
    int64_t n;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(f2b_source_read(s, (int64_t)i, &r), F2B_OK);
        assert_int_equal(f2b_source_image(s, &r, &bytes, &n), F2B_OK);
        assert_string_equal(f2b_fault_name(r.fault), cases[i].fault);
        if (r.fault == F2B_FAULT_NONE) assert_memory_equal(bytes, "JPEG", 4);
        else assert_null(bytes);
        f2b_free(bytes);
    }
    assert_int_equal(f2b_source_read(s, f2b_source_count(s) - 1, &r), F2B_OK);
    assert_int_equal(f2b_source_image(s, &r, &bytes, &n), F2B_OK);
    assert_string_equal(f2b_fault_name(r.fault), "unsafe_image_name");
    f2b_record_clear(&r);
    f2b_source_free(s);
}

static void cached_index_is_used_and_checked(void **state)
{
    (void)state;
    const char *json = fixture_text(
        "big.json", "[{\"image\":\"a.jpg\",\"conversations\":[]},{\"conversations\":[]}]");
    char *folder = strdup(fixture_path("cache/deep"));
    const f2b_source_options o = { .role = F2B_SOURCE_CONVERSATIONS, .name = "t", .path = json,
                                   .cache = folder, .cache_from = 1 };
    uint64_t keys[2];
    for (int round = 0; round < 3; round++) {
        f2b_source *s = f2b_source_open(&o);
        assert_non_null(s);
        assert_int_equal(f2b_source_count(s), 2);
        expect_fault(s, 1, "ok");
        keys[round % 2] = f2b_source_image_key(s, 0);
        assert_true(round == 0 || keys[0] == keys[1]);
        f2b_source_free(s);
        /* One file was written; damage it: the next opening builds the index anew. */
        char command[600], name[512];
        snprintf(command, sizeof command, "ls %s/", folder);
        FILE *list = popen(command, "r");
        assert_int_equal(fscanf(list, "%500s", name), 1);
        char more[8];
        assert_int_equal(fscanf(list, "%7s", more), EOF);
        pclose(list);
        if (round != 1) continue;
        snprintf(command, sizeof command, "%s/%s", folder, name);
        size_t n = 0;
        char *bytes = fixture_read(command, &n);
        bytes[n - 30] ^= 1;
        FILE *file = fopen(command, "wb");
        fwrite(bytes, 1, n, file);
        fclose(file);
        free(bytes);
    }
    fixture_text("big.json", "[{\"conversations\":[]}]"); /* another size: not the same source */
    f2b_source *s = f2b_source_open(&o);
    assert_int_equal(f2b_source_count(s), 1);
    f2b_source_free(s);
    free(folder);
}

static void faults_are_counted_once_and_stop(void **state)
{
    (void)state;
    f2b_fault_log *log = f2b_fault_log_new((f2b_fault_policy){ .max_fraction = 0.02 });
    assert_int_equal(f2b_fault_log_source(log, "a", 100), 0);
    assert_int_equal(f2b_fault_log_source(log, "b", 1000), 1);
    for (int i = 0; i < 5; i++)
        assert_int_equal(f2b_fault_log_add(log, 0, 7, F2B_FAULT_JSON, "x"), F2B_OK);
    assert_int_equal(f2b_fault_log_count(log, 0, F2B_FAULT_NONE), 1);
    assert_true(f2b_fault_log_knows(log, 0, 7) && !f2b_fault_log_knows(log, 1, 7));
    assert_int_equal(f2b_fault_log_add(log, 1, 7, F2B_FAULT_PROMPT + F2B_PROMPT_EMPTY_ANSWER, ""),
                     F2B_OK);
    assert_int_equal(f2b_fault_log_add(log, 0, 8, F2B_FAULT_IMAGE_MISSING, "y.jpg"), F2B_OK);
    assert_int_equal(f2b_fault_log_add(log, 0, 9, F2B_FAULT_IMAGE_MISSING, "z.jpg"), F2B_ERR_DATA);
    assert_non_null(strstr(f2b_last_error(), "missing_image 2"));
    assert_non_null(strstr(f2b_last_error(), "z.jpg"));
    assert_int_equal(f2b_fault_log_count(log, -1, F2B_FAULT_NONE), 4);
    assert_int_equal(f2b_fault_log_count(log, -1, F2B_FAULT_PROMPT + F2B_PROMPT_EMPTY_ANSWER), 1);
    f2b_fault_log_free(log);
    log = f2b_fault_log_new((f2b_fault_policy){ .stop_at_first = true, .max_fraction = 1 });
    f2b_fault_log_source(log, "a", 100);
    assert_int_equal(f2b_fault_log_add(log, 0, 3, F2B_FAULT_JSON, "why"), F2B_ERR_DATA);
    assert_non_null(strstr(f2b_last_error(), "a:3: unreadable_json: why"));
    f2b_fault_log_free(log);
}

/* Every record of a published file is used; skipped where the file is not there. */
static void count_good(f2b_source_role role, const char *path, int64_t records, bool with_images)
{
    if (access(path, R_OK) != 0) {
        print_message("%s is not there: skipped\n", path);
        return;
    }
    f2b_source *s = open_as(role, path, NULL);
    assert_non_null(s);
    assert_int_equal(f2b_source_count(s), records);
    f2b_record r = { 0 };
    for (int64_t i = 0; i < records; i++) {
        assert_int_equal(f2b_source_read(s, i, &r), F2B_OK);
        assert_int_equal(r.fault, F2B_FAULT_NONE);
        assert_true(role == F2B_SOURCE_CONVERSATIONS ? r.n_turns > 0 : r.caption[0] != '\0');
        if (!with_images) continue;
        uint8_t *bytes;
        int64_t n;
        assert_int_equal(f2b_source_image(s, &r, &bytes, &n), F2B_OK);
        assert_int_equal(r.fault, F2B_FAULT_NONE);
        f2b_free(bytes);
    }
    f2b_record_clear(&r);
    f2b_source_free(s);
}

static void published_files(void **state)
{
    (void)state;
    count_good(F2B_SOURCE_CONVERSATIONS,
               "../shared/data/llava-conversations/llava_instruct_first60.json", 60, false);
    count_good(F2B_SOURCE_CONVERSATIONS, "../shared/data/easy-vqa/train_llava.json", 4000, false);
    count_good(F2B_SOURCE_CAPTIONS, "../shared/data/coco-images/captions_train.tsv", 650, true);
    count_good(F2B_SOURCE_CAPTIONS, "../shared/data/coco-images/captions_val.tsv", 245, true);
    count_good(F2B_SOURCE_CAPTIONS, "../shared/data/coco-images/captions_train_llava.json", 130,
               true);
    count_good(F2B_SOURCE_CAPTIONS, "../shared/data/coco-images/captions_train.json", 650, false);
    count_good(F2B_SOURCE_CAPTIONS, "../shared/data/cc3m-validation/gcc_validation_first10000.tsv",
               10000, false);
}

static void nothing_leaks(void **state)
{
    (void)state;
    assert_int_equal(f2b_bytes_in_use(F2B_TAG_DATA), 0);
    assert_int_equal(f2b_bytes_in_use(F2B_TAG_FILES), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llava_conversations), cmocka_unit_test(captions_of_three_formats_agree),
        cmocka_unit_test(tsv_faults), cmocka_unit_test(long_rows_and_texts),
        cmocka_unit_test(files_that_cannot_be_divided), cmocka_unit_test(coco_faults),
        cmocka_unit_test(image_names_stay_in_their_folder),
        cmocka_unit_test(cached_index_is_used_and_checked),
        cmocka_unit_test(faults_are_counted_once_and_stop), cmocka_unit_test(published_files),
        cmocka_unit_test(nothing_leaks),
    };
    return cmocka_run_group_tests(tests, fixture_begin, fixture_end);
}
