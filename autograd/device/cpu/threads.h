/*
 * The processor threads that kernels use.
 */
#ifndef F2B_AUTOGRAD_DEVICE_CPU_THREADS_H
#define F2B_AUTOGRAD_DEVICE_CPU_THREADS_H

#include <omp.h>

/** Threads of the next parallel region: what OMP_NUM_THREADS or --threads says, else the cores. */
int f2b_threads(void);

#endif
