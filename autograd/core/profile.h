/*
 * Where the time goes: calls, seconds, operations and bytes per op and direction. Off unless enabled; one
 * process-wide table. `f2b-train --profile` prints it.
 *
 * A device other than the host works behind the program: an op's time there is what passes between two
 * moments (device.h) set before and after its launches, which are read once they have passed. The
 * program waits for none of them before it asks for the rows.
 */
#ifndef F2B_AUTOGRAD_CORE_PROFILE_H
#define F2B_AUTOGRAD_CORE_PROFILE_H

#include <stdbool.h>
#include <stdint.h>

#include "autograd/device/device.h"

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

/** The beginning of an op: on the host a time, on a device a moment; nothing while not enabled. */
typedef struct f2b_profile_mark {
    bool on;
    double time;
    f2b_moment *moment;
} f2b_profile_mark;
f2b_profile_mark f2b_profile_start(f2b_device device);
/** Its end. `flops` and `bytes` are the op's. */
void f2b_profile_stop(f2b_profile_mark start, const char *name, bool backward, double flops,
                      double bytes);

/** The rows so far, most expensive first; valid until the next stop. Waits for ops of a device. */
int f2b_profile_rows(const f2b_profile_row **rows);
/** Forget all rows. */
void f2b_profile_reset(void);

#ifdef __cplusplus
}
#endif
#endif
