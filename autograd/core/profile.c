/* See profile.h. Ops run on one thread at a time, so nothing here needs a lock. */
#include "autograd/core/profile.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_ROWS = 128 };

/* An op of a device whose end the program has not seen yet. */
typedef struct span {
    int row;
    f2b_moment *from, *to;
} span;

static f2b_profile_row table[MAX_ROWS];
static int n_rows;
static bool enabled;
static span *spans;                         /* a ring, in order of work */
static int64_t first, n_spans, capacity;
static f2b_moment **spare;                  /* moments for use again */
static int64_t n_spare, spare_capacity;

void f2b_profile_enable(bool on) { enabled = on; }

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- Moments ---- */

static f2b_moment *take_moment(f2b_device device)
{
    f2b_moment *m = n_spare > 0 ? spare[--n_spare] : f2b_moment_new(device);
    if (m != NULL && f2b_moment_set(m) == F2B_OK) return m;
    f2b_moment_free(m);
    return NULL;
}

static void give_back(f2b_moment *m)
{
    if (n_spare == spare_capacity) {
        const int64_t more = spare_capacity > 0 ? 2 * spare_capacity : 256;
        f2b_moment **grown = f2b_realloc(spare, (size_t)more * sizeof *spare, F2B_TAG_OTHER);
        if (grown == NULL) {
            f2b_moment_free(m);
            return;
        }
        spare = grown, spare_capacity = more;
    }
    spare[n_spare++] = m;
}

/* ---- Ops that a device still works on ---- */

static bool push(span s)
{
    if (n_spans == capacity) {
        const int64_t more = capacity > 0 ? 2 * capacity : 256;
        span *grown = f2b_alloc_host((size_t)more * sizeof *grown, F2B_TAG_OTHER);
        if (grown == NULL) return false;
        for (int64_t i = 0; i < n_spans; i++) grown[i] = spans[(first + i) % capacity];
        f2b_free(spans);
        spans = grown, first = 0, capacity = more;
    }
    spans[(first + n_spans++) % capacity] = s;
    return true;
}

/* The time of the earliest, which is over. */
static void settle(void)
{
    const span s = spans[first];
    double seconds = 0;
    first = (first + 1) % capacity;
    n_spans--;
    if (f2b_moment_seconds(s.from, s.to, &seconds) == F2B_OK) table[s.row].seconds += seconds;
    give_back(s.from);
    give_back(s.to);
}

static void settle_all(void)
{
    while (n_spans > 0) {
        if (f2b_moment_wait(spans[first].to) != F2B_OK) f2b_clear_error();  /* of the work itself */
        settle();
    }
    while (n_spare > 0) f2b_moment_free(spare[--n_spare]);
    f2b_free(spans);
    f2b_free(spare);
    spans = NULL, spare = NULL;
    first = capacity = spare_capacity = 0;
}

/* ---- What callers see ---- */

f2b_profile_mark f2b_profile_start(f2b_device device)
{
    if (!enabled) return (f2b_profile_mark){ .on = false };
    if (device.kind == F2B_CPU) return (f2b_profile_mark){ .on = true, .time = now() };
    f2b_moment *m = take_moment(device);
    return (f2b_profile_mark){ .on = m != NULL, .moment = m };
}

static int row_of(const char *name, bool backward)
{
    int i = 0;
    while (i < n_rows && (table[i].backward != backward || strcmp(table[i].name, name) != 0)) i++;
    if (i == n_rows && i < MAX_ROWS)
        table[n_rows++] = (f2b_profile_row){ .name = name, .backward = backward };
    return i;
}

/* The end of an op on the device of `from`. */
static void stop_on_device(f2b_moment *from, int row)
{
    while (n_spans > 0 && f2b_moment_passed(spans[first].to)) settle();
    f2b_moment *to = take_moment(f2b_moment_device(from));
    if (to != NULL && push((span){ row, from, to })) return;
    f2b_moment_free(to);
    give_back(from);
}

void f2b_profile_stop(f2b_profile_mark start, const char *name, bool backward, double flops,
                      double bytes)
{
    if (!start.on) return;
    const int i = row_of(name, backward);
    if (i == MAX_ROWS) {
        if (start.moment != NULL) give_back(start.moment);
        return;
    }
    table[i].calls++;
    table[i].flops += flops;
    table[i].bytes += bytes;
    if (start.moment != NULL) stop_on_device(start.moment, i);
    else table[i].seconds += now() - start.time;
}

static int by_seconds(const void *a, const void *b)
{
    const double x = ((const f2b_profile_row *)a)->seconds, y = ((const f2b_profile_row *)b)->seconds;
    return x < y ? 1 : x > y ? -1 : 0;
}

int f2b_profile_rows(const f2b_profile_row **rows)
{
    settle_all();
    qsort(table, (size_t)n_rows, sizeof *table, by_seconds);
    *rows = table;
    return n_rows;
}

void f2b_profile_reset(void)
{
    settle_all();
    n_rows = 0;
}
