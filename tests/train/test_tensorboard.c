/* TensorBoard event files: golden bytes, a file read back record by record, names that sort. The
 * real tensorboard package reads one in test_tensorboard_reader.py. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"
#include "train/tensorboard.h"

static void expect_hex(const uint8_t *bytes, size_t n, const char *hex)
{
    char text[512] = "";
    assert_true(2 * n < sizeof text);
    for (size_t i = 0; i < n; i++) snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    assert_string_equal(text, hex);
}

static void test_checksums(void **state)
{
    (void)state;
    assert_int_equal(f2bi_crc32c("123456789", 9), 0xE3069283);
    assert_int_equal(f2bi_crc32c_masked("123456789", 9), 0xC78AB0E5);
    assert_int_equal(f2bi_crc32c("", 0), 0);
}

static void test_golden_records(void **state)
{
    (void)state;
    uint8_t out[64];
    size_t n = f2bi_tensorboard_record(out, sizeof out, F2BI_EVENT_VERSION, 1.0, 0, NULL, 0);
    expect_hex(out, n,
               "1800000000000000a37f4b2209000000000000f03f1a0d627261696e2e4576656e743a32"
               "86bf577a");
    const f2b_scalar loss = { "loss", 0.5f };
    n = f2bi_tensorboard_record(out, sizeof out, F2BI_EVENT_SCALARS, 2.0, 7, &loss, 1);
    expect_hex(out, n,
               "1a00000000000000129bd82d09000000000000004010072a0d0a0b0a046c6f7373150000003f"
               "c33fc24a");
    /* Too small a buffer is told, whatever is missing. */
    for (size_t capacity = 0; capacity < n; capacity++)
        assert_int_equal(
            f2bi_tensorboard_record(out, capacity, F2BI_EVENT_SCALARS, 2.0, 7, &loss, 1), 0);
}

/* The one file in `folder` that sorts last. */
static void last_file(const char *folder, char *path, size_t size)
{
    char name[300] = "";
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        if (strcmp(entry->d_name, name) > 0) snprintf(name, sizeof name, "%.255s", entry->d_name);
    closedir(dir);
    snprintf(path, size, "%s/%s", folder, name);
}

/* Checks framing and checksums of a file and returns the number of records. */
static int count_records(const char *path)
{
    int64_t n = 0, records = 0;
    uint8_t *bytes = (uint8_t *)f2b_read_file(path, 1 << 20, &n);
    assert_non_null(bytes);
    for (int64_t at = 0; at < n; records++) {
        uint64_t length = 0;
        uint32_t crc;
        assert_true(n - at >= 12);
        for (int i = 7; i >= 0; i--) length = length << 8 | bytes[at + i];
        memcpy(&crc, bytes + at + 8, 4);
        assert_int_equal(crc, f2bi_crc32c_masked(bytes + at, 8));
        assert_true((int64_t)length <= n - at - 16);
        memcpy(&crc, bytes + at + 12 + length, 4);
        assert_int_equal(crc, f2bi_crc32c_masked(bytes + at + 12, length));
        at += 16 + (int64_t)length;
    }
    f2b_free(bytes);
    return (int)records;
}

static void test_files(void **state)
{
    (void)state;
    char folder[] = "/tmp/f2b_tensorboard_XXXXXX", first[512], second[512];
    assert_non_null(mkdtemp(folder));
    f2b_tensorboard *board = f2b_tensorboard_open(folder, 0);
    if (board == NULL) fail_msg("%s", f2b_last_error());
    for (int64_t step = 1; step <= 300; step++) {
        const f2b_metrics_row row = { .step = step,
                                      .loss = 1.0 / (double)step,
                                      .loss_disc = (double)NAN };
        assert_int_equal(f2b_tensorboard_metrics(board, &row), F2B_OK);
    }
    assert_int_equal(f2b_tensorboard_close(board), F2B_OK);
    last_file(folder, first, sizeof first);
    assert_non_null(strstr(first, "/events.out.tfevents."));
    assert_int_equal(count_records(first), 301);

    board = f2b_tensorboard_open(folder, 200); /* in the same second */
    assert_non_null(board);
    assert_int_equal(f2b_tensorboard_close(board), F2B_OK);
    last_file(folder, second, sizeof second);
    assert_string_not_equal(first, second);
    assert_int_equal(count_records(second), 2);

    const f2b_scalar scalar = { "x", 1 };
    f2b_scalar many[F2B_TENSORBOARD_MOST_SCALARS];
    char tag[201];
    memset(tag, 't', 200);
    tag[200] = '\0';
    for (int i = 0; i < F2B_TENSORBOARD_MOST_SCALARS; i++) many[i] = (f2b_scalar){ tag, 1 };
    board = f2b_tensorboard_open(folder, 0);
    assert_non_null(board);
    assert_int_equal(f2b_tensorboard_write(board, INT64_MAX, &scalar, 1), F2B_OK);
    assert_int_equal(f2b_tensorboard_write(board, 1, many, F2B_TENSORBOARD_MOST_SCALARS), F2B_OK);
    assert_int_equal(f2b_tensorboard_close(board), F2B_OK);
    last_file(folder, second, sizeof second);
    assert_int_equal(count_records(second), 3);
    assert_int_equal(f2b_folder_remove(folder), F2B_OK);
    assert_int_equal(f2b_bytes_in_use(F2B_TAG_FILES), 0);

    assert_null(f2b_tensorboard_open("/nowhere", 0));
    assert_int_equal(f2b_last_status(), F2B_ERR_IO);
}

/* With F2B_TENSORBOARD_OUT, leave a run that was resumed there for test_tensorboard_reader.py. */
static void write_for_reader(const char *folder)
{
    for (int part = 0; part < 2; part++) {
        f2b_tensorboard *board = f2b_tensorboard_open(folder, part == 0 ? 0 : 5);
        if (board == NULL) exit(1);
        for (int64_t step = part == 0 ? 1 : 6; step <= (part == 0 ? 8 : 10); step++) {
            const f2b_metrics_row row = { .step = step,
                                          .loss = (double)step + 0.5 * part,
                                          .loss_disc = (double)NAN };
            if (f2b_tensorboard_metrics(board, &row) != F2B_OK) exit(1);
        }
        if (f2b_tensorboard_close(board) != F2B_OK) exit(1);
    }
}

int main(void)
{
    if (getenv("F2B_TENSORBOARD_OUT") != NULL) {
        write_for_reader(getenv("F2B_TENSORBOARD_OUT"));
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checksums),
        cmocka_unit_test(test_golden_records),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
