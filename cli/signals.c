/* The stop flag. See signals.h for the contract. */
#include "cli/signals.h"

#include <signal.h>
#include <stddef.h>
#include <string.h>

static volatile sig_atomic_t received;    /* number of the last signal, 0 = none */
static volatile sig_atomic_t interrupted; /* a SIGINT came */

static void on_signal(int number)
{
    if (number == SIGINT && interrupted) {
        /* Blocked while its handler runs: the default action takes place on return. */
        signal(SIGINT, SIG_DFL);
        raise(SIGINT);
    }
    if (number == SIGINT) interrupted = 1;
    received = number;
}

void f2b_signals_install(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART; /* a read under way goes on; who waits looks at the flag */
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    /* A reader that went away (`| head`) is an error of the write, told by its status. */
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
}

bool f2b_signals_stop(void *context)
{
    (void)context;
    return received != 0;
}

const char *f2b_signals_name(void)
{
    switch (received) {
    case 0: return NULL;
    case SIGINT: return "SIGINT";
    case SIGTERM: return "SIGTERM";
    default: return "SIGUSR1";
    }
}
