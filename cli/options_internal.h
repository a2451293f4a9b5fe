/* Shared by options.c and options_help.c: the options that every program has. */
#ifndef F2B_CLI_OPTIONS_INTERNAL_H
#define F2B_CLI_OPTIONS_INTERNAL_H

#include "cli/options.h"

enum { F2BI_MAX_OPTIONS = 64, F2BI_COMMON_OPTIONS = 5, F2BI_MAX_THREADS = 4096 };

typedef struct f2bi_common {
    const char *device;
    int64_t threads;
    bool quiet, help, version;
} f2bi_common;

/** A command's own options and the common ones, in the order of --help. Borrows both tables. */
typedef struct f2bi_options {
    f2bi_common common;
    f2b_option common_table[F2BI_COMMON_OPTIONS];
    int n, n_own;
    const f2b_option *list[F2BI_MAX_OPTIONS];
} f2bi_options;

/** `all` points into itself: it must stay where it is. */
void f2bi_options_join(f2bi_options *all, const f2b_option *own);

#endif
