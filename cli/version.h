/*
 * What --version prints.
 */
#ifndef F2B_CLI_VERSION_H
#define F2B_CLI_VERSION_H

/** Version, commit, and the devices that this build can use on this machine, on stdout. */
void f2b_version_print(const char *program);

#endif
