/* The subcommands of f2b-data, declared from their list. */
#ifndef F2B_CLI_DATA_COMMANDS_H
#define F2B_CLI_DATA_COMMANDS_H

#define X(name, summary) int f2b_data_##name(int argc, char **argv);
#include "cli/data_commands.def"
#undef X

#endif
