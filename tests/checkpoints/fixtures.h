/* What the tests of checkpoints/ share: cmocka, a folder of their own, small files and arrays. */
#ifndef F2B_TESTS_CHECKPOINTS_FIXTURES_H
#define F2B_TESTS_CHECKPOINTS_FIXTURES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "autograd/core/alloc.h"
#include "autograd/core/status.h"
#include "checkpoints/atomic_file.h"
#include "checkpoints/named_array.h"

/* A fresh folder for one test, in memory where that can be had, because the writers sync every
 * file; its name is static. Setup and teardown of every test here. */
static char temp_folder[64];
static char temp_name[4][256];

static inline int make_temp_folder(void **state)
{
    (void)state;
    strcpy(temp_folder, "/dev/shm/f2b-test-XXXXXX");
    if (mkdtemp(temp_folder)) return 0;
    strcpy(temp_folder, "/tmp/f2b-test-XXXXXX");
    return mkdtemp(temp_folder) ? 0 : -1;
}

static inline int remove_temp_folder(void **state)
{
    (void)state;
    return f2b_folder_remove(temp_folder) == F2B_OK ? 0 : -1;
}

/* temp_folder/name; four names live at a time. */
static inline const char *in_temp(const char *name)
{
    static int slot;
    slot = (slot + 1) % 4;
    snprintf(temp_name[slot], sizeof temp_name[slot], "%s/%s", temp_folder, name);
    return temp_name[slot];
}

static inline void write_bytes(const char *path, const void *data, size_t bytes)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
}

static inline void write_text(const char *path, const char *text)
{
    write_bytes(path, text, strlen(text));
}

static inline char *read_bytes(const char *path, int64_t *bytes)
{
    char *text = f2b_read_file(path, 1 << 30, bytes);
    if (!text) fail_msg("%s", f2b_last_error());
    return text;
}

/* The last error has this status and all of these pieces in its text. */
static inline void assert_failed(f2b_status status, const char *piece, const char *piece2)
{
    if (f2b_last_status() != status || !strstr(f2b_last_error(), piece)
        || !strstr(f2b_last_error(), piece2))
        fail_msg("expected (%s) with \"%s\" and \"%s\", got (%s) \"%s\"", f2b_status_text(status),
                 piece, piece2, f2b_status_text(f2b_last_status()), f2b_last_error());
}

#define assert_ok(expression)                                                                     \
    do {                                                                                          \
        if ((expression) != F2B_OK) fail_msg("%s: %s", #expression, f2b_last_error());            \
    } while (0)

#define F2B_CKPT_TEST(f) cmocka_unit_test_setup_teardown(f, make_temp_folder, remove_temp_folder)

#endif
