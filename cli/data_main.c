/* f2b-data: looks at data, prepares data. Each subcommand has its own file, cli/data_<name>.c, and
 * one line in data_commands.def. */
#include "cli/data_commands.h"
#include "cli/options.h"

int main(int argc, char **argv)
{
    static const f2b_subcommand table[] = {
#define X(name, summary) { #name, f2b_data_##name, summary },
#include "cli/data_commands.def"
#undef X
        { NULL, NULL, NULL },
    };
    return f2b_subcommand_run("f2b-data", "Look at training data and prepare it.", table, argc,
                              argv);
}
