/* Statuses to exit codes. See exit_codes.h for the contract. */
#include "cli/exit_codes.h"

#include <stdio.h>

int f2b_exit_code(f2b_status status)
{
    switch (status) {
    case F2B_OK: return F2B_EXIT_DONE;
    case F2B_ERR_USAGE:
    case F2B_ERR_CONFIG: return F2B_EXIT_USAGE;
    case F2B_ERR_IO:
    case F2B_ERR_FORMAT:
    case F2B_ERR_DATA:
    case F2B_ERR_NOT_FOUND: return F2B_EXIT_DATA;
    case F2B_ERR_MEMORY:
    case F2B_ERR_DEVICE:
    case F2B_ERR_UNSUPPORTED: return F2B_EXIT_DEVICE;
    case F2B_ERR_NUMBERS: return F2B_EXIT_NUMBERS;
    case F2B_ERR_STOPPED: return F2B_EXIT_STOPPED;
    case F2B_ERR_INVALID:
    case F2B_ERR_SHAPE:
    case F2B_ERR_DTYPE:
    case F2B_ERR_BUSY: return F2B_EXIT_FAILED;
    }
    return F2B_EXIT_FAILED;
}

int f2b_exit_error(const char *program)
{
    fflush(stdout); /* so that results and message come in order on one terminal */
    fprintf(stderr, "%s: %s\n", program, f2b_last_error());
    return f2b_exit_code(f2b_last_status());
}

int f2b_exit_with(const char *program, f2b_status status)
{
    if (status == F2B_OK && (fflush(stdout) != 0 || ferror(stdout)))
        status = f2b_fail_errno(F2B_ERR_IO, "cannot write the results to standard output");
    return status == F2B_OK ? F2B_EXIT_DONE : f2b_exit_error(program);
}
