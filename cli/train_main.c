/* f2b-train: trains Fwd2Bot from a configuration file. */
#include <stdio.h>

#include "autograd/core/alloc.h"
#include "cli/exit_codes.h"
#include "cli/options.h"
#include "train/config.h"

/* A text that was made to be printed; NULL passes the error on. */
static f2b_status print_text(char *text)
{
    if (text == NULL) return f2b_last_status();
    fputs(text, stdout);
    f2b_free(text);
    return F2B_OK;
}

static f2b_status run(const char *path, const f2b_arguments *arguments, bool only_check)
{
    f2b_config *config =
        f2b_config_load(path, (const char *const *)arguments->operands, arguments->n_operands);
    if (config == NULL) return f2b_last_status();
    const f2b_status status =
        only_check ? print_text(f2b_config_write(config))
                   : f2b_fail(F2B_ERR_UNSUPPORTED, "this build cannot train yet; --check works");
    f2b_config_free(config);
    return status;
}

int main(int argc, char **argv)
{
    const char *config = NULL;
    bool only_check = false, help_config = false;
    const f2b_option options[] = {
        { "config", "FILE", F2B_OPTION_TEXT, &config, "configuration (YAML); see configs/" },
        { "check", NULL, F2B_OPTION_FLAG, &only_check, "print the resolved configuration and end" },
        { "help-config", NULL, F2B_OPTION_FLAG, &help_config,
          "print the reference of all configuration keys (Markdown) and end" },
        { 0 },
    };
    const f2b_command command = {
        .name = "f2b-train",
        .options = options,
        .overrides = true,
        .summary = "Train Fwd2Bot from a configuration file.",
    };
    f2b_arguments arguments;
    int exit_code;
    if (!f2b_options_parse(&command, argc, argv, &arguments, &exit_code)) return exit_code;
    if (help_config) return f2b_exit_with(command.name, print_text(f2b_config_reference()));
    if (config == NULL) {
        (void)f2b_fail(F2B_ERR_USAGE, "--config FILE is missing; see --help");
        return f2b_exit_error(command.name);
    }
    return f2b_exit_with(command.name, run(config, &arguments, only_check));
}
