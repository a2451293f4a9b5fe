/* Parsing the command line against a table. See options.h for the contract; help is in
 * options_help.c. */
#include "cli/options.h"

#include <errno.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/core/nearest.h"
#include "autograd/device/cpu/products.h"
#include "autograd/device/device.h"
#include "cli/exit_codes.h"
#include "cli/options_internal.h"
#include "cli/process.h"
#include "cli/version.h"

f2b_status f2b_device_parse(const char *text, f2b_device *device)
{
    *device = F2B_HOST;
    if (strcmp(text, "cpu") == 0) return F2B_OK;
    const bool automatic = strcmp(text, "auto") == 0;
    if (!automatic) {
        const char *digits = strncmp(text, "cuda:", 5) == 0 ? text + 5 : "0";
        if (strcmp(text, "cuda") != 0 &&
            (digits != text + 5 || strlen(digits) < 1 || strlen(digits) > 3 ||
             strspn(digits, "0123456789") != strlen(digits)))
            return f2b_fail(F2B_ERR_USAGE, "--device is auto, cpu, cuda or cuda:N, not \"%s\"",
                            text);
        *device = (f2b_device){ F2B_CUDA, atoi(digits) };
    } else {
        *device = (f2b_device){ F2B_CUDA, 0 };
    }
    if (f2b_device_open(*device) == F2B_OK) return F2B_OK;
    if (!automatic) return f2b_fail_context("--device %s", text);
    *device = F2B_HOST;
    return F2B_OK;
}

/* A build for other devices that finds none says why, once; a build for the processor alone has
 * nothing to say. */
static void say_where(const char *program, const char *text, const f2b_arguments *arguments)
{
    if (strcmp(text, "auto") != 0 || arguments->device.kind != F2B_CPU) return;
    if (f2b_device_built(F2B_CUDA) && !arguments->quiet)
        fprintf(stderr, "%s: running on the CPU: %s\n", program, f2b_last_error());
    f2b_clear_error();
}

static const f2b_option *find(const f2bi_options *all, const char *name, size_t length)
{
    for (int i = 0; i < all->n; i++)
        if (strlen(all->list[i]->name) == length && strncmp(all->list[i]->name, name, length) == 0)
            return all->list[i];
    return NULL;
}

void f2bi_options_join(f2bi_options *all, const f2b_option *own)
{
    f2bi_common *c = &all->common;
    *c = (f2bi_common){ .device = "auto" };
    const f2b_option common[F2BI_COMMON_OPTIONS] = {
        { "device", "auto|cpu|cuda[:N]", F2B_OPTION_TEXT, &c->device,
          "where to compute; auto takes a GPU where there is one" },
        { "threads", "N", F2B_OPTION_INT, &c->threads,
          "processor threads; without it OMP_NUM_THREADS, or else all processors", .min = 1,
          .max = F2BI_MAX_THREADS },
        { "quiet", NULL, F2B_OPTION_FLAG, &c->quiet, "no progress, only results and errors" },
        { "help", NULL, F2B_OPTION_FLAG, &c->help, "print this text and end" },
        { "version", NULL, F2B_OPTION_FLAG, &c->version,
          "print version, commit and devices and end" },
    };
    memcpy(all->common_table, common, sizeof common);
    all->n = 0;
    for (const f2b_option *o = own; o != NULL && o->name != NULL; o++) {
        F2B_CHECK(all->n < F2BI_MAX_OPTIONS - F2BI_COMMON_OPTIONS);
        all->list[all->n++] = o;
    }
    all->n_own = all->n;
    for (int i = 0; i < F2BI_COMMON_OPTIONS; i++) all->list[all->n++] = &all->common_table[i];
}

