/* The .npy writer: exact bytes of a known file, pieces, refused shapes, a full disk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "data/npy/npy.h"

static char path[64];

static int make_path(void **state)
{
    (void)state;
    strcpy(path, "/tmp/f2b_npy_XXXXXX");
    const int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_path(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

static void test_bytes(void **state)
{
    (void)state;
    /* np.save(f, np.arange(6, dtype='<i4').reshape(2, 3)) */
    char expected[128 + 24];
    memset(expected, ' ', 128);
    memcpy(expected, "\x93NUMPY\x01\0\x76\0{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3), }",
           10 + 59);
    expected[127] = '\n';
    const int32_t data[6] = { 0, 1, 2, 3, 4, 5 };
    memcpy(expected + 128, data, sizeof data);

    assert_int_equal(f2b_npy_write(path, F2B_NPY_I32, (const int64_t[]){ 2, 3 }, 2, data), F2B_OK);
    char got[200];
    FILE *file = fopen(path, "rb");
    assert_int_equal(fread(got, 1, sizeof got, file), sizeof expected);
    fclose(file);
    assert_memory_equal(got, expected, sizeof expected);
}

static void test_pieces(void **state)
{
    (void)state;
    const float data[4] = { 1, 2, 3, 4 };
    f2b_npy_writer *w = f2b_npy_begin(path, F2B_NPY_F32, (const int64_t[]){ 4 }, 1);
    assert_non_null(w);
    assert_int_equal(f2b_npy_append(w, data, 3), F2B_OK);
    assert_int_equal(f2b_npy_append(w, data + 3, 1), F2B_OK);
    assert_int_equal(f2b_npy_end(w), F2B_OK);

    w = f2b_npy_begin(path, F2B_NPY_F32, (const int64_t[]){ 4 }, 1);
    assert_int_equal(f2b_npy_append(w, data, 3), F2B_OK);
    assert_int_equal(f2b_npy_end(w), F2B_ERR_INVALID);              /* one is missing */
    assert_int_equal(access(path, F_OK), -1);                       /* and nothing is left behind */

    w = f2b_npy_begin(path, F2B_NPY_F32, (const int64_t[]){ 4 }, 1);
    assert_int_equal(f2b_npy_append(w, data, 4), F2B_OK);
    assert_int_equal(f2b_npy_append(w, data, 1), F2B_ERR_INVALID);
    assert_int_not_equal(f2b_npy_end(w), F2B_OK);
    assert_int_equal(f2b_npy_end(NULL), F2B_OK);
}

static void test_errors(void **state)
{
    (void)state;
    const int64_t zero = 0, huge[2] = { INT64_MAX, 2 }, negative = -1;
    assert_int_equal(f2b_npy_write(path, F2B_NPY_I64, &zero, 1, NULL), F2B_OK);
    assert_int_equal(f2b_npy_write(path, F2B_NPY_I64, NULL, 0, &zero), F2B_OK);
    assert_int_equal(f2b_npy_write(path, F2B_NPY_I64, huge, 2, &zero), F2B_ERR_INVALID);
    assert_int_equal(f2b_npy_write(path, F2B_NPY_I64, &negative, 1, &zero), F2B_ERR_INVALID);
    assert_int_equal(f2b_npy_write(path, F2B_NPY_I64, huge, 9, &zero), F2B_ERR_INVALID);
    assert_int_equal(f2b_npy_write("/nowhere/x.npy", F2B_NPY_I64, &zero, 1, NULL), F2B_ERR_IO);
    assert_non_null(strstr(f2b_last_error(), "/nowhere/x.npy"));
}

static void test_full_disk(void **state)
{
    (void)state;
    if (access("/dev/full", W_OK) != 0) skip();
    const float one = 1;
    assert_int_equal(f2b_npy_write("/dev/full", F2B_NPY_F32, NULL, 0, &one), F2B_ERR_IO);
    assert_int_equal(access("/dev/full", W_OK), 0);                 /* a device is never removed */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_bytes, make_path, remove_path),
        cmocka_unit_test_setup_teardown(test_pieces, make_path, remove_path),
        cmocka_unit_test_setup_teardown(test_errors, make_path, remove_path),
        cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
