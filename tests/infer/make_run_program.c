/*
 * Not a test by itself: writes a run folder with random trained tensors, as if METHOD had been
 * trained on MODEL, for the Python tests of exports.
 *
 *   make_run MODEL RUN METHOD_JSON SEED [projector]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/infer/make_run.h"

int main(int argc, char **argv)
{
    f2b_method method;
    if (argc < 5) return 2;
    const bool projector = argc > 5 && strcmp(argv[5], "projector") == 0;
    if (f2b_method_from_json(&method, argv[3], "METHOD_JSON") == F2B_OK &&
        make_run(argv[1], argv[2], &method, strtoull(argv[4], NULL, 10), projector, false) ==
            F2B_OK)
        return 0;
    fprintf(stderr, "make_run: %s\n", f2b_last_error());
    return 1;
}
