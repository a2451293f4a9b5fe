/* Signals set the flag, a second SIGINT ends the program; the progress line off a terminal. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/progress.h"
#include "cli/signals.h"

/* In a child: install, raise all of `numbers` (0 ends them), report what the flag says. Returns the
 * wait status. */
static int child_with(const int *numbers, const char *name)
{
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        f2b_signals_install();
        if (f2b_signals_stop(NULL) || f2b_signals_name() != NULL) _exit(1);
        for (; *numbers != 0; numbers++) raise(*numbers);
        const char *last = f2b_signals_name();
        const bool same = name == NULL ? last == NULL : last != NULL && strcmp(name, last) == 0;
        _exit(same && f2b_signals_stop(NULL) == (name != NULL) ? 0 : 2);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void test_signals(void **state)
{
    (void)state;
    assert_int_equal(child_with((const int[]){ 0 }, NULL), 0);
    assert_int_equal(child_with((const int[]){ SIGPIPE, 0 }, NULL), 0);
    assert_int_equal(child_with((const int[]){ SIGINT, 0 }, "SIGINT"), 0);
    assert_int_equal(child_with((const int[]){ SIGTERM, SIGTERM, 0 }, "SIGTERM"), 0);
    assert_int_equal(child_with((const int[]){ SIGUSR1, SIGUSR1, 0 }, "SIGUSR1"), 0);
    assert_int_equal(child_with((const int[]){ SIGTERM, SIGINT, 0 }, "SIGINT"), 0);
    const int status = child_with((const int[]){ SIGINT, SIGINT, 0 }, "SIGINT");
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
    const int mixed = child_with((const int[]){ SIGINT, SIGUSR1, SIGINT, 0 }, "SIGINT");
    assert_true(WIFSIGNALED(mixed) && WTERMSIG(mixed) == SIGINT);
}

/* What a progress prints to a file. */
static void progress_text(bool quiet, bool terminal, char *text, size_t size)
{
    f2b_progress progress = f2b_progress_start(quiet);
    progress.out = tmpfile();
    assert_non_null(progress.out);
    progress.terminal = terminal;
    f2b_progress_show(&progress, false, "step %d", 1000);
    f2b_progress_show(&progress, false, "step %d", 2); /* too soon */
    f2b_progress_note(&progress, "saved");
    f2b_progress_show(&progress, true, "step %d", 3);
    f2b_progress_end(&progress);
    rewind(progress.out);
    text[fread(text, 1, size - 1, progress.out)] = '\0';
    fclose(progress.out);
}

static void test_progress(void **state)
{
    (void)state;
    char text[256];
    progress_text(false, false, text, sizeof text);
    assert_string_equal(text, "step 1000\nsaved\nstep 3\n");
    progress_text(false, true, text, sizeof text);
    assert_string_equal(text, "\rstep 1000\r         \rsaved\n\rstep 3\n");
    progress_text(true, false, text, sizeof text);
    assert_string_equal(text, "");
    const f2b_progress progress = f2b_progress_start(false);
    assert_true(f2b_progress_eta(&progress, 0, 10) < 0);
    assert_true(f2b_progress_eta(&progress, 10, 10) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_signals),
                                        cmocka_unit_test(test_progress) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
