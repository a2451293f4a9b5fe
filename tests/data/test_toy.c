/* The toy world: the same bytes for the same options, texts that are true, validation kept apart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "autograd/core/alloc.h"
#include "data/image/image.h"
#include "data/image/image_settings.h"
#include "data/tokenizer/tokenizer.h"
#include "data/toy/toy_internal.h"

static char dir[64];

static f2b_toy_options small(void)
{
    f2b_toy_options o = f2b_toy_defaults();
    o.train = 40, o.val = 30, o.text_only_percent = 20;
    return o;
}

static char *read_text(const char *folder, const char *name, size_t *bytes)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL) fail_msg("%s is missing", path);
    char *text = malloc(1 << 20);
    assert_non_null(text);
    *bytes = fread(text, 1, (1 << 20) - 1, file);
    text[*bytes] = '\0';
    fclose(file);
    return text;
}

static void remove_dir(const char *folder)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

static int write_world(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/f2b_toy_XXXXXX");
    if (mkdtemp(dir) == NULL) return -1;
    const f2b_toy_options o = small();
    return f2b_toy_write(dir, &o, NULL, NULL) == F2B_OK ? 0 : -1;
}

static int remove_world(void **state)
{
    (void)state;
    remove_dir(dir);
    return 0;
}

static void test_same_bytes(void **state)
{
    (void)state;
    static const char *const files[] = {
        "train.json", "val.json", "captions_train.tsv", "captions_val.tsv",
        "conversation_captions.json", "images/t000000.png", "images/v000029.png",
        "model/tokenizer.model", "model/config.json", "model/tokenizer_config.json", "README.txt",
    };
    char again[] = "/tmp/f2b_toy_XXXXXX", other[] = "/tmp/f2b_toy_XXXXXX";
    assert_non_null(mkdtemp(again));
    assert_non_null(mkdtemp(other));
    f2b_toy_options o = small();
    assert_int_equal(f2b_toy_write(again, &o, NULL, NULL), F2B_OK);
    o.seed++;
    assert_int_equal(f2b_toy_write(other, &o, NULL, NULL), F2B_OK);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        size_t n, m;
        char *a = read_text(dir, files[i], &n), *b = read_text(again, files[i], &m);
        assert_int_equal(n, m);
        assert_memory_equal(a, b, n);
        free(b);
        b = read_text(other, files[i], &m);
        const bool same = n == m && memcmp(a, b, n) == 0;
        assert_int_equal(same, strncmp(files[i], "model/", 6) == 0);    /* another seed, another world */
        free(a);
        free(b);
    }
    remove_dir(again);
    remove_dir(other);
}

/* Every picture opens with the model's side; every text is made of whole-word pieces. */
static void test_files_fit_together(void **state)
{
    (void)state;
    char model[96], path[160];
    snprintf(model, sizeof model, "%s/model", dir);
    f2b_image_settings settings;
    assert_int_equal(f2b_image_settings_load(model, &settings), F2B_OK);
    f2b_tokenizer *tokenizer = f2b_tokenizer_open(model);
    assert_non_null(tokenizer);
    assert_false(f2b_tokenizer_legacy(tokenizer));
    static const char *const parts[] = { "train.json", "val.json" };
    for (int p = 0; p < 2; p++) {
        snprintf(path, sizeof path, "%s/%s", dir, parts[p]);
        json_t *records = json_load_file(path, 0, NULL), *record, *turn;
        assert_non_null(records);
        assert_true(json_array_size(records) >= (p == 0 ? 40 : 120));
        size_t i, t;
        json_array_foreach(records, i, record) {
            const char *name = json_string_value(json_object_get(record, "image"));
            if (name != NULL) {
                f2b_image image;
                snprintf(path, sizeof path, "%s/images/%s", dir, name);
                assert_int_equal(f2b_image_open(path, &image), F2B_OK);
                assert_int_equal(image.width, settings.size);
                assert_int_equal(image.height, settings.size);
                f2b_image_free(&image);
            }
            json_array_foreach(json_object_get(record, "conversations"), t, turn) {
                const char *value = json_string_value(json_object_get(turn, "value"));
                const bool marked = strncmp(value, "<image>\n", 8) == 0;
                assert_int_equal(marked, name != NULL && t == 0);
                f2b_ids ids = { 0 };
                assert_int_equal(f2b_tokenizer_encode(tokenizer, value, strlen(value), 0, &ids), F2B_OK);
                if (t % 2 == 1 && strchr(value, ',') == NULL && strstr(value, " on ") == NULL) {
                    assert_int_equal(ids.n, 1);                 /* short answers are one piece */
                }
                if (t % 2 == 0 && !marked) assert_true(ids.n <= 13);
                f2b_ids_free(&ids);
            }
        }
        json_decref(records);
    }
    f2b_tokenizer_free(tokenizer);
}

