/*
 * Where the time goes: calls, seconds, operations and bytes per op and direction. Off unless enabled; one
 * process-wide table. `f2b-train --profile` prints it.
 */
#ifndef F2B_AUTOGRAD_CORE_PROFILE_H
#define F2B_AUTOGRAD_CORE_PROFILE_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct f2b_profile_row {
    const char *name;           /* static */
    bool backward;
    int64_t calls;
    double seconds, flops;
    double bytes;               /* of its tensors, each counted once: the least that must move */
} f2b_profile_row;

void f2b_profile_enable(bool on);
/** Monotonic seconds if enabled, else 0. */
double f2b_profile_start(void);
void f2b_profile_stop(const char *name, bool backward, double start, double flops, double bytes);
/** The rows so far, most expensive first; valid until the next stop. */
int f2b_profile_rows(const f2b_profile_row **rows);
void f2b_profile_reset(void);

#ifdef __cplusplus
}
#endif
#endif
