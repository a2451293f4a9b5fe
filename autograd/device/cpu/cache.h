/* The first data cache, as far as it decides how matrices are read. */
#ifndef F2B_AUTOGRAD_DEVICE_CPU_CACHE_H
#define F2B_AUTOGRAD_DEVICE_CPU_CACHE_H

#include <stdbool.h>
#include <stdint.h>

/**
 * Whether rows so many bytes apart push each other out of the first cache before they are used up: a
 * multiple of 4 KiB puts them all in one set, and with 8 ways (AMD up to Zen 4, Intel up to Skylake) the
 * fourteen rows that a kernel reads at a time do not fit. With 12 ways they do not either, but the larger
 * core hides it, and a copy costs more than it saves (docs/benchmarks.md).
 */
bool f2b_rows_collide(int64_t stride);

#endif