static f2b_status unknown(const f2bi_options *all, const char *text)
{
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(text, "="), text);
    const char *names[F2BI_MAX_OPTIONS];
    for (int i = 0; i < all->n; i++) names[i] = all->list[i]->name;
    const char *nearest = f2b_nearest_name(name, names, all->n);
    if (nearest == NULL) return f2b_fail(F2B_ERR_USAGE, "unknown option --%s; see --help", name);
    return f2b_fail(F2B_ERR_USAGE, "unknown option --%s; did you mean --%s?", name, nearest);
}

static bool is_choice(const char *choices, const char *text)
{
    const size_t length = strlen(text);
    for (const char *c = choices; length > 0;) {
        const size_t n = strcspn(c, "|");
        if (n == length && strncmp(c, text, n) == 0) return true;
        if (c[n] == '\0') return false;
        c += n + 1;
    }
    return false;
}

static f2b_status read_number(const f2b_option *option, const char *text)
{
    const bool whole = option->type == F2B_OPTION_INT;
    char *end = NULL;
    errno = 0;
    const long long i = whole ? strtoll(text, &end, 10) : 0;
    const double d = whole ? (double)i : strtod(text, &end);
    if (end == text || *end != '\0' || errno == ERANGE || !isfinite(d))
        return f2b_fail(F2B_ERR_USAGE, "--%s takes %s, not \"%s\"", option->name,
                        whole ? "a whole number" : "a number", text);
    if ((option->min != 0 || option->max != 0) && (d < option->min || d > option->max))
        return f2b_fail(F2B_ERR_USAGE, "--%s is from %.15g to %.15g, not %s", option->name,
                        option->min, option->max, text);
    if (whole) *(int64_t *)option->target = i;
    else *(double *)option->target = d;
    return F2B_OK;
}

static f2b_status set(const f2b_option *option, const char *text)
{
    switch (option->type) {
    case F2B_OPTION_FLAG: *(bool *)option->target = true; return F2B_OK;
    case F2B_OPTION_TEXT: *(const char **)option->target = text; return F2B_OK;
    case F2B_OPTION_CHOICE:
        if (!is_choice(option->value, text))
            return f2b_fail(F2B_ERR_USAGE, "--%s is one of %s, not \"%s\"", option->name,
                            option->value, text);
        *(const char **)option->target = text;
        return F2B_OK;
    case F2B_OPTION_INT:
    case F2B_OPTION_REAL: return read_number(option, text);
    }
    return F2B_OK;
}

/* "-k", where an option has that name of one letter. */
static bool is_short(const f2bi_options *all, const char *argument)
{
    return argument[0] == '-' && argument[1] != '\0' && argument[2] == '\0' &&
           find(all, argument + 1, 1) != NULL;
}

/* One argument that names an option, and its value, which may be the argument after it. */
static f2b_status read_option(const f2bi_options *all, int argc, char **argv, int *at, bool *seen)
{
    const char *name = argv[*at] + (is_short(all, argv[*at]) ? 1 : 2);
    const size_t length = strcspn(name, "=");
    const f2b_option *option = find(all, name, length);
    if (option == NULL) return unknown(all, name);
    for (int i = 0; i < all->n; i++) {
        if (all->list[i] != option) continue;
        if (seen[i] && option->type != F2B_OPTION_FLAG)
            return f2b_fail(F2B_ERR_USAGE, "--%s is given twice", option->name);
        seen[i] = true;
    }
    const char *value = name[length] == '=' ? name + length + 1 : NULL;
    if (option->type == F2B_OPTION_FLAG) {
        if (value != NULL) return f2b_fail(F2B_ERR_USAGE, "--%s takes no value", option->name);
        return set(option, NULL);
    }
    if (value == NULL) {
        if (*at + 1 >= argc || strncmp(argv[*at + 1], "--", 2) == 0)
            return f2b_fail(F2B_ERR_USAGE, "--%s needs a value: --%s %s", option->name,
                            option->name, option->value);
        value = argv[++*at];
    }
    return set(option, value);
}

