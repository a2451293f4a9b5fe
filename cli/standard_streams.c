/* See standard_streams.h. */
#include "cli/standard_streams.h"

#include <fcntl.h>
#include <unistd.h>

void f2b_streams_hold(void)
{
    for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; stream++)
        if (fcntl(stream, F_GETFD) < 0)         /* the lowest number that is free is this one */
            (void)!open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}
