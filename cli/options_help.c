/* The text of --help, from the same table that the parser reads; and programs with subcommands. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "autograd/core/nearest.h"
#include "cli/exit_codes.h"
#include "cli/options.h"
#include "cli/options_internal.h"
#include "cli/version.h"

enum { WIDTH = 100, HELP_COLUMN = 30 };

/* Print `text` with line breaks between words, from `column` on; later lines start at `indent`. */
static void print_wrapped(const char *text, int column, int indent)
{
    while (*text != '\0') {
        const int word = (int)strcspn(text, " ");
        if (column > indent && column + 1 + word > WIDTH) {
            printf("\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            putchar(' ');
            column++;
        }
        printf("%.*s", word, text);
        column += word;
        text += word;
        text += strspn(text, " ");
    }
    putchar('\n');
}

/* " (default X)", or "" where there is none worth showing. */
static void default_text(const f2b_option *option, char *out, size_t size)
{
    out[0] = '\0';
    if (option->required) {
        snprintf(out, size, " (required)");
    } else if (option->type == F2B_OPTION_INT) {
        const int64_t value = *(const int64_t *)option->target;
        const bool unset = value == 0 && option->min > 0; /* 0 = not given */
        if (!unset) snprintf(out, size, " (default %" PRId64 ")", value);
    } else if (option->type == F2B_OPTION_REAL) {
        snprintf(out, size, " (default %.15g)", *(const double *)option->target);
    } else if (option->type != F2B_OPTION_FLAG) {
        const char *value = *(const char *const *)option->target;
        if (value != NULL) snprintf(out, size, " (default %s)", value);
    }
}

static void print_option(const f2b_option *option)
{
    char text[512], end[128];
    int column = printf("  %s%s%s%s", option->name[1] == '\0' ? "-" : "--", option->name, option->value != NULL ? " " : "",
                        option->value != NULL ? option->value : "");
    if (column + 2 > HELP_COLUMN) {
        printf("\n");
        column = 0;
    }
    printf("%*s", HELP_COLUMN - column, "");
    default_text(option, end, sizeof end);
    snprintf(text, sizeof text, "%s%s", option->help, end);
    print_wrapped(text, HELP_COLUMN, HELP_COLUMN);
}

void f2b_options_help(const f2b_command *command)
{
    f2bi_options all;
    f2bi_options_join(&all, command->options);
    printf("usage: %s [options]%s%s%s\n\n", command->name, command->operands != NULL ? " " : "",
           command->operands != NULL ? command->operands : "",
           command->overrides ? " [key=value ...]" : "");
    print_wrapped(command->summary, 0, 0);
    printf("\n");
    for (int i = 0; i < all.n_own; i++) print_option(all.list[i]);
    if (all.n_own > 0) printf("\nCommon options\n");
    for (int i = all.n_own; i < all.n; i++) print_option(all.list[i]);
    if (command->overrides)
        printf("\nkey=value overrides a key of the configuration file, such as train.seed=7 or\n"
               "'lora.targets=[q_proj,v_proj]'; docs/configuration.md lists all keys.\n");
    if (command->notes != NULL) printf("\n%s", command->notes);
}

static void print_subcommands(const char *program, const char *summary, const f2b_subcommand *table)
{
    printf("usage: %s SUBCOMMAND [options]\n\n", program);
    print_wrapped(summary, 0, 0);
    printf("\n");
    for (const f2b_subcommand *s = table; s->name != NULL; s++) {
        const int column = printf("  %s", s->name);
        printf("%*s", column < 14 ? 14 - column : 1, "");
        print_wrapped(s->summary, 14, 14);
    }
    printf("\nEach has its own --help: %s SUBCOMMAND --help\n", program);
}

int f2b_subcommand_run(const char *program, const char *summary, const f2b_subcommand *table,
                       int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "--help") == 0 || strcmp(name, "--version") == 0) {
        if (name[2] == 'h') print_subcommands(program, summary, table);
        else f2b_version_print(program);
        return f2b_exit_with(program, F2B_OK);
    }
    const char *names[F2BI_MAX_OPTIONS];
    int n = 0;
    for (const f2b_subcommand *s = table; s->name != NULL; s++) {
        if (strcmp(s->name, name) == 0) return s->run(argc - 1, argv + 1);
        F2B_CHECK(n < F2BI_MAX_OPTIONS);
        names[n++] = s->name;
    }
    const char *nearest = argc > 1 ? f2b_nearest_name(name, names, n) : NULL;
    if (argc <= 1) (void)f2b_fail(F2B_ERR_USAGE, "which subcommand? %s --help lists them", program);
    else if (nearest != NULL)
        (void)f2b_fail(F2B_ERR_USAGE, "unknown subcommand \"%s\"; did you mean %s?", name, nearest);
    else
        (void)f2b_fail(F2B_ERR_USAGE, "unknown subcommand \"%s\"; %s --help lists all", name,
                       program);
    return f2b_exit_error(program);
}