static f2b_status check_operands(const f2b_command *command, const f2b_arguments *a)
{
    const int most = command->operands == NULL && !command->overrides ? 0
                     : command->max_operands > 0                      ? command->max_operands
                                                                      : INT32_MAX;
    if (a->n_operands > most)
        return f2b_fail(F2B_ERR_USAGE, "what is \"%s\"? %s operands; see --help", a->operands[most],
                        most == 0 ? "There are no" : "Too many");
    if (a->n_operands < command->min_operands)
        return f2b_fail(F2B_ERR_USAGE, "%s is missing; see --help", command->operands);
    for (int i = 0; command->overrides && i < a->n_operands; i++) {
        const char *text = a->operands[i];
        if (strchr(text, '=') == NULL || text[0] == '=')
            return f2b_fail(F2B_ERR_USAGE,
                            "what is \"%s\"? An override of the configuration reads "
                            "KEY=VALUE, such as train.seed=7",
                            text);
    }
    return F2B_OK;
}

/* Operands are moved to argv[1..], in their order: they never come later than where they stood. */
static f2b_status read_all(const f2b_command *command, const f2bi_options *all, int argc,
                           char **argv, f2b_arguments *arguments)
{
    bool seen[F2BI_MAX_OPTIONS] = { false };
    arguments->operands = argv + 1;
    bool ended = false;
    for (int i = 1; i < argc; i++) {
        const bool dashes = strncmp(argv[i], "--", 2) == 0;
        if (!ended && dashes && argv[i][2] == '\0') {
            ended = true;
        } else if (!ended && (dashes || is_short(all, argv[i]))) {
            F2B_TRY(read_option(all, argc, argv, &i, seen));
        } else if (!ended && argv[i][0] == '-' && argv[i][1] != '\0') {
            return f2b_fail(F2B_ERR_USAGE, "unknown option %s: options have long names, see --help",
                            argv[i]);
        } else {
            arguments->operands[arguments->n_operands++] = argv[i];
        }
    }
    for (int i = 0; i < all->n; i++)
        if (all->list[i]->required && !seen[i])
            return f2b_fail(F2B_ERR_USAGE, "--%s %s is missing; see --help", all->list[i]->name,
                            all->list[i]->value);
    return check_operands(command, arguments);
}

/* An environment variable, for it is no choice that a user should need: to go on with a run of another
 * processor in that one's way, and to compare. */
static f2b_status choose_products(void)
{
    return f2b_products_choose(getenv("F2B_CPU_PRODUCTS")) == F2B_OK
               ? F2B_OK : f2b_fail_context("F2B_CPU_PRODUCTS");
}

bool f2b_options_parse(const f2b_command *command, int argc, char **argv, f2b_arguments *arguments,
                       int *exit_code)
{
    f2b_process_prepare();
    *arguments = (f2b_arguments){ .device = F2B_HOST };
    f2bi_options all;
    f2bi_options_join(&all, command->options);
    *exit_code = F2B_EXIT_DONE;
    /* Asked for help, a program gives it, whatever else is on the line. */
    bool help = false, version = false;
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        help = help || strcmp(argv[i], "--help") == 0;
        version = version || strcmp(argv[i], "--version") == 0;
    }
    if (help || version) {
        if (help) f2b_options_help(command);
        else f2b_version_print(command->name);
        *exit_code = f2b_exit_with(command->name, F2B_OK);
        return false;
    }
    if (read_all(command, &all, argc, argv, arguments) != F2B_OK ||
        f2b_device_parse(all.common.device, &arguments->device) != F2B_OK ||
        choose_products() != F2B_OK) {
        *exit_code = f2b_exit_error(command->name);
        return false;
    }
    if (all.common.threads > 0) omp_set_num_threads((int)all.common.threads);
    arguments->threads = omp_get_max_threads(); /* honours OMP_NUM_THREADS */
    arguments->quiet = all.common.quiet;
    say_where(command->name, all.common.device, arguments);
    return true;
}
