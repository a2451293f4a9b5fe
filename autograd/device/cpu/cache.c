/* See cache.h. */
#include "autograd/device/cpu/cache.h"

#include <unistd.h>

enum { WAY = 4096, MANY_WAYS = 12 };

/* Ways of the first cache; where the system does not say, as most processors have them. */
static long ways(void)
{
    static _Atomic long known;
    if (known == 0) {
        const long told = sysconf(_SC_LEVEL1_DCACHE_ASSOC);
        known = told > 0 ? told : 8;
    }
    return known;
}

bool f2b_rows_collide(int64_t stride)
{
    return stride > 0 && stride % WAY == 0 && ways() < MANY_WAYS;
}
