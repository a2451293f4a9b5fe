/* The run folder: made, locked against a second process, given its configuration. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"
#include "train/run_folder.h"

/* What a second process gets: its status, or 100 where the lock was to be had. */
static int from_another_process(const char *path)
{
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        f2b_run_folder *folder = f2b_run_folder_open(path);
        _exit(folder != NULL ? 100 : -(int)f2b_last_status());
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_lock(void **state)
{
    (void)state;
    char base[] = "/tmp/f2b_run_XXXXXX", path[64], who[64];
    assert_non_null(mkdtemp(base));
    snprintf(path, sizeof path, "%s/runs/a", base);
    f2b_run_folder *folder = f2b_run_folder_open(path);
    if (folder == NULL) fail_msg("%s", f2b_last_error());
    assert_string_equal(f2b_run_folder_path(folder), path);
    assert_int_equal(from_another_process(path), -F2B_ERR_BUSY);
    assert_null(f2b_run_folder_open(path)); /* nor twice in one process */
    snprintf(who, sizeof who, "(pid %d on ", (int)getpid());
    assert_non_null(strstr(f2b_last_error(), who));
    assert_non_null(strstr(f2b_last_error(), path));
    f2b_run_folder_close(folder);
    assert_int_equal(from_another_process(path), 100);
    /* The child ended without closing: the lock went with it. */
    folder = f2b_run_folder_open(path);
    assert_non_null(folder);
    f2b_run_folder_close(folder);
    f2b_run_folder_close(NULL);

    char file[80];
    snprintf(file, sizeof file, "%s/plain", base);
    assert_int_equal(f2b_write_file(file, "x", 1), F2B_OK);
    assert_null(f2b_run_folder_open(file));
    assert_int_equal(f2b_last_status(), F2B_ERR_IO);
    assert_int_equal(f2b_folder_remove(base), F2B_OK);
    assert_int_equal(f2b_bytes_in_use(F2B_TAG_FILES), 0);
}

static void test_config(void **state)
{
    (void)state;
    char base[] = "/tmp/f2b_run_XXXXXX", name[64];
    assert_non_null(mkdtemp(base));
    f2b_run_folder *folder = f2b_run_folder_open(base);
    assert_non_null(folder);
    f2b_config *config = f2b_config_parse("model: {path: m}\nrun: {dir: r}\n"
                                          "data: {conversations: [{path: c}]}\n"
                                          "method: {loss: autoregressive}\n",
                                          "x", "/base", NULL, 0);
    if (config == NULL) fail_msg("%s", f2b_last_error());
    assert_int_equal(f2b_run_folder_write_config(folder, config), F2B_ERR_INVALID);
    config->train.epochs = 0;
    config->train.steps = 12;
    assert_int_equal(f2b_run_folder_write_config(folder, config), F2B_OK);
    snprintf(name, sizeof name, "%s/config.yaml", base);
    f2b_config *read = f2b_config_load(name, NULL, 0);
    if (read == NULL) fail_msg("%s", f2b_last_error());
    assert_int_equal(read->train.steps, 12);
    assert_string_equal(read->model.path, "/base/m");
    assert_int_equal(f2b_config_check_resume(read, config), F2B_OK);
    f2b_config_free(read);
    f2b_config_free(config);
    f2b_run_folder_close(folder);
    assert_int_equal(f2b_folder_remove(base), F2B_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_lock),
                                        cmocka_unit_test(test_config) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
