/*
 * How waiting threads wait. By default GNU OpenMP lets them spin for milliseconds, which on a busy
 * machine takes the processor from the thread they wait for: a step of small ops was five times
 * slower with other work running. A short spin costs about what going to sleep and waking up does: with 600
 * turns a toy step takes 0.89 of the time that it takes with 300 on an idle machine, 1.3 times on a busy one.
 * The variable is read when the OpenMP runtime starts, which is linked statically so that this comes first.
 */
#include <stdlib.h>

#include "autograd/device/cpu/threads.h"

__attribute__((constructor(101))) static void wait_briefly(void)
{
    if (getenv("OMP_WAIT_POLICY") == NULL) (void)setenv("GOMP_SPINCOUNT", "600", 0);
}

int f2b_threads(void) { return omp_get_max_threads(); }
