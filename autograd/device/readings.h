/*
 * Numbers that a stretch of work makes on a device and that the host wants when it is over: each is
 * put aside where it is made, and all are read at once, so that the host waits once. On the host the
 * same calls copy numbers.
 */
#ifndef F2B_AUTOGRAD_DEVICE_READINGS_H
#define F2B_AUTOGRAD_DEVICE_READINGS_H

#include "autograd/core/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct f2b_readings {
    f2b_device device;
    int64_t n, capacity;
    double *there;              /* [n] on the device */
    double *here;               /* [n] on the host, as last fetched */
} f2b_readings;

f2b_readings *f2b_readings_new(f2b_device device);
void f2b_readings_free(f2b_readings *readings);
/** Forget all numbers. */
void f2b_readings_clear(f2b_readings *readings);

/** Put aside the first element of x (f32 or f64, on the readings' device) as it is after the work asked
 *  for so far; *number is what it is known by. */
f2b_status f2b_readings_add(f2b_readings *readings, const f2b_tensor *x, int64_t *number) F2B_MUST_USE;

/** A place on the device for a number that an op will write there itself; valid until the next call. */
f2b_status f2b_readings_place(f2b_readings *readings, double **place, int64_t *number) F2B_MUST_USE;

/** Wait for the work asked for so far, read all numbers, and report what the work found wrong. */
f2b_status f2b_readings_fetch(f2b_readings *readings) F2B_MUST_USE;

/** A number, as last fetched. */
double f2b_readings_at(const f2b_readings *readings, int64_t number);

#ifdef __cplusplus
}
#endif
#endif
