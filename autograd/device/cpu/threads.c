/*
 * How waiting threads wait. By default GNU OpenMP lets them spin for milliseconds, which on a busy
 * machine takes the processor from the thread they wait for: a step of small ops was five times
 * slower with other work running. A short spin costs next to nothing on an idle one. The variable is read
 * when the OpenMP runtime starts, which is linked statically so that this comes first.
 */
#include <stdlib.h>

#include "autograd/device/cpu/threads.h"

__attribute__((constructor(101))) static void wait_briefly(void)
{
    if (getenv("OMP_WAIT_POLICY") == NULL) (void)setenv("GOMP_SPINCOUNT", "300", 0);
}

int f2b_threads(void) { return omp_get_max_threads(); }
