/* The three standard streams, before anything else is opened. */
#ifndef F2B_CLI_STANDARD_STREAMS_H
#define F2B_CLI_STANDARD_STREAMS_H

/**
 * Take the numbers of standard streams that are closed. Else the first files that a program opens get
 * them, and what is meant for people is written into a file of data. Writing to such a stream, or reading
 * from it, fails as it does where it is closed.
 */
void f2b_streams_hold(void);

#endif
