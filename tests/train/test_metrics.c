/* metrics.jsonl: the exact form of a line, reading back, cutting on resume, damage. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"
#include "train/metrics.h"

static char folder[32], path[64];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/f2b_metrics_XXXXXX");
    if (mkdtemp(folder) == NULL) return -1;
    snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    return f2b_folder_remove(folder) == F2B_OK ? 0 : -1;
}

static f2b_metrics_row row_of(int64_t step)
{
    return (f2b_metrics_row){ .step = step,
                              .kind = F2B_BATCH_CONVERSATION,
                              .loss = 1.25,
                              .loss_ar = 1.0 / 3.0,
                              .loss_disc = (double)NAN,
                              .lr = 2e-4,
                              .grad_norm = 123456789.75,
                              .samples = 128,
                              .tokens = 20000,
                              .labelled_tokens = 7,
                              .seconds = 0.5,
                              .tokens_per_second = 40000,
                              .data_wait_seconds = 0,
                              .peak_bytes = 10522669875,
                              .skipped = 0 };
}

static void write_steps(int64_t after, int64_t from, int64_t to)
{
    f2b_metrics *metrics = f2b_metrics_open(path, after);
    if (metrics == NULL) fail_msg("%s", f2b_last_error());
    for (int64_t step = from; step <= to; step++) {
        f2b_metrics_row row = row_of(step);
        assert_int_equal(f2b_metrics_write(metrics, &row), F2B_OK);
    }
    f2b_metrics_close(metrics);
}

static void expect_steps(int64_t first, int64_t n)
{
    f2b_metrics_row *rows = NULL;
    int64_t count = 0;
    if (f2b_metrics_read(path, &rows, &count) != F2B_OK) fail_msg("%s", f2b_last_error());
    assert_int_equal(count, n);
    for (int64_t i = 0; i < n; i++) assert_int_equal(rows[i].step, first + i);
    f2b_free(rows);
}

static void append(const char *text)
{
    FILE *file = fopen(path, "ab");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void test_line(void **state)
{
    (void)state;
    f2b_metrics *metrics = f2b_metrics_open(path, 0);
    assert_non_null(metrics);
    f2b_metrics_row row = row_of(1);
    const char *const ids[] = { "conversations[0]:123+conversation_captions[0]:789", "a\"\\\n" };
    row.kind = F2B_BATCH_BOTH;
    row.sample_ids = ids;
    row.n_sample_ids = 2;
    assert_int_equal(f2b_metrics_write(metrics, &row), F2B_OK);
    /* Each line is in the file at once, not at the end. */
    char *text = f2b_read_file(path, 1 << 20, NULL);
    assert_non_null(text);
    assert_string_equal(
        text,
        "{\"step\": 1, \"kind\": \"both\", \"loss\": 1.25, \"loss_ar\": 0.333333333, "
        "\"loss_disc\": null, \"lr\": 0.0002, \"grad_norm\": 123456790, \"samples\": 128, "
        "\"tokens\": 20000, \"labelled_tokens\": 7, \"seconds\": 0.5, "
        "\"tokens_per_second\": 40000, \"data_wait_seconds\": 0, \"peak_bytes\": 10522669875, "
        "\"skipped\": 0, \"sample_ids\": [\"conversations[0]:123+conversation_captions[0]:789\", "
        "\"a\\\"\\\\\\u000a\"]}\n");
    f2b_free(text);
    f2b_metrics_close(metrics);

    f2b_metrics_row *rows = NULL;
    int64_t n = 0;
    assert_int_equal(f2b_metrics_read(path, &rows, &n), F2B_OK);
    assert_int_equal(n, 1);
    assert_int_equal(rows[0].kind, F2B_BATCH_BOTH);
    assert_true(isnan(rows[0].loss_disc));
    assert_true(rows[0].loss_ar == 0.333333333);
    assert_int_equal(rows[0].peak_bytes, 10522669875);
    f2b_free(rows);
    assert_int_equal(f2b_bytes_in_use(F2B_TAG_FILES), 0);
}

static void test_resume(void **state)
{
    (void)state;
    write_steps(0, 1, 10);
    write_steps(6, 7, 8); /* 7 to 10 of the first run are cut off */
    expect_steps(1, 8);
    append("{\"step\": 9, \"kind\": \"capt"); /* killed in the middle of a line */
    expect_steps(1, 8);
    write_steps(8, 9, 12);
    expect_steps(1, 12);
    write_steps(20, 21, 21); /* a log that ends early keeps what it has */
    f2b_metrics_row *rows = NULL;
    int64_t n = 0;
    assert_int_equal(f2b_metrics_read(path, &rows, &n), F2B_OK);
    assert_int_equal(n, 13);
    assert_int_equal(rows[12].step, 21);
    f2b_free(rows);
    write_steps(0, 1, 2); /* a new run */
    expect_steps(1, 2);
}

static void refused(const char *line, const char *message)
{
    write_steps(0, 1, 2);
    append(line);
    f2b_metrics_row *rows = NULL;
    int64_t n = 0;
    assert_int_equal(f2b_metrics_read(path, &rows, &n), F2B_ERR_FORMAT);
    if (strstr(f2b_last_error(), message) == NULL) fail_msg("%s", f2b_last_error());
    assert_null(f2b_metrics_open(path, 5));
    assert_int_equal(f2b_last_status(), F2B_ERR_FORMAT);
    /* What comes after the checkpoint's step is cut off unread. */
    write_steps(1, 2, 2);
    expect_steps(1, 2);
}

static void test_damage(void **state)
{
    (void)state;
    refused("nonsense\n", "metrics.jsonl:3: not a JSON object");
    refused("{}\n", "metrics.jsonl:3: \"step\" is missing");
    refused("{\"step\": 3, \"kind\": \"other\"}\n", "metrics.jsonl:3: \"kind\"");
    refused("{\"step\": 3, \"kind\": \"both\", \"loss\": \"1\"}\n", "metrics.jsonl:3: \"loss\"");
    refused("[[[[[[\n", "metrics.jsonl:3: not a JSON object");
    write_steps(0, 2, 3);
    char *line = f2b_read_file(path, 1 << 20, NULL);
    assert_non_null(line);
    append(line); /* the same steps again */
    f2b_free(line);
    f2b_metrics_row *rows = NULL;
    int64_t n = 0;
    assert_int_equal(f2b_metrics_read(path, &rows, &n), F2B_ERR_FORMAT);
    assert_non_null(strstr(f2b_last_error(), "metrics.jsonl:3: step 2 follows step 3"));
    assert_int_equal(f2b_metrics_read("/nowhere/metrics.jsonl", &rows, &n), F2B_ERR_NOT_FOUND);
    assert_null(f2b_metrics_open("/nowhere/metrics.jsonl", 0));
    assert_int_equal(f2b_last_status(), F2B_ERR_IO);
}

/* A file size limit stands for a full disk. */
static void test_full_disk(void **state)
{
    (void)state;
    assert_int_equal(remove(path), 0);
    f2b_metrics *metrics = f2b_metrics_open(path, 0);
    assert_non_null(metrics);
    struct rlimit before, none;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    none = before;
    none.rlim_cur = 10;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    f2b_metrics_row row = row_of(1);
    const f2b_status status = f2b_metrics_write(metrics, &row);
    f2b_metrics_close(metrics);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(status, F2B_ERR_IO);
    assert_non_null(strstr(f2b_last_error(), path));
    expect_steps(1, 0); /* what there is of the line is passed over */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_line),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
