/* JSON values with messages. See json_internal.h for the contract. */
#include "checkpoints/json_internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"

static json_t *parse(const char *text, size_t bytes, const char *where)
{
    json_error_t error;
    json_t *value = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (!value)
        (void)f2b_fail(F2B_ERR_FORMAT, "%s:%d: not valid JSON: %s", where, error.line, error.text);
    else if (!json_is_object(value)) {
        (void)f2b_fail(F2B_ERR_FORMAT, "%s: holds no JSON object", where);
        json_decref(value);
        value = NULL;
    }
    return value;
}

json_t *f2bi_json_load(const char *path, int64_t max_bytes)
{
    int64_t bytes = 0;
    char *text = f2b_read_file(path, max_bytes, &bytes);
    json_t *value = text ? parse(text, (size_t)bytes, path) : NULL;
    f2b_free(text);
    return value;
}

json_t *f2bi_json_parse(const char *text, const char *where)
{
    return parse(text, strlen(text), where);
}

void f2bi_json_fail(f2bi_json_reader *reader, const char *format, ...)
{
    if (reader->status != F2B_OK) return;
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    reader->status = f2b_fail(F2B_ERR_FORMAT, "%s: %s", reader->file, text);
}

const json_t *f2bi_json_get(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

int64_t f2bi_json_integer(f2bi_json_reader *reader, const json_t *object, const char *key,
                          int64_t fallback, int64_t low, int64_t high)
{
    const json_t *value = f2bi_json_get(object, key);
    if (!value) return fallback;
    const int64_t x = json_integer_value(value);
    if (json_is_integer(value) && x >= low && x <= high) return x;
    f2bi_json_fail(reader, "%s must be a whole number from %" PRId64 " to %" PRId64, key, low,
                   high);
    return fallback;
}

double f2bi_json_number(f2bi_json_reader *reader, const json_t *object, const char *key,
                        double fallback, double low, double high)
{
    const json_t *value = f2bi_json_get(object, key);
    if (!value) return fallback;
    const double x = json_number_value(value);
    if (json_is_number(value) && isfinite(x) && x >= low && x <= high) return x;
    f2bi_json_fail(reader, "%s must be a number from %g to %g", key, low, high);
    return fallback;
}

bool f2bi_json_bool(f2bi_json_reader *reader, const json_t *object, const char *key, bool fallback)
{
    const json_t *value = f2bi_json_get(object, key);
    if (!value) return fallback;
    if (!json_is_boolean(value)) f2bi_json_fail(reader, "%s must be true or false", key);
    return json_is_true(value);
}

const char *f2bi_json_string(f2bi_json_reader *reader, const json_t *object, const char *key,
                             const char *fallback)
{
    const json_t *value = f2bi_json_get(object, key);
    if (!value) return fallback;
    if (json_is_string(value)) return json_string_value(value);
    f2bi_json_fail(reader, "%s must be a string", key);
    return fallback;
}

int f2bi_json_choice(f2bi_json_reader *reader, const json_t *object, const char *key,
                     const char *const *names, int n)
{
    const char *text = f2bi_json_string(reader, object, key, "");
    for (int i = 0; i < n; ++i)
        if (strcmp(text, names[i]) == 0) return i;
    char legal[256] = "";
    for (int i = 0; i < n; ++i) {
        const size_t used = strlen(legal);
        snprintf(legal + used, sizeof legal - used, "%s%s", i ? ", " : "", names[i]);
    }
    f2bi_json_fail(reader, "%s is \"%.100s\" but must be one of: %s", key, text, legal);
    return 0;
}

void f2bi_json_known_keys(f2bi_json_reader *reader, const json_t *object, const char *const *keys,
                          int n)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value) {
        bool known = false;
        for (int i = 0; i < n; ++i) known = known || strcmp(key, keys[i]) == 0;
        if (!known) f2bi_json_fail(reader, "unknown key %.100s", key);
    }
}

char *f2bi_json_text(const json_t *value, size_t flags)
{
    char *theirs = value ? json_dumps(value, flags) : NULL;
    if (!theirs) {
        (void)f2b_fail(F2B_ERR_INVALID, "cannot write JSON: a text is not UTF-8, or memory is out");
        return NULL;
    }
    char *ours = f2b_strdup(theirs, F2B_TAG_FILES);
    free(theirs);
    return ours;
}
