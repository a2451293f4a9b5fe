/* The option table: what it accepts, what it refuses and how it says so; help; exit codes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "autograd/core/nearest.h"
#include "cli/exit_codes.h"
#include "cli/options.h"
#include "cli/progress.h"

/* What the last run printed, both streams. */
static char printed[8192];

typedef struct values {
    const char *model, *format;
    bool json;
    int64_t count;
    int64_t k;
    double rate;
    f2b_arguments arguments;
    int exit_code;
} values;

static bool parse_line(values *v, bool overrides, const char *operands, char **argv)
{
    *v = (values){ .format = "peft", .count = 5, .rate = 0.25 };
    const f2b_option options[] = {
        { "model", "DIR", F2B_OPTION_TEXT, &v->model, "model folder", .required = true },
        { "format", "peft|gguf", F2B_OPTION_CHOICE, &v->format, "what to write" },
        { "json", NULL, F2B_OPTION_FLAG, &v->json, "lines are JSON" },
        { "count", "N", F2B_OPTION_INT, &v->count, "how many", .min = 1, .max = 10 },
        { "rate", "X", F2B_OPTION_REAL, &v->rate, "how fast" },
        { "k", "N", F2B_OPTION_INT, &v->k, "the best of them", .min = 1, .max = 10 },
        { 0 },
    };
    const f2b_command command = { .name = "prog",
                                  .summary = "Does it.",
                                  .options = options,
                                  .operands = operands,
                                  .max_operands = 2,
                                  .overrides = overrides };
    int argc = 0;
    while (argv[argc] != NULL) argc++;
    return f2b_options_parse(&command, argc, argv, &v->arguments, &v->exit_code);
}

/* Both streams go to a file while the parser runs. */
static bool parse(values *v, bool overrides, const char *operands, char **argv)
{
    FILE *file = tmpfile();
    assert_non_null(file);
    fflush(stdout);
    fflush(stderr);
    const int out = dup(1), err = dup(2);
    dup2(fileno(file), 1);
    dup2(fileno(file), 2);
    const bool go_on = parse_line(v, overrides, operands, argv);
    fflush(stdout);
    fflush(stderr);
    dup2(out, 1);
    dup2(err, 2);
    close(out);
    close(err);
    rewind(file);
    printed[fread(printed, 1, sizeof printed - 1, file)] = '\0';
    fclose(file);
    return go_on;
}

#define ARGV(...) ((char *[]){ "prog", __VA_ARGS__, NULL })

static void test_forms(void **state)
{
    (void)state;
    values v;
    assert_true(parse(&v, false, "FILE...",
                      ARGV("a", "--model", "m", "--count=7", "--json", "--rate", "-1.5e2",
                           "--quiet", "--threads", "2", "-k", "3", "--device=cpu", "--", "--b")));
    assert_int_equal(v.k, 3);
    assert_string_equal(v.model, "m");
    assert_string_equal(v.format, "peft");
    assert_int_equal(v.count, 7);
    assert_true(v.json && v.arguments.quiet);
    assert_true(v.rate == -150.0);
    assert_int_equal(v.arguments.threads, 2);
    assert_int_equal(v.arguments.n_operands, 2);
    assert_string_equal(v.arguments.operands[0], "a");
    assert_string_equal(v.arguments.operands[1], "--b");
    assert_string_equal(printed, "");
}

static void test_overrides(void **state)
{
    (void)state;
    values v;
    assert_true(parse(&v, true, NULL, ARGV("x.y=1", "--model=m", "l=[a,b]")));
    assert_int_equal(v.arguments.n_operands, 2);
    assert_string_equal(v.arguments.operands[1], "l=[a,b]");
    assert_false(parse(&v, true, NULL, ARGV("--model=m", "file.yaml")));
    assert_int_equal(v.exit_code, F2B_EXIT_USAGE);
    assert_non_null(strstr(printed, "KEY=VALUE"));
}

static void refused(const char *operands, char **argv, int exit_code, const char *text)
{
    values v;
    assert_false(parse(&v, false, operands, argv));
    assert_int_equal(v.exit_code, exit_code);
    if (strstr(printed, text) == NULL) fail_msg("\"%s\" is not in: %s", text, printed);
    assert_int_equal(strncmp(printed, "prog: ", 6), 0);
}

