/*
 * A state machine over 1 MiB pieces. Most bytes of such files lie in strings, which memchr skips;
 * the rest is brackets, commas and the few keys that are looked for. See json_scan.h.
 */
#include "data/source/json_scan.h"

#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "autograd/core/alloc.h"

enum { CHUNK = 1 << 20, CAPTURE = 4096 };

typedef enum capture { NOTHING, ROOT_KEY, KEY, STRING, LITERAL } capture;

typedef struct scanner {
    const char *path;
    void *user;
    f2bi_json_array *arrays, *active;
    int n, pending;             /* pending: array whose key was just read, or -1 */
    int field;                  /* field whose value is due, or -1 */
    int64_t depth, level;       /* level: depth at which elements stand, 1 or 2 */
    int64_t elements;
    bool ended;                 /* the root was closed */
    bool root_key_due, key_due, element_due, first_element, element_is_object;
    bool in_string, escaped;
    capture capturing;
    bool too_long, has_escape;
    size_t captured;
    char text[CAPTURE + 2];
} scanner;

static f2b_status broken(const scanner *s, uint64_t at, const char *what)
{
    if (s->elements > 0)
        return f2b_fail(F2B_ERR_FORMAT, "%s: byte %llu, record %lld: %s", s->path,
                        (unsigned long long)at, (long long)s->elements - 1, what);
    return f2b_fail(F2B_ERR_FORMAT, "%s: byte %llu: %s", s->path, (unsigned long long)at, what);
}

static void capture_begin(scanner *s, capture what)
{
    s->capturing = what;
    s->captured = 0;
    s->too_long = s->has_escape = false;
}

static void capture_add(scanner *s, const char *bytes, size_t n)
{
    if (s->capturing == NOTHING || s->too_long) return;
    if (n > CAPTURE - s->captured) {
        s->too_long = true;
        return;
    }
    memcpy(s->text + s->captured, bytes, n);
    s->captured += n;
}

/* Index of the captured text in a list of names that ends with NULL or after n, or -1. */
static int captured_in(const scanner *s, const char *const *names, int n)
{
    for (int i = 0; i < n && names[i] != NULL; i++)
        if (!s->too_long && strlen(names[i]) == s->captured &&
            memcmp(names[i], s->text, s->captured) == 0)
            return i;
    return -1;
}

static f2b_status report(scanner *s, bool string)
{
    const int field = s->field;
    s->field = -1;
    if (s->too_long || field < 0) return F2B_OK;
    if (!string || !s->has_escape)
        return s->active->value(s->user, field, s->text, s->captured, string);
    char quoted[CAPTURE + 2];
    quoted[0] = '"';
    memcpy(quoted + 1, s->text, s->captured);
    quoted[s->captured + 1] = '"';
    json_t *text = json_loadb(quoted, s->captured + 2, JSON_DECODE_ANY, NULL);
    f2b_status status = F2B_OK;     /* a wrong escape: reading the record will say so */
    if (text != NULL)
        status = s->active->value(s->user, field, json_string_value(text),
                                  json_string_length(text), true);
    json_decref(text);
    return status;
}

static f2b_status capture_end(scanner *s)
{
    const capture what = s->capturing;
    s->capturing = NOTHING;
    if (what == ROOT_KEY) {
        s->root_key_due = false;
        s->pending = -1;
        for (int i = 0; i < s->n; i++)
            if (captured_in(s, &s->arrays[i].key, 1) == 0) s->pending = i;
    } else if (what == KEY) {
        s->key_due = false;
        s->field = captured_in(s, s->active->fields, 3);
    } else if (what != NOTHING) {
        return report(s, what == STRING);
    }
    return F2B_OK;
}

/* Skip the rest of a string from p; returns behind its closing quote, or `end` if it goes on. */
static const char *string_rest(scanner *s, const char *p, const char *end)
{
    const char *quote = NULL;       /* the next one at or behind p, if known */
    if (s->escaped) {
        capture_add(s, p++, 1);
        s->escaped = false;
    }
    while (p < end) {
        if (quote == NULL || quote < p) {
            quote = memchr(p, '"', (size_t)(end - p));
            if (quote == NULL) quote = end;
        }
        const char *slash = memchr(p, '\\', (size_t)(quote - p));
        if (slash == NULL) {
            capture_add(s, p, (size_t)(quote - p));
            s->in_string = quote == end;
            return quote == end ? end : quote + 1;
        }
        s->has_escape = true;
        capture_add(s, p, (size_t)(slash + 1 - p));
        if (slash + 1 == end) {
            s->escaped = true;
            return end;
        }
        capture_add(s, slash + 1, 1);
        p = slash + 2;
    }
    return end;
}

static void string_begin(scanner *s)
{
    s->in_string = true;
    const bool inside = s->active != NULL && s->depth == s->level + 1 && s->element_is_object;
    if (s->level == 2 && s->depth == 1 && s->root_key_due) capture_begin(s, ROOT_KEY);
    else if (inside && s->key_due) capture_begin(s, KEY);
    else if (inside && s->field >= 0) capture_begin(s, STRING);
    else capture_begin(s, NOTHING);
}

