/*
 * Devices: which there are, and bytes moved to, from and within them. Work on a device other than
 * the host runs in the order it was asked for; the host waits only where this page says so.
 */
#ifndef F2B_AUTOGRAD_DEVICE_DEVICE_H
#define F2B_AUTOGRAD_DEVICE_DEVICE_H

#include <stdbool.h>

#include "autograd/core/alloc.h"
#include "autograd/core/dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

/** "cpu", "cuda:0", ...; in a ring of thread-local buffers, valid for the next 4 calls. */
const char *f2b_device_name(f2b_device device);

/** Whether this build can drive devices of that kind at all. */
bool f2b_device_built(f2b_device_kind kind);

/**
 * Make the device ready; ops may run on it afterwards. Cheap when it is open already.
 * errors  F2B_ERR_UNSUPPORTED if the build has no such devices; F2B_ERR_DEVICE if there is no
 *         driver, no device of that number, or it does not answer: the text names cause and remedy.
 */
f2b_status f2b_device_open(f2b_device device) F2B_MUST_USE;

/** What the device is, for people: "cuda:0 (NVIDIA H100, 79.6 GiB, sm_90)". Errors as open's. */
f2b_status f2b_device_describe(f2b_device device, char *text, size_t size) F2B_MUST_USE;

/** F2B_OK if the device multiplies 8-bit floats (train.precision fp8): CUDA from sm_89. Errors:
 *  F2B_ERR_UNSUPPORTED of the host, F2B_ERR_DEVICE of an older device, both with what to use instead. */
f2b_status f2b_device_takes_fp8(f2b_device device) F2B_MUST_USE;

/** Whether the scales of such a product are applied within it; elsewhere the bare product of one that is
 *  added to needs a place of its own. */
bool f2b_device_scales_fp8(f2b_device device);

/** Bytes that the process may still take on a device other than the host: free ones, and those that
 *  it keeps for reuse. */
f2b_status f2b_device_available(f2b_device device, int64_t *bytes) F2B_MUST_USE;

/**
 * Copy bytes between places on any two devices, one of which may be the host. `src` may be changed
 * on return. With dst on the host this waits for all earlier work of the device and reports what
 * that work found wrong (an index outside its table, say, as F2B_ERR_DATA).
 */
f2b_status f2b_copy(void *dst, f2b_device to, const void *src, f2b_device from, size_t bytes)
    F2B_MUST_USE;
f2b_status f2b_zero(void *dst, f2b_device device, size_t bytes) F2B_MUST_USE;

/** dst[i] += src[i] on the device, i < n; f32 or bf16 (f64 too on the host). */
f2b_status f2b_add_into(f2b_device device, f2b_dtype dtype, void *dst, const void *src, int64_t n)
    F2B_MUST_USE;

/** *dst = *src, an element of f32 (f64 too on the host), both on the device. */
f2b_status f2b_widen(f2b_device device, double *dst, const void *src, f2b_dtype dtype) F2B_MUST_USE;

/** Wait for all work of the device, and report what it found wrong. */
f2b_status f2b_device_wait(f2b_device device) F2B_MUST_USE;

/**
 * A moment in a device's work: after all that was asked of it before f2b_moment_set, and before all
 * that is asked later. Any thread may wait for it. It may be set again and again.
 */
typedef struct f2b_moment f2b_moment;
f2b_moment *f2b_moment_new(f2b_device device);          /* NULL on error */
void f2b_moment_free(f2b_moment *moment);
f2b_device f2b_moment_device(const f2b_moment *moment);
f2b_status f2b_moment_set(f2b_moment *moment) F2B_MUST_USE;
/** Whether the device has come there; wait until it has. Before the first set: yes. */
bool f2b_moment_passed(const f2b_moment *moment);
f2b_status f2b_moment_wait(const f2b_moment *moment) F2B_MUST_USE;
/** Seconds of the device's own clock between two that have passed. */
f2b_status f2b_moment_seconds(const f2b_moment *from, const f2b_moment *to, double *seconds)
    F2B_MUST_USE;

/**
 * Copy to the host beside its work: `dst` is there once a moment that is set afterwards has passed;
 * later work of the device may change `src`. The host waits only if `dst` was not pinned.
 */
f2b_status f2b_copy_later(void *dst, const void *src, f2b_device from, size_t bytes) F2B_MUST_USE;

/** Lock a block of the host in its place, so that the device reaches it (slow: seconds for 10 GB); and
 *  let it go, before it is freed. Nothing to do where the device is the host. */
f2b_status f2b_pin(f2b_device device, void *block, size_t bytes) F2B_MUST_USE;
void f2b_unpin(f2b_device device, void *block);

#ifdef __cplusplus
}
#endif
#endif