static void test_refused(void **state)
{
    (void)state;
    refused(NULL, ARGV("--modle", "x"), 2, "unknown option --modle; did you mean --model?");
    refused(NULL, ARGV("--model", "x", "-k"), 2, "--k needs a value");
    refused(NULL, ARGV("--model", "x", "-k", "11"), 2, "--k is from 1 to 10, not 11");
    refused(NULL, ARGV("--model", "x", "-k", "2", "--k=3"), 2, "--k is given twice");
    refused(NULL, ARGV("--model", "x", "-m", "2"), 2, "unknown option -m");
    refused(NULL, ARGV("--zzzzzzzzz=1"), 2, "unknown option --zzzzzzzzz; see --help");
    refused(NULL, ARGV("--json"), 2, "--model DIR is missing");
    refused(NULL, ARGV("--model"), 2, "--model needs a value");
    refused(NULL, ARGV("--model", "--json"), 2, "--model needs a value");
    refused(NULL, ARGV("--model=a", "--model=b"), 2, "given twice");
    refused(NULL, ARGV("--model=a", "--json=1"), 2, "--json takes no value");
    refused(NULL, ARGV("--model=a", "--count=11"), 2, "--count is from 1 to 10, not 11");
    refused(NULL, ARGV("--model=a", "--count=2x"), 2, "whole number");
    refused(NULL, ARGV("--model=a", "--count=99999999999999999999"), 2, "whole number");
    refused(NULL, ARGV("--model=a", "--rate=nan"), 2, "a number");
    refused(NULL, ARGV("--model=a", "--format=peftgguf"), 2, "one of peft|gguf");
    refused(NULL, ARGV("--model=a", "--format="), 2, "one of peft|gguf");
    refused(NULL, ARGV("--model=a", "-v"), 2, "long names");
    refused(NULL, ARGV("--model=a", "x"), 2, "what is \"x\"?");
    refused("FILE", ARGV("--model=a", "x", "y", "z"), 2, "what is \"z\"?");
    refused(NULL, ARGV("--model=a", "--device=tpu"), 2, "auto, cpu, cuda or cuda:N");
    refused(NULL, ARGV("--model=a", "--device=cuda:x"), 2, "auto, cpu, cuda or cuda:N");
    refused(NULL, ARGV("--model=a", "--threads=0"), 2, "--threads is from 1");
}

/* 999: no machine has it, with or without CUDA in the build. */
static void test_missing_device(void **state)
{
    (void)state;
    refused(NULL, ARGV("--model=a", "--device=cuda:999"), 4, "--device cuda:999");
}

static void test_help(void **state)
{
    (void)state;
    values v;
    assert_false(parse(&v, false, "FILE", ARGV("--nonsense", "--help")));
    assert_int_equal(v.exit_code, 0);
    assert_non_null(strstr(printed, "usage: prog [options] FILE\n"));
    assert_non_null(strstr(printed, "--model DIR"));
    assert_non_null(strstr(printed, "model folder (required)"));
    assert_non_null(strstr(printed, "how many (default 5)"));
    assert_non_null(strstr(printed, "--device auto|cpu|cuda[:N]"));
    assert_false(parse(&v, false, NULL, ARGV("--version")));
    assert_int_equal(v.exit_code, 0);
    assert_non_null(strstr(printed, "devices: cpu"));
}

static void test_nearest(void **state)
{
    (void)state;
    assert_int_equal(f2b_edit_distance("", "abc"), 3);
    assert_int_equal(f2b_edit_distance("kitten", "sitting"), 3);
    assert_int_equal(f2b_edit_distance("modle", "MODEL"), 1);
    const char *const names[] = { "epochs", NULL, "steps", "seed" };
    assert_string_equal(f2b_nearest_name("epoch", names, 4), "epochs");
    assert_string_equal(f2b_nearest_name("sede", names, 4), "seed");
    assert_null(f2b_nearest_name("warmup", names, 4));
    char huge[5000];
    memset(huge, 'x', sizeof huge - 1);
    huge[sizeof huge - 1] = '\0';
    assert_null(f2b_nearest_name(huge, names, 4));
}

static void test_exit_codes(void **state)
{
    (void)state;
    assert_int_equal(f2b_exit_code(F2B_OK), 0);
    assert_int_equal(f2b_exit_code(F2B_ERR_SHAPE), 1);
    assert_int_equal(f2b_exit_code(F2B_ERR_CONFIG), 2);
    assert_int_equal(f2b_exit_code(F2B_ERR_FORMAT), 3);
    assert_int_equal(f2b_exit_code(F2B_ERR_MEMORY), 4);
    assert_int_equal(f2b_exit_code(F2B_ERR_NUMBERS), 5);
    assert_int_equal(f2b_exit_code(F2B_ERR_STOPPED), 75);
}

static void test_formats(void **state)
{
    (void)state;
    assert_string_equal(f2b_format_duration(7).text, "0:07");
    assert_string_equal(f2b_format_duration(725).text, "12:05");
    assert_string_equal(f2b_format_duration(11525).text, "3:12:05");
    assert_string_equal(f2b_format_duration(86400 + 59.6).text, "1 day 0:01:00");
    assert_string_equal(f2b_format_duration(4 * 86400.0 + 11525).text, "4 days 3:12:05");
    assert_string_equal(f2b_format_duration(-1).text, "-");
    assert_string_equal(f2b_format_duration((double)NAN).text, "-");
    assert_string_equal(f2b_format_bytes(812).text, "812 B");
    assert_string_equal(f2b_format_bytes(1024 * 1024 - 1).text, "1.0 MiB");
    assert_string_equal(f2b_format_bytes(10522669875).text, "9.8 GiB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),      cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_refused),    cmocka_unit_test(test_missing_device),
        cmocka_unit_test(test_help),       cmocka_unit_test(test_nearest),
        cmocka_unit_test(test_exit_codes), cmocka_unit_test(test_formats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
