/*
 * gpu_tests: the tests of all ops and of the device's matrix products in one program, for the device
 * that it is linked with: each file's main is called <name>_main here (tests/gpu.cmake).
 *
 *   gpu_tests            list the tests
 *   gpu_tests NAME       run one; exit code as the test's own
 */
#include <stdio.h>
#include <string.h>

#include "gpu_tests.h"

static const struct {
    const char *name;
    int (*run)(void);
} tests[] = {
#define F2B_X(name) { #name, name##_main },
#include "gpu_tests.inc"
#undef F2B_X
};

int main(int argc, char **argv)
{
    const size_t n = sizeof tests / sizeof *tests;
    for (size_t i = 0; i < n; i++) {
        if (argc < 2) puts(tests[i].name);
        else if (strcmp(argv[1], tests[i].name) == 0) return tests[i].run();
    }
    if (argc < 2) return 0;
    fprintf(stderr, "gpu_tests: there is no test %s\n", argv[1]);
    return 2;
}
