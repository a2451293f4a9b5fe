/*
 * The configuration as YAML, and the reference page: both are the field table, written out.
 */
#include <stdlib.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "train/config_internal.h"

/* ---- values ---------------------------------------------------------------------------------- */

void f2bi_text_quote(FILE *out, const char *text)
{
    fputc('"', out);
    for (const unsigned char *c = (const unsigned char *)text; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\') fprintf(out, "\\%c", *c);
        else if (*c == '\n') fputs("\\n", out);
        else if (*c == '\t') fputs("\\t", out);
        else if (*c < 0x20 || *c == 0x7F) fprintf(out, "\\x%02X", *c);
        else fputc(*c, out);
    }
    fputc('"', out);
}

/* The shortest decimal that reads back as the same number, with a point: without one, readers of
 * YAML 1.1 take 2e-05 for a text. */
static void write_number(FILE *out, double value)
{
    char text[40];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    const size_t mantissa = strcspn(text, "e");
    const bool point = memchr(text, '.', mantissa) != NULL;
    fprintf(out, "%.*s%s%s", (int)mantissa, text, point ? "" : ".0", text + mantissa);
}

static void write_nullable(FILE *out, const char *text)
{
    if (text == NULL) fputs("null", out);
    else f2bi_text_quote(out, text);
}

static void write_subset(FILE *out, const char *choices, uint32_t bits)
{
    char word[F2BI_MAX_NAME];
    const char *comma = "";
    fputc('[', out);
    for (int i = 0; f2bi_choice_at(choices, i, word); i++) {
        if ((bits & (1u << i)) == 0) continue;
        fprintf(out, "%s%s", comma, word);
        comma = ", ";
    }
    fputc(']', out);
}

static void write_sources(FILE *out, const f2b_config_sources *sources)
{
    fputc('[', out);
    for (int64_t i = 0; i < sources->n; i++) {
        fputs(i > 0 ? ", {path: " : "{path: ", out);
        f2bi_text_quote(out, sources->items[i].path);
        if (sources->items[i].images != NULL) {
            fputs(", images: ", out);
            f2bi_text_quote(out, sources->items[i].images);
        }
        fputc('}', out);
    }
    fputc(']', out);
}

void f2bi_field_write(FILE *out, const f2b_config *config, const f2bi_field *field)
{
    const void *value = f2bi_field_in(config, field);
    switch (field->type) {
    case F2BI_TEXT:
    case F2BI_PATH: write_nullable(out, *(char *const *)value); return;
    case F2BI_INTEGER:
        if (field->nullable && *(const int64_t *)value == 0) fputs("null", out);
        else fprintf(out, "%lld", (long long)*(const int64_t *)value);
        return;
    case F2BI_BYTES: f2bi_bytes_write(out, *(const int64_t *)value); return;
    case F2BI_NUMBER:
        if (*(const double *)value == 0 && field->choices != NULL) fputs(field->choices, out);
        else if (*(const double *)value == 0 && field->nullable) fputs("null", out);
        else write_number(out, *(const double *)value);
        return;
    case F2BI_SWITCH: fputs(*(const bool *)value ? "true" : "false", out); return;
    case F2BI_CHOICE: {
        char word[F2BI_MAX_NAME];
        int index = 0;
        memcpy(&index, value, sizeof index);
        F2B_CHECK(f2bi_choice_at(field->choices, index, word));
        fputs(word, out);
        return;
    }
    case F2BI_SUBSET: write_subset(out, field->choices, *(const uint32_t *)value); return;
    case F2BI_SOURCES: write_sources(out, value); return;
    }
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* Calls begin(section, depth) for each group that opens at field i: those parts of its name that
 * the field before it does not share. Returns the number of parts before the last. */
static int open_groups(FILE *out, int i, void begin(FILE *out, const char *section, int depth))
{
    const char *name = f2bi_fields[i].name, *before = i > 0 ? f2bi_fields[i - 1].name : "";
    int depth = 0;
    for (const char *dot = strchr(name, '.'); dot != NULL; dot = strchr(dot + 1, '.'), depth++) {
        const size_t n = (size_t)(dot - name) + 1;
        char section[F2BI_MAX_NAME];
        memcpy(section, name, n - 1);
        section[n - 1] = '\0';
        if (strncmp(before, name, n) != 0) begin(out, section, depth);
    }
    return depth;
}

static const char *last_part(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot != NULL ? dot + 1 : name;
}

static void begin_yaml(FILE *out, const char *section, int depth)
{
    fprintf(out, "%*s%s:\n", 2 * depth, "", last_part(section));
}

static char *finish(FILE *memory, char **text)
{
    char *copy = NULL;
    if (memory == NULL || fclose(memory) != 0)
        (void)f2b_fail(F2B_ERR_MEMORY, "no memory for a text");
    else copy = f2b_strdup(*text, F2B_TAG_OTHER);
    free(*text);
    return copy;
}

char *f2b_config_write(const f2b_config *config)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    for (int i = 0; out != NULL && i < f2bi_n_fields; i++) {
        const int depth = open_groups(out, i, begin_yaml);
        fprintf(out, "%*s%s: ", 2 * depth, "", last_part(f2bi_fields[i].name));
        f2bi_field_write(out, config, &f2bi_fields[i]);
        fputc('\n', out);
    }
    return finish(out, &text);
}

