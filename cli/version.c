/* What --version prints. See version.h for the contract. */
#include "cli/version.h"

#include <omp.h>
#include <stdio.h>

#include "autograd/core/alloc.h"
#include "cli/options.h"
#include "f2b_version.h"

void f2b_version_print(const char *program)
{
    printf("%s %s (commit %s)\n", program, F2B_VERSION, F2B_COMMIT);
    printf("devices: cpu (%d processors)", omp_get_num_procs());
    for (int i = 0; i < 64; i++) {
        char name[24];
        f2b_device device;
        snprintf(name, sizeof name, "cuda:%d", i);
        if (f2b_device_parse(name, &device) != F2B_OK) break;
        printf(", %s", name);
    }
    f2b_clear_error();
    printf("\n");
}
