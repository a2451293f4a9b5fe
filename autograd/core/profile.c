/* See profile.h. Ops run on one thread at a time, so the table needs no lock. */
#include "autograd/core/profile.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_ROWS = 128 };
static f2b_profile_row table[MAX_ROWS];
static int n_rows;
static bool enabled;

void f2b_profile_enable(bool on) { enabled = on; }
void f2b_profile_reset(void) { n_rows = 0; }

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double f2b_profile_start(void) { return enabled ? now() : 0; }

void f2b_profile_stop(const char *name, bool backward, double start, double flops, double bytes)
{
    if (!enabled || start == 0) return;
    int i = 0;
    while (i < n_rows && (table[i].backward != backward || strcmp(table[i].name, name) != 0)) i++;
    if (i == MAX_ROWS) return;
    if (i == n_rows) table[n_rows++] = (f2b_profile_row){ .name = name, .backward = backward };
    table[i].calls++;
    table[i].seconds += now() - start;
    table[i].flops += flops;
    table[i].bytes += bytes;
}

static int by_seconds(const void *a, const void *b)
{
    const double x = ((const f2b_profile_row *)a)->seconds, y = ((const f2b_profile_row *)b)->seconds;
    return x < y ? 1 : x > y ? -1 : 0;
}

int f2b_profile_rows(const f2b_profile_row **rows)
{
    qsort(table, (size_t)n_rows, sizeof *table, by_seconds);
    *rows = table;
    return n_rows;
}
