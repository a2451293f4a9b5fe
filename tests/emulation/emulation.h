/*
 * An emulated CUDA device for tests: cuda:0 of every program it is linked into. Kernels run on the
 * host, a fiber a thread, which take turns at barriers and warp exchanges.
 *
 * What it finds, by aborting with a message that names kernel, block and thread, or under a
 * sanitizer: host code that reads device memory and kernels that are given host memory; barriers
 * that not all threads reach, or that they reach at different lines; warp exchanges with threads
 * missing; launches beyond a device's limits; accesses outside a block of memory (AddressSanitizer).
 * Races show as results that differ between the orders below, or as NaN: fresh device memory and
 * shared memory are filled with it.
 */
#ifndef F2B_TESTS_EMULATION_EMULATION_H
#define F2B_TESTS_EMULATION_EMULATION_H

#include <stddef.h>
#include <stdint.h>

/** In which order blocks run, and threads between two barriers. */
typedef enum f2b_emulation_order {
    F2B_ASCENDING, F2B_DESCENDING, F2B_SHUFFLED, F2B_EMULATION_ORDERS
} f2b_emulation_order;
void f2b_emulation_set_order(f2b_emulation_order order, uint64_t seed);

/** Number of devices (at the start that of F2B_EMULATED_DEVICES in the environment, or 1; 0 is a machine
 *  without one), and memory of each in bytes. */
void f2b_emulation_set_devices(int count);
void f2b_emulation_set_memory(size_t bytes);
/** Compute capability, 90 at the start. cuBLASLt follows it: no 8-bit floats below 89, a scale a row of
 *  theirs at 90 alone. */
void f2b_emulation_set_capability(int capability);
/** cuBLASLt finds an algorithm for scales a row and then refuses to run it, as it does on some devices. */
void f2b_emulation_refuse_late(int on);

/** What the program did so far, to hold it to "nothing in steady state". With F2B_EMULATED_WORK=none
 *  in the environment no work is done, and these are said on stderr at the end (docs/cuda.md). */
typedef struct f2b_emulation_counts {
    int64_t launches, copies, fills, mallocs, frees, host_mallocs, waits;
    int64_t pinned;             /* blocks that are now registered */
    int64_t heuristics;         /* times that cuBLASLt was asked for an algorithm */
    size_t bytes;               /* of device memory now allocated */
} f2b_emulation_counts;
f2b_emulation_counts f2b_emulation_read_counts(void);

/** Whether a pointer is into device memory. */
int f2b_emulation_owns(const void *pointer);

#endif