static void begin_page(FILE *out, const char *section, int depth)
{
    if (depth > 0) return; /* the full names say enough */
    fprintf(out, "\n## %s\n", section);
    const char *help = f2bi_section_help(section);
    if (help != NULL) fprintf(out, "\n%s\n", help);
}

static void write_values(FILE *out, const f2bi_field *field)
{
    static const char *const kinds[] = {
        [F2BI_TEXT] = "text",
        [F2BI_PATH] = "path",
        [F2BI_INTEGER] = "whole number",
        [F2BI_BYTES] = "size with its unit",
        [F2BI_NUMBER] = "number",
        [F2BI_SWITCH] = "`true` or `false`",
        [F2BI_CHOICE] = "one of ",
        [F2BI_SUBSET] = "a list of ",
        [F2BI_SOURCES] = "a list of sources",
    };
    fputs(kinds[field->type], out);
    char word[F2BI_MAX_NAME];
    if (field->type == F2BI_CHOICE || field->type == F2BI_SUBSET)
        for (int i = 0; f2bi_choice_at(field->choices, i, word); i++)
            fprintf(out, "%s`%s`", i > 0 ? ", " : "", word);
    if (field->type == F2BI_INTEGER || field->type == F2BI_NUMBER) {
        fprintf(out, " %s %.15g", field->above ? "above" : "from", field->min);
        if (field->max < 1e6) fprintf(out, " to %.15g", field->max);
        if (field->unit != NULL) fprintf(out, " (%s)", field->unit);
        if (field->choices != NULL) fprintf(out, ", or `%s`", field->choices);
    }
    if (field->nullable) fputs(", or `null`", out);
}

char *f2b_config_reference(void)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    if (out != NULL)
        fputs(
            "# Configuration\n\n"
            "Generated from the field table by `f2b-train --help-config > "
            "docs/configuration.md`.\n\n"
            "Unknown and duplicate keys are errors. `KEY=VALUE` on the command line overrides a "
            "key:\n"
            "`train.seed=7`, `'lora.targets=[q_proj,v_proj]'`, `'data.captions=[{path: pairs.tsv, "
            "images: images}]'`,\n`data.captions[0].path=pairs.tsv`. Relative paths are relative "
            "to the "
            "configuration file, and to\nthe current folder when given as an override. A run that "
            "is resumed keeps its settings;\nkeys marked *may change on resume* are free.\n",
            out);
    for (int i = 0; out != NULL && i < f2bi_n_fields; i++) {
        const f2bi_field *field = &f2bi_fields[i];
        open_groups(out, i, begin_page);
        fprintf(out, "\n**`%s`**: ", field->name);
        write_values(out, field);
        if (field->fallback == NULL) fputs("; required", out);
        else fprintf(out, "; default `%s`", field->fallback);
        fprintf(out, "%s.\n%s\n", field->may_change ? "; may change on resume" : "", field->help);
    }
    return finish(out, &text);
}
