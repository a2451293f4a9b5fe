/*
 * The command line of every program: one table of options drives parsing and `--help` alike.
 *
 *     int f2b_data_tokenize(int argc, char **argv)      // argv[0] is not read
 *     {
 *         const char *model = NULL;
 *         bool json = false;
 *         const f2b_option options[] = {
 *             { "model", "DIR", F2B_OPTION_TEXT, &model, "model folder with tokenizer.model",
 *               .required = true },
 *             { "json", NULL, F2B_OPTION_FLAG, &json, "each line is a JSON string" },
 *             { 0 }
 *         };
 *         const f2b_command command = { .name = "f2b-data tokenize", .options = options,
 *                                       .summary = "Lines of text on stdin to token ids." };
 *         f2b_arguments arguments;
 *         int exit_code;
 *         if (!f2b_options_parse(&command, argc, argv, &arguments, &exit_code)) return exit_code;
 *         return f2b_exit_with(command.name, work(model, json));
 *     }
 *
 * Forms: --name VALUE, --name=VALUE, a flag alone, and operands anywhere; `--` ends the options. An
 * option whose name is one letter is also -n VALUE.
 */
#ifndef F2B_CLI_OPTIONS_H
#define F2B_CLI_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "autograd/core/alloc.h"

typedef enum f2b_option_type {
    F2B_OPTION_FLAG,        /* target bool: set to true */
    F2B_OPTION_TEXT,        /* target const char *: points into argv */
    F2B_OPTION_INT,         /* target int64_t, within [min, max] unless both are 0 */
    F2B_OPTION_REAL,        /* target double, finite, within [min, max] unless both are 0 */
    F2B_OPTION_CHOICE,      /* target const char *: one of `value`, "a|b|c" */
} f2b_option_type;

/** One option. A target's value before parsing is its default and is shown by --help. */
typedef struct f2b_option {
    const char *name;       /* without the dashes; NULL ends the table */
    const char *value;      /* how --help calls the value: "FILE", "N", "a|b|c"; NULL for a flag */
    f2b_option_type type;
    void *target;
    const char *help;       /* one line */
    double min, max;
    bool required;
} f2b_option;

/** A program or subcommand. */
typedef struct f2b_command {
    const char *name;               /* "f2b-data tokenize": messages and help begin with it */
    const char *summary;            /* what it does, a sentence or two */
    const f2b_option *options;      /* ends with { 0 }; the common options are added */
    const char *operands;           /* how help calls the operands; NULL: none are taken */
    int min_operands, max_operands; /* max 0 with operands not NULL: any number */
    bool overrides;                 /* operands are configuration overrides, KEY=VALUE */
    const char *notes;              /* shown below the options, lines end with \n; NULL if none */
} f2b_command;

/** What the common options said, and the operands. Borrows from argv; nothing to free. */
typedef struct f2b_arguments {
    f2b_device device;
    int threads;                    /* already given to OpenMP */
    bool quiet;
    int n_operands;
    char **operands;                /* in their order; a part of argv, which is permuted for it */
} f2b_arguments;

/**
 * Read the command line: argv[1..argc-1]. true: go on. false: end with *exit_code, because --help
 * or --version was answered on stdout (0), the usage is wrong (2) or the device is not there (4);
 * then the message was printed on stderr.
 */
bool f2b_options_parse(const f2b_command *command, int argc, char **argv, f2b_arguments *arguments,
                       int *exit_code);

/** Print the help text of a command on stdout. */
void f2b_options_help(const f2b_command *command);

/** "auto", "cpu", "cuda", "cuda:1" to a device that is there. F2B_ERR_USAGE for other texts;
 *  F2B_ERR_UNSUPPORTED or F2B_ERR_DEVICE where it cannot be used; the text says what to do. `auto`
 *  takes the CPU then, and leaves the text. */
f2b_status f2b_device_parse(const char *text, f2b_device *device);

/** One subcommand of a program such as f2b-data; run's argv[0] is the subcommand's name. */
typedef struct f2b_subcommand {
    const char *name;               /* NULL ends the table */
    int (*run)(int argc, char **argv);
    const char *summary;            /* one line */
} f2b_subcommand;

/** Run argv[1]'s entry of the table and return its exit code; answers --help and --version
 * itself. */
int f2b_subcommand_run(const char *program, const char *summary, const f2b_subcommand *table,
                       int argc, char **argv);

#endif
