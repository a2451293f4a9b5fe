/* See process.h. */
#include "cli/process.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

/* Else the first files that a program opens get their numbers, and what is meant for people is written into a
 * file of data. */
static void hold_streams(void)
{
    for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; stream++)
        if (fcntl(stream, F_GETFD) < 0)         /* the lowest number that is free is this one */
            (void)!open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

void f2b_process_prepare(void)
{
    hold_streams();
    signal(SIGXFSZ, SIG_IGN);
}
