/* f2b-inspect PATH: the report of infer/inspect, for people or as it is (--json). */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/inspect_tasks.h"
#include "cli/progress.h"
#include "infer/inspect/inspect.h"

void f2b_inspect_print_text(const char *text, int width)
{
    int columns = 0;
    for (const char *p = text; *p != '\0'; p++) {
        const unsigned char c = (unsigned char)*p;
        putchar(c < 0x20 || c == 0x7f ? '?' : c);
        columns += (c & 0xc0) != 0x80; /* a character of UTF-8 counts once */
    }
    for (; columns < width; columns++) putchar(' ');
}

/* ---- Facts ---- */

static void print_value(const json_t *value, int indent);

static void print_members(const json_t *object, int indent)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value) {
        printf("\n%*s", indent, "");
        f2b_inspect_print_text(key, 20);
        putchar(' ');
        print_value(value, indent + 2);
    }
}

static void print_items(const json_t *array)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        if (i > 0) printf(", ");
        print_value(json_array_get(array, i), 0);
    }
}

/* A text of several lines, such as a configuration, is only measured. */
static void print_string(const char *text)
{
    int64_t lines = 0;
    for (const char *p = text; *p != '\0'; p++) lines += *p == '\n';
    if (lines > 1) printf("(%" PRId64 " lines; --json shows them)", lines);
    else if (strlen(text) > 200) printf("(%zu bytes; --json shows them)", strlen(text));
    else f2b_inspect_print_text(text, 0);
}

static void print_value(const json_t *value, int indent)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT: print_members(value, indent); break;
    case JSON_ARRAY: print_items(value); break;
    case JSON_STRING: print_string(json_string_value(value)); break;
    case JSON_INTEGER: printf("%" JSON_INTEGER_FORMAT, json_integer_value(value)); break;
    case JSON_REAL: printf("%.9g", json_real_value(value)); break;
    case JSON_TRUE: printf("true"); break;
    case JSON_FALSE: printf("false"); break;
    case JSON_NULL: printf("null"); break;
    }
}

/* ---- Tensors ---- */

static void shape_text(const json_t *shape, char *out, size_t size)
{
    size_t n = (size_t)snprintf(out, size, "[");
    for (size_t i = 0; i < json_array_size(shape) && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%" JSON_INTEGER_FORMAT, i > 0 ? ", " : "",
                              json_integer_value(json_array_get(shape, i)));
    if (n < size) snprintf(out + n, size - n, "]");
}

static void print_tensor(const json_t *t, int name_width)
{
    char shape[192];
    shape_text(json_object_get(t, "shape"), shape, sizeof shape);
    f2b_inspect_print_text(json_string_value(json_object_get(t, "name")), name_width);
    printf("  %-7s %-18s %12" JSON_INTEGER_FORMAT, json_string_value(json_object_get(t, "type")),
           shape, json_integer_value(json_object_get(t, "bytes")));
    const json_t *norm = json_object_get(t, "norm");
    if (json_is_real(norm)) printf("  %12.6g", json_real_value(norm));
    else if (norm != NULL) printf("  %12s", json_is_string(norm) ? json_string_value(norm) : "-");
    const json_t *file = json_object_get(t, "file");
    if (file != NULL) {
        printf("  ");
        f2b_inspect_print_text(json_string_value(file), 0);
    }
    putchar('\n');
}

static void print_tensors(const json_t *report, bool norms)
{
    const json_t *tensors = json_object_get(report, "tensors");
    const json_t *totals = json_object_get(report, "totals");
    const size_t n = json_array_size(tensors);
    int width = 4;
    for (size_t i = 0; i < n; i++) {
        const size_t length =
            json_string_length(json_object_get(json_array_get(tensors, i), "name"));
        if ((int)length > width && length < 90) width = (int)length;
    }
    if (n > 0)
        printf("\n%-*s  %-7s %-18s %12s%s\n", width, "name", "type", "shape", "bytes",
               norms ? "          norm" : "");
    for (size_t i = 0; i < n; i++) print_tensor(json_array_get(tensors, i), width);
    const json_int_t all = json_integer_value(json_object_get(totals, "tensors"));
    if ((json_int_t)n < all) printf("... and %" JSON_INTEGER_FORMAT " more\n", all - (json_int_t)n);
    printf("\n%" JSON_INTEGER_FORMAT " tensors, %" JSON_INTEGER_FORMAT " elements, %s\n", all,
           json_integer_value(json_object_get(totals, "elements")),
           f2b_format_bytes(json_integer_value(json_object_get(totals, "bytes"))).text);
}

static void print_checks(const json_t *report)
{
    size_t i;
    json_t *check;
    json_array_foreach(json_object_get(report, "checks"), i, check) {
        const bool ok = json_is_true(json_object_get(check, "ok"));
        printf("%s ", ok ? "ok     " : "DAMAGED");
        f2b_inspect_print_text(json_string_value(json_object_get(check, "what")), 0);
        if (!ok) {
            printf(": ");
            f2b_inspect_print_text(json_string_value(json_object_get(check, "why")), 0);
        }
        putchar('\n');
    }
}

static void print_report(const json_t *report, const f2b_inspect_settings *s)
{
    printf("%s ", json_string_value(json_object_get(report, "kind")));
    f2b_inspect_print_text(json_string_value(json_object_get(report, "path")), 0);
    print_members(json_object_get(report, "facts"), 2);
    putchar('\n');
    print_tensors(report, s->norms);
    print_checks(report);
}

/* The first check that failed, as an error. */
static f2b_status verdict(const json_t *report, const char *path)
{
    size_t i;
    json_t *check;
    const int64_t failures = f2b_inspect_failures(report);
    json_array_foreach(json_object_get(report, "checks"), i, check)
        if (json_is_false(json_object_get(check, "ok")))
            return f2b_fail(F2B_ERR_FORMAT, "%s: %" PRId64 " of %zu checks failed; %s: %s", path,
                            failures, json_array_size(json_object_get(report, "checks")),
                            json_string_value(json_object_get(check, "what")),
                            json_string_value(json_object_get(check, "why")));
    return F2B_OK;
}

f2b_status f2b_inspect_run_report(const f2b_inspect_settings *s)
{
    const char *path = s->arguments.operands[0];
    const f2b_inspect_options o = { .norms = s->norms, .verify = s->verify, .limit = s->limit };
    json_t *report = f2b_inspect(path, &o);
    if (report == NULL) return f2b_last_status();
    if (s->json) {
        json_dumpf(report, stdout, JSON_REAL_PRECISION(9));
        putchar('\n');
    } else print_report(report, s);
    const f2b_status status = verdict(report, path);
    json_decref(report);
    return status;
}
