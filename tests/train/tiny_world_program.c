/* tiny_world DIR: writes the tiny world (support/tiny_world.h) for tests that run programs. */
#include <stdio.h>

#include "tests/support/tiny_world.h"

int main(int argc, char **argv)
{
    if (argc == 2 && f2b_tiny_world_write(argv[1]) == F2B_OK) return 0;
    fprintf(stderr, "tiny_world: %s\n", argc == 2 ? f2b_last_error() : "usage: tiny_world DIR");
    return 1;
}
