/* What every program sets before it opens anything. */
#ifndef F2B_CLI_PROCESS_H
#define F2B_CLI_PROCESS_H

/**
 * Standard streams that are closed have their numbers taken: writing to such a stream, or reading from it,
 * fails as it does where it is closed. A file that grows beyond the process's limit is an error of the write
 * (SIGXFSZ is ignored), not a silent end.
 */
void f2b_process_prepare(void);

#endif
