/* What --version prints. See version.h for the contract. */
#include "cli/version.h"

#include <omp.h>
#include <stdio.h>

#include "autograd/device/device.h"
#include "f2b_version.h"

void f2b_version_print(const char *program)
{
    printf("%s %s (commit %s)\n", program, F2B_VERSION, F2B_COMMIT);
    printf("devices: cpu (%d processors)", omp_get_num_procs());
    char text[320];
    for (int i = 0; f2b_device_describe((f2b_device){ F2B_CUDA, i }, text, sizeof text) == F2B_OK; i++)
        printf(", %s", text);
    f2b_clear_error();
    printf("\n");
}