static f2b_status open_bracket(scanner *s, char c, uint64_t at)
{
    f2bi_json_array *array = NULL;
    if (s->depth == 0) {
        if ((c == '[') != (s->level == 1))
            return broken(s, at,
                          s->level == 1 ? "an array of records is expected"
                                        : "an object with the arrays of records is expected");
        array = s->level == 1 ? s->arrays : NULL;
        s->root_key_due = true;
    } else if (s->level == 2 && s->depth == 1 && s->pending >= 0 && c == '[') {
        array = &s->arrays[s->pending];
    }
    if (array != NULL) {
        if (array->found) return broken(s, at, "the array of records stands there twice");
        array->found = true;
        s->active = array;
        s->element_due = s->first_element = true;
    }
    if (s->depth == s->level) s->key_due = true;
    if (s->depth == s->level + 1) s->field = -1;        /* the value is no text or number */
    s->depth++;
    return F2B_OK;
}

static f2b_status close_bracket(scanner *s, uint64_t at)
{
    if (--s->depth < 0) return broken(s, at, "a bracket is closed that was not opened");
    if (s->active != NULL && s->depth == s->level - 1) {
        s->active->end = at;
        s->active = NULL;
    }
    s->ended = s->depth == 0;
    return F2B_OK;
}

static void comma(scanner *s)
{
    if (s->level == 2 && s->depth == 1) s->root_key_due = true, s->pending = -1;
    if (s->active == NULL) return;
    if (s->depth == s->level) s->element_due = true, s->first_element = false;
    if (s->depth == s->level + 1) s->key_due = true, s->field = -1;
}

/* A byte outside strings. */
static f2b_status structure(scanner *s, char c, uint64_t at)
{
    const bool space = c == ' ' || c == '\n' || c == '\r' || c == '\t';
    if (s->capturing == LITERAL && (space || c == ',' || c == '}' || c == ']'))
        F2B_TRY(capture_end(s));
    if (space) return F2B_OK;
    if (s->ended) return broken(s, at, "text follows the end of the JSON value");
    if (s->depth == 0 && c != '[' && c != '{') return broken(s, at, "the file is not JSON");
    if (s->active != NULL && s->depth == s->level && s->element_due &&
        !(c == ']' && s->first_element)) {
        s->element_due = false;
        s->element_is_object = c == '{';
        s->field = -1;
        s->elements++;
        F2B_TRY(s->active->element(s->user, at));
    }
    switch (c) {
    case '"': string_begin(s); return F2B_OK;
    case '{': case '[': return open_bracket(s, c, at);
    case '}': case ']': return close_bracket(s, at);
    case ',': comma(s); return F2B_OK;
    case ':': return F2B_OK;
    default: break;
    }
    if (s->capturing == NOTHING && s->active != NULL && s->field >= 0 && s->depth == s->level + 1 &&
        s->element_is_object)
        capture_begin(s, LITERAL);
    if (s->capturing == LITERAL) capture_add(s, &c, 1);
    return F2B_OK;
}

static f2b_status piece(scanner *s, const char *bytes, size_t n, uint64_t offset)
{
    const char *p = bytes, *end = bytes + n;
    if (offset == 0 && n >= 3 && memcmp(p, "\xEF\xBB\xBF", 3) == 0) p += 3;
    while (p < end) {
        if (s->in_string) {
            p = string_rest(s, p, end);
            if (!s->in_string) F2B_TRY(capture_end(s));
        } else {
            F2B_TRY(structure(s, *p, offset + (uint64_t)(p - bytes)));
            p++;
        }
    }
    return F2B_OK;
}

static f2b_status scan(scanner *s, int fd, char *buffer)
{
    uint64_t offset = 0;
    for (;;) {
        const ssize_t got = pread(fd, buffer, CHUNK, (off_t)offset);
        if (got < 0) return f2b_fail_errno(F2B_ERR_IO, "%s: cannot be read", s->path);
        if (got == 0) break;
        F2B_TRY(piece(s, buffer, (size_t)got, offset));
        offset += (uint64_t)got;
    }
    if (!s->ended) return broken(s, offset, "the file ends in the middle of it (cut off?)");
    for (int i = 0; i < s->n; i++)
        if (!s->arrays[i].found)
            return f2b_fail(F2B_ERR_FORMAT, "%s: has no array `%s`", s->path, s->arrays[i].key);
    return F2B_OK;
}

f2b_status f2bi_json_scan(int fd, const char *path, f2bi_json_array *arrays, int n, void *user)
{
    scanner *s = f2b_calloc(1, sizeof *s, F2B_TAG_FILES);
    char *buffer = f2b_alloc_host(CHUNK, F2B_TAG_FILES);
    f2b_status status = F2B_ERR_MEMORY;
    if (s != NULL && buffer != NULL) {
        s->path = path, s->user = user, s->arrays = arrays, s->n = n;
        s->pending = s->field = -1;
        s->level = arrays[0].key == NULL ? 1 : 2;
        status = scan(s, fd, buffer);
    }
    f2b_free(buffer);
    f2b_free(s);
    return status;
}
