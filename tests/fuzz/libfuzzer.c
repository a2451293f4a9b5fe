/* Clang's libFuzzer over one format, $F2B_FUZZ_FORMAT: built and run by scripts/fuzz.sh alone. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/fuzz_formats.h"

static const f2b_fuzz_format *format;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    const char *name = getenv("F2B_FUZZ_FORMAT");
    format = f2b_fuzz_find(name != NULL ? name : "");
    if (format == NULL) {
        fprintf(stderr, "F2B_FUZZ_FORMAT names no format\n");
        exit(2);
    }
    atexit(f2b_fuzz_end);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    format->read(bytes, n);
    return 0;
}
