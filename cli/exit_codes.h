/*
 * Exit codes of all programs, and the one place where an error is shown.
 */
#ifndef F2B_CLI_EXIT_CODES_H
#define F2B_CLI_EXIT_CODES_H

#include "autograd/core/status.h"

typedef enum f2b_exit {
    F2B_EXIT_DONE = 0,
    F2B_EXIT_FAILED = 1,
    F2B_EXIT_USAGE = 2,         /* usage or configuration */
    F2B_EXIT_DATA = 3,          /* data or file format */
    F2B_EXIT_DEVICE = 4,        /* device or memory */
    F2B_EXIT_NUMBERS = 5,       /* stopped for bad numbers */
    F2B_EXIT_STOPPED = 75,      /* stopped by a signal with the state saved (EX_TEMPFAIL) */
} f2b_exit;

/** The exit code that stands for a status. */
int f2b_exit_code(f2b_status status);

/**
 * Print "program: message" of this thread's last error on stderr and return its exit code, so that
 * a program can end with `return f2b_exit_error("f2b-data tokenize");`.
 */
int f2b_exit_error(const char *program);

/**
 * As f2b_exit_error for any status: F2B_OK returns 0 and prints nothing. Also finds out whether
 * what was written on stdout arrived: results lost to a full disk or a closed pipe are a failure.
 */
int f2b_exit_with(const char *program, f2b_status status);

#endif