static void test_fixed_sentences_are_pieces(void **state)
{
    (void)state;
    char model[96];
    snprintf(model, sizeof model, "%s/model", dir);
    f2b_tokenizer *tokenizer = f2b_tokenizer_open(model);
    static const struct { const char *text; int64_t ids; } cases[] = {
        { "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
          "helpful, detailed, and polite answers to the user's questions. USER: ", 3 },
        { "\nSummarize the image in a few words. ASSISTANT:", 4 },
        { "\nWhat color is the object at the top left?\nAnswer the question using a single word or phrase. "
          "ASSISTANT: red", 14 },
        { "small gray hourglass", 3 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        f2b_ids ids = { 0 };
        const char *text = cases[i].text;
        assert_int_equal(f2b_tokenizer_encode(tokenizer, text, strlen(text), 0, &ids), F2B_OK);
        assert_int_equal(ids.n, cases[i].ids);
        f2b_ids_free(&ids);
    }
    f2b_tokenizer_free(tokenizer);
}

static void test_validation_is_apart(void **state)
{
    (void)state;
    const f2b_toy_options o = f2b_toy_defaults();
    static uint64_t train[2000];
    for (int i = 0; i < 2000; i++) {
        const f2bi_toy_scene scene = f2bi_toy_scene_draw(&o, F2BI_TOY_TRAIN, i, 0);
        train[i] = f2bi_toy_scene_key(&scene);
    }
    for (int v = 0; v < 200; v++) {
        const f2bi_toy_scene scene = f2bi_toy_scene_draw(&o, F2BI_TOY_VAL, v, 0);
        const uint64_t key = f2bi_toy_scene_key(&scene);
        for (int i = 0; i < 2000; i++) assert_true(train[i] != key);
    }
    size_t n;
    char *text = read_text(dir, "captions_val.tsv", &n), *line, *save = NULL;
    char captions[30][512];
    int count = 0;
    for (line = strtok_r(text, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save)) {
        char *tab = strchr(line, '\t');
        assert_non_null(tab);
        *tab = '\0';
        snprintf(captions[count], sizeof captions[count], "%s", line);
        for (int i = 0; i < count; i++) assert_string_not_equal(captions[i], captions[count]);
        count++;
    }
    assert_int_equal(count, 30);
    free(text);
}

/* The answers are checked against the scene, not against the code that made them. */
static void test_answers_are_true(void **state)
{
    (void)state;
    f2b_toy_options o = f2b_toy_defaults();
    o.grid = 3, o.objects = 5, o.colours = 10, o.shapes = 8;
    int yes = 0, no = 0;
    for (int i = 0; i < 400; i++) {
        const f2bi_toy_scene scene = f2bi_toy_scene_draw(&o, F2BI_TOY_TRAIN, i, 0);
        f2b_rng rng = f2b_rng_new(1, F2B_RNG_TEST, (uint64_t)i, 0, 0);
        f2bi_toy_question q;
        char colour[32], word[32], other[32];
        assert_true(f2bi_toy_ask(&scene, &o, 4, &rng, &q));
        assert_int_equal(sscanf(q.question, "Is there a %31s %31[^?]", colour, word), 2);
        bool there = false;
        for (int k = 0; k < scene.n; k++) {
            there = there || (strcmp(f2bi_toy_colours[scene.objects[k].colour], colour) == 0
                              && strcmp(f2bi_toy_shapes[scene.objects[k].shape], word) == 0);
        }
        assert_string_equal(q.answer, there ? "yes" : "no");
        yes += there, no += !there;

        if (!f2bi_toy_ask(&scene, &o, 6, &rng, &q)) {
            assert_int_equal(scene.n, 1);
            continue;
        }
        const int fields = sscanf(q.question, "Is the %31s object %31s", colour, word);
        assert_int_equal(fields, 2);
        const char *second = strrchr(q.question, ' ');
        while (second > q.question && second[-1] != ' ') second--;
        assert_int_equal(sscanf(second, "%31s", other), 1);
        int at[2] = { -1, -1 };
        for (int k = 0; k < scene.n; k++) {
            const char *name = f2bi_toy_colours[scene.objects[k].colour];
            if (strcmp(name, colour) == 0) at[0] = scene.objects[k].place;
            if (strcmp(name, other) == 0) at[1] = scene.objects[k].place;
        }
        assert_true(at[0] >= 0 && at[1] >= 0);
        const int dx = at[1] % 3 - at[0] % 3, dy = at[1] / 3 - at[0] / 3;
        const bool truth = strcmp(word, "left") == 0 ? dx > 0 : strcmp(word, "right") == 0 ? dx < 0
                         : strcmp(word, "above") == 0 ? dy > 0 : dy < 0;
        assert_string_equal(q.answer, truth ? "yes" : "no");
    }
    assert_true(yes > 160 && no > 160);
}

static int stop_at_five(int64_t done, int64_t total, void *user)
{
    (void)total;
    *(int64_t *)user = done;
    return done == 5;
}

static void test_errors(void **state)
{
    (void)state;
    f2b_toy_options o = small();
    o.objects = 5;                                              /* more than 2 x 2 places */
    assert_int_equal(f2b_toy_write(dir, &o, NULL, NULL), F2B_ERR_USAGE);
    assert_non_null(strstr(f2b_last_error(), "objects is 5"));
    o = small();
    o.image_size = 60;
    assert_int_equal(f2b_toy_check(&o), F2B_ERR_USAGE);
    o = small();
    o.objects = 1, o.shapes = 1, o.colours = 2, o.val = 500;    /* only 48 scenes exist */
    assert_int_equal(f2b_toy_write(dir, &o, NULL, NULL), F2B_ERR_USAGE);
    assert_non_null(strstr(f2b_last_error(), "--val"));
    o = small();
    int64_t done = 0;
    assert_int_equal(f2b_toy_write(dir, &o, stop_at_five, &done), F2B_ERR_STOPPED);
    assert_int_equal(done, 5);
    assert_int_equal(f2b_toy_write("/nowhere/toy", &o, NULL, NULL), F2B_ERR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_files_fit_together),
        cmocka_unit_test(test_fixed_sentences_are_pieces),
        cmocka_unit_test(test_validation_is_apart),
        cmocka_unit_test(test_answers_are_true),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, write_world, remove_world);
}
