/* f2b-data tokenize: lines of text to token ids, no start token, control words as plain text. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/data_commands.h"
#include "cli/exit_codes.h"
#include "cli/options.h"
#include "data/tokenizer/tokenizer.h"

static void print_ids(const f2b_ids *ids)
{
    putchar('[');
    for (int64_t i = 0; i < ids->n; i++) printf("%s%d", i > 0 ? ", " : "", ids->ids[i]);
    puts("]");
}

/* The line's text, as it is or out of its JSON string. */
static f2b_status encode_line(const f2b_tokenizer *tokenizer, bool as_json, const char *line,
                              size_t bytes, f2b_ids *ids)
{
    ids->n = 0;
    if (!as_json) return f2b_tokenizer_encode(tokenizer, line, bytes, F2B_ENCODE_PLAIN, ids);
    json_error_t error;
    json_t *text = json_loadb(line, bytes, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    f2b_status status;
    if (text == NULL)
        status = f2b_fail(F2B_ERR_FORMAT, "%s: each line must be a JSON string", error.text);
    else if (!json_is_string(text))
        status = f2b_fail(F2B_ERR_FORMAT, "not a string: each line must be a JSON string");
    else
        status = f2b_tokenizer_encode(tokenizer, json_string_value(text), json_string_length(text),
                                      F2B_ENCODE_PLAIN, ids);
    json_decref(text);
    return status;
}

static f2b_status encode_lines(const f2b_tokenizer *tokenizer, bool as_json)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t bytes;
    f2b_ids ids = { 0 };
    f2b_status status = F2B_OK;
    for (int64_t number = 1; status == F2B_OK; number++) {
        errno = 0;
        if ((bytes = getline(&line, &capacity, stdin)) < 0) break;
        if (line[bytes - 1] == '\n') bytes--;
        status = encode_line(tokenizer, as_json, line, (size_t)bytes, &ids);
        if (status == F2B_OK) print_ids(&ids);
        else status = f2b_fail_context("line %lld of the input", (long long)number);
    }
    if (status == F2B_OK && !feof(stdin)) status = f2b_fail_errno(F2B_ERR_IO, "reading the input");
    free(line);                 /* getline's own */
    f2b_ids_free(&ids);
    return status;
}

int f2b_data_tokenize(int argc, char **argv)
{
    const char *model = NULL;
    bool json = false;
    const f2b_option options[] = {
        { .name = "model", .value = "DIR", .type = F2B_OPTION_TEXT, .target = &model,
          .required = true,
          .help = "model folder with tokenizer.model" },
        { .name = "json", .type = F2B_OPTION_FLAG, .target = &json,
          .help = "each line is a JSON string, so that a text can hold line ends" },
        { 0 },
    };
    const f2b_command command = {
        .name = "f2b-data tokenize", .options = options,
        .summary = "Reads a text a line on stdin and prints its token ids as a JSON array a line: "
                   "no start token, control words as plain text.",
    };
    f2b_arguments arguments;
    int exit_code;
    if (!f2b_options_parse(&command, argc, argv, &arguments, &exit_code)) return exit_code;
    f2b_tokenizer *tokenizer = f2b_tokenizer_open(model);
    const f2b_status status = tokenizer != NULL ? encode_lines(tokenizer, json) : f2b_last_status();
    f2b_tokenizer_free(tokenizer);
    return f2b_exit_with(command.name, status);
}
