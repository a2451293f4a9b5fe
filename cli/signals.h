/*
 * SIGINT, SIGTERM and SIGUSR1 ask a program to save its state and end; they only set a flag. A
 * second SIGINT ends the program at once. SIGPIPE is ignored: the write fails.
 */
#ifndef F2B_CLI_SIGNALS_H
#define F2B_CLI_SIGNALS_H

#include <stdbool.h>

/** Install the handlers, once, before threads start. */
void f2b_signals_install(void);

/**
 * Whether a signal asked to stop. Of the form that library callbacks take: `context` is not used.
 * Safe from any thread.
 */
bool f2b_signals_stop(void *context);

/** "SIGINT", "SIGTERM" or "SIGUSR1", whichever came last; NULL if none came. */
const char *f2b_signals_name(void);

#endif
