/*
 * One field of the configuration: from a YAML node into the struct, checked for type and range; and
 * freeing and comparing it. Nothing here knows single keys.
 */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "autograd/core/alloc.h"
#include "autograd/core/nearest.h"
#include "train/config_internal.h"

enum { MAX_SOURCES = 1000, MAX_CHOICES = 16, MAX_TEXT = 65536 };

f2b_status f2bi_config_fail(const f2bi_place *place, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (place->layer == F2BI_OVERRIDE)
        return f2b_fail(F2B_ERR_CONFIG, "override \"%.200s\": %s", place->name, text);
    if (place->layer == F2BI_DEFAULT || place->line == 0)
        return f2b_fail(F2B_ERR_CONFIG, "%.500s: %s", place->name, text);
    return f2b_fail(F2B_ERR_CONFIG, "%.500s:%lld: %s", place->name, (long long)place->line, text);
}

bool f2bi_choice_at(const char *choices, int i, char *word)
{
    for (; i > 0; i--) {
        choices = strchr(choices, '|');
        if (choices == NULL) return false;
        choices++;
    }
    const size_t n = strcspn(choices, "|");
    F2B_CHECK(n < F2BI_MAX_NAME);
    memcpy(word, choices, n);
    word[n] = '\0';
    return true;
}

int f2bi_choice_find(const char *choices, const char *word)
{
    char name[F2BI_MAX_NAME];
    for (int i = 0; f2bi_choice_at(choices, i, name); i++)
        if (strcmp(name, word) == 0) return i;
    return -1;
}

bool f2bi_is_null(const char *text)
{
    return text[0] == '\0' || strcmp(text, "~") == 0 || strcmp(text, "null") == 0 ||
           strcmp(text, "Null") == 0 || strcmp(text, "NULL") == 0;
}

static f2b_status wrong_word(const f2bi_field *field, const char *word, const f2bi_place *place)
{
    char words[MAX_CHOICES][F2BI_MAX_NAME];
    const char *names[MAX_CHOICES];
    int n = 0;
    while (n < MAX_CHOICES && f2bi_choice_at(field->choices, n, words[n])) {
        names[n] = words[n];
        n++;
    }
    const char *nearest = f2b_nearest_name(word, names, n);
    return f2bi_config_fail(place, "%s is one of %s, not \"%.100s\"%s%s%s", field->name,
                            field->choices, word, nearest != NULL ? "; did you mean " : "",
                            nearest != NULL ? nearest : "", nearest != NULL ? "?" : "");
}

static f2b_status out_of_range(const f2bi_field *field, const char *text, const f2bi_place *place)
{
    return f2bi_config_fail(
        place, "%s is %s %.15g%s%.15g%s%s, not %.100s", field->name,
        field->above ? "above" : "from", field->min, field->above ? " and at most " : " to ",
        field->max, field->unit != NULL ? " " : "", field->unit != NULL ? field->unit : "", text);
}

static f2b_status read_number(void *target, const f2bi_field *field, const char *text,
                              const f2bi_place *place)
{
    if (field->type == F2BI_NUMBER && field->choices != NULL && strcmp(text, field->choices) == 0) {
        *(double *)target = 0;
        return F2B_OK;
    }
    const bool whole = field->type == F2BI_INTEGER;
    char *end = NULL;
    errno = 0;
    const long long i = whole ? strtoll(text, &end, 10) : 0;
    const double d = whole ? (double)i : strtod(text, &end);
    /* strtod also takes hexadecimal, inf and nan, which no key means. */
    if (end == text || *end != '\0' || strspn(text, "+-.0123456789eE") != strlen(text))
        return f2bi_config_fail(place, "%s is a %s%s%s, not \"%.100s\"", field->name,
                                whole ? "whole number" : "number",
                                field->choices != NULL ? " or " : "",
                                field->choices != NULL ? field->choices : "", text);
    if ((whole && errno == ERANGE) || !(d >= field->min && d <= field->max) ||
        (field->above && d == field->min))
        return out_of_range(field, text, place);
    if (whole) *(int64_t *)target = i;
    else *(double *)target = d;
    return F2B_OK;
}

static const struct {
    const char *name;
    int64_t bytes;
} units[] = {
    { "TiB", (int64_t)1 << 40 }, { "GiB", 1 << 30 }, { "MiB", 1 << 20 }, { "KiB", 1 << 10 },
    { "TB", 1000000000000 }, { "GB", 1000000000 }, { "MB", 1000000 }, { "KB", 1000 }, { "B", 1 },
};
enum { UNITS = sizeof units / sizeof *units, BINARY_UNITS = 4 };

static f2b_status read_bytes(int64_t *target, const f2bi_field *field, const char *text,
                             const f2bi_place *place)
{
    char *unit = NULL;
    const size_t digits = strspn(text, "0123456789.");
    const double number = digits > 0 ? strtod(text, &unit) : -1;
    int i = UNITS;
    if (unit == text + digits) {
        unit += strspn(unit, " ");
        for (i = 0; i < UNITS && strcasecmp(unit, units[i].name) != 0; i++) continue;
        if (*unit == '\0' && number == 0) i = UNITS - 1;
    }
    if (i == UNITS)
        return f2bi_config_fail(place, "%s is a size with its unit, such as 20GiB or 800MiB, or 0; "
                                "not \"%.100s\"", field->name, text);
    const double bytes = number * (double)units[i].bytes;
    if (!(bytes < 9e18))
        return f2bi_config_fail(place, "%s is too large: %.100s", field->name, text);
    *target = (int64_t)bytes;
    return F2B_OK;
}

void f2bi_bytes_write(FILE *out, int64_t bytes)
{
    int i = 0;
    while (i < BINARY_UNITS && (bytes < units[i].bytes || bytes % units[i].bytes != 0)) i++;
    if (bytes == 0) fputs("0", out);
    else if (i < BINARY_UNITS) fprintf(out, "%lld%s", (long long)(bytes / units[i].bytes), units[i].name);
    else fprintf(out, "%lldB", (long long)bytes);
}

/*
 * folder + "/" + path, with leading "./" and "../" of path worked off, so that the result reads
 * well. A ".." behind a name stays: the name may be a link.
 */
static char *absolute_path(const char *folder, const char *path)
{
    if (path[0] == '/') return f2b_strdup(path, F2B_TAG_OTHER);
    size_t n = strlen(folder);
    while (n > 0 && folder[n - 1] == '/') n--;
    for (;;) {
        if (strncmp(path, "./", 2) == 0) {
            path += 2;
        } else if (strncmp(path, "../", 3) == 0 || strcmp(path, "..") == 0) {
            path += path[2] == '/' ? 3 : 2;
            while (n > 0 && folder[n - 1] != '/') n--;
            while (n > 0 && folder[n - 1] == '/') n--;
        } else if (path[0] == '/') {
            path++;
        } else {
            break;
        }
    }
    if (strcmp(path, ".") == 0) path++;
    if (path[0] == '\0' && n > 0) return f2b_sprintf(F2B_TAG_OTHER, "%.*s", (int)n, folder);
    return f2b_sprintf(F2B_TAG_OTHER, "%.*s/%s", (int)n, folder, path);
}

static f2b_status set_text(char **target, const f2bi_field *field, const char *text,
                           const f2bi_place *place)
{
    const bool is_path = field->type != F2BI_TEXT;
    if (text[0] == '\0') return f2bi_config_fail(place, "%s is empty", field->name);
    if (field->max > 0 && strlen(text) > (size_t)field->max)
        return f2bi_config_fail(place, "%s has more than %.0f bytes", field->name, field->max);
    char *copy = is_path ? absolute_path(place->folder, text) : f2b_strdup(text, F2B_TAG_OTHER);
    if (copy == NULL) return f2b_last_status();
    f2b_free(*target);
    *target = copy;
    return F2B_OK;
}

static f2b_status read_scalar(f2b_config *config, const f2bi_field *field, const char *text,
                              bool plain, const f2bi_place *place)
{
    void *target = f2bi_field_of(config, field);
    if (plain && f2bi_is_null(text)) {
        if (!field->nullable)
            return f2bi_config_fail(place, "%s has no value; it cannot be null", field->name);
        f2bi_field_clear(config, field);
        return F2B_OK;
    }
    switch (field->type) {
    case F2BI_TEXT:
    case F2BI_PATH: return set_text(target, field, text, place);
    case F2BI_INTEGER:
    case F2BI_NUMBER: return read_number(target, field, text, place);
    case F2BI_BYTES: return read_bytes(target, field, text, place);
    case F2BI_SWITCH:
        if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
            return f2bi_config_fail(place, "%s is true or false, not \"%.100s\"", field->name,
                                    text);
        *(bool *)target = text[0] == 't';
        return F2B_OK;
    case F2BI_CHOICE: {
        const int index = f2bi_choice_find(field->choices, text);
        if (index < 0) return wrong_word(field, text, place);
        memcpy(target, &index, sizeof index);
        return F2B_OK;
    }
    case F2BI_SUBSET:
    case F2BI_SOURCES: break;
    }
    return f2bi_config_fail(place, "%s is a list: [%s]", field->name,
                            field->type == F2BI_SUBSET ? "name, name"
                                                       : "{path: FILE}, {path: FILE}");
}

/* The text of a scalar node; NULL with an error for another kind of node. */
static const char *scalar_text(const yaml_node_t *node, const char *key, const f2bi_place *place)
{
    if (node->type != YAML_SCALAR_NODE) {
        (void)f2bi_config_fail(place, "%s is a single value, not a %s", key,
                               node->type == YAML_SEQUENCE_NODE ? "list" : "group of keys");
        return NULL;
    }
    const char *text = (const char *)node->data.scalar.value;
    if (node->data.scalar.length > MAX_TEXT || strlen(text) != node->data.scalar.length) {
        (void)f2bi_config_fail(place, "%s is not a text of at most %d bytes", key, MAX_TEXT);
        return NULL;
    }
    return text;
}

static f2b_status read_subset(f2b_config *config, const f2bi_field *field,
                              yaml_document_t *document, const yaml_node_t *node,
                              const f2bi_place *place)
{
    uint32_t bits = 0;
    const yaml_node_item_t *item = node->data.sequence.items.start;
    for (; item < node->data.sequence.items.top; item++) {
        const yaml_node_t *entry = yaml_document_get_node(document, *item);
        const char *word = scalar_text(entry, field->name, place);
        if (word == NULL) return f2b_last_status();
        const int index = f2bi_choice_find(field->choices, word);
        if (index < 0) return wrong_word(field, word, place);
        if (bits & (1u << index))
            return f2bi_config_fail(place, "%s names %s twice", field->name, word);
        bits |= 1u << index;
    }
    if (bits == 0)
        return f2bi_config_fail(place, "%s is empty; it is some of %s", field->name,
                                field->choices);
    *(uint32_t *)f2bi_field_of(config, field) = bits;
    return F2B_OK;
}

f2b_status f2bi_source_read(f2b_config *config, const f2bi_field *field, int64_t item,
                            const char *member, const yaml_node_t *node, const f2bi_place *place)
{
    f2b_config_sources *sources = f2bi_field_of(config, field);
    const bool is_path = strcmp(member, "path") == 0, is_images = strcmp(member, "images") == 0;
    if (!is_path && !(is_images && field->images))
        return f2bi_config_fail(place, "unknown key %s[%lld].%.100s; an item has %s", field->name,
                                (long long)item, member,
                                field->images ? "path and images" : "path");
    const char *text = scalar_text(node, field->name, place);
    if (text == NULL) return f2b_last_status();
    if (item < 0 || item > sources->n || item >= MAX_SOURCES)
        return f2bi_config_fail(place, "%s has %lld items, so there is no [%lld] (at most %d)",
                                field->name, (long long)sources->n, (long long)item, MAX_SOURCES);
    if (item == sources->n) {
        f2b_config_source *grown =
            f2b_realloc(sources->items, (size_t)(item + 1) * sizeof *grown, F2B_TAG_OTHER);
        if (grown == NULL) return f2b_last_status();
        grown[item] = (f2b_config_source){ NULL, NULL };
        sources->items = grown;
        sources->n = item + 1;
    }
    char **target = is_path ? &sources->items[item].path : &sources->items[item].images;
    if (is_images && node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && f2bi_is_null(text)) {
        f2b_free(*target);
        *target = NULL;
        return F2B_OK;
    }
    return set_text(target, field, text, place);
}

static f2b_status read_sources(f2b_config *config, const f2bi_field *field,
                               yaml_document_t *document, const yaml_node_t *node, f2bi_place place)
{
    f2bi_field_clear(config, field);
    const f2b_config_sources *sources = f2bi_field_in(config, field);
    const yaml_node_item_t *item = node->data.sequence.items.start;
    for (; item < node->data.sequence.items.top; item++) {
        const yaml_node_t *entry = yaml_document_get_node(document, *item);
        if (place.layer == F2BI_FILE) place.line = (int64_t)entry->start_mark.line + 1;
        if (entry->type != YAML_MAPPING_NODE)
            return f2bi_config_fail(&place, "%s is a list of {path: FILE%s}", field->name,
                                    field->images ? ", images: FOLDER" : "");
        const int64_t at = sources->n;
        bool seen[2] = { false };
        const yaml_node_pair_t *pair = entry->data.mapping.pairs.start;
        for (; pair < entry->data.mapping.pairs.top; pair++) {
            const yaml_node_t *value = yaml_document_get_node(document, pair->value);
            const char *member =
                scalar_text(yaml_document_get_node(document, pair->key), field->name, &place);
            if (member == NULL) return f2b_last_status();
            F2B_TRY(f2bi_source_read(config, field, at, member, value, &place));
            bool *known = &seen[strcmp(member, "images") == 0];
            if (*known)
                return f2bi_config_fail(&place, "%s[%lld].%s is given twice", field->name,
                                        (long long)at, member);
            *known = true;
        }
        if (!seen[0])
            return f2bi_config_fail(&place, "%s[%lld] has no path", field->name, (long long)at);
    }
    return F2B_OK;
}

f2b_status f2bi_field_read(f2b_config *config, const f2bi_field *field, yaml_document_t *document,
                           const yaml_node_t *node, const f2bi_place *place)
{
    if (node->type == YAML_SEQUENCE_NODE && field->type == F2BI_SUBSET)
        return read_subset(config, field, document, node, place);
    if (node->type == YAML_SEQUENCE_NODE && field->type == F2BI_SOURCES)
        return read_sources(config, field, document, node, *place);
    const char *text = scalar_text(node, field->name, place);
    if (text == NULL) return f2b_last_status();
    return read_scalar(config, field, text, node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE,
                       place);
}

static void free_sources(f2b_config_sources *sources)
{
    for (int64_t i = 0; i < sources->n; i++) {
        f2b_free(sources->items[i].path);
        f2b_free(sources->items[i].images);
    }
    f2b_free(sources->items);
    *sources = (f2b_config_sources){ 0, NULL };
}

void f2bi_field_clear(f2b_config *config, const f2bi_field *field)
{
    void *target = f2bi_field_of(config, field);
    switch (field->type) {
    case F2BI_TEXT:
    case F2BI_PATH:
        f2b_free(*(char **)target);
        *(char **)target = NULL;
        return;
    case F2BI_SOURCES: free_sources(target); return;
    case F2BI_INTEGER:
    case F2BI_BYTES: *(int64_t *)target = 0; return;
    case F2BI_NUMBER: *(double *)target = 0; return;
    case F2BI_SWITCH: *(bool *)target = false; return;
    case F2BI_SUBSET: *(uint32_t *)target = 0; return;
    case F2BI_CHOICE: memset(target, 0, sizeof(int)); return;
    }
}

static bool text_equal(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static bool sources_equal(const f2b_config_sources *a, const f2b_config_sources *b)
{
    if (a->n != b->n) return false;
    for (int64_t i = 0; i < a->n; i++)
        if (!text_equal(a->items[i].path, b->items[i].path) ||
            !text_equal(a->items[i].images, b->items[i].images))
            return false;
    return true;
}

bool f2bi_field_equal(const f2b_config *a, const f2b_config *b, const f2bi_field *field)
{
    const void *x = f2bi_field_in(a, field), *y = f2bi_field_in(b, field);
    switch (field->type) {
    case F2BI_TEXT:
    case F2BI_PATH: return text_equal(*(char *const *)x, *(char *const *)y);
    case F2BI_SOURCES: return sources_equal(x, y);
    case F2BI_INTEGER:
    case F2BI_BYTES: return *(const int64_t *)x == *(const int64_t *)y;
    case F2BI_NUMBER: return *(const double *)x == *(const double *)y;
    case F2BI_SWITCH: return *(const bool *)x == *(const bool *)y;
    case F2BI_SUBSET: return *(const uint32_t *)x == *(const uint32_t *)y;
    case F2BI_CHOICE: return memcmp(x, y, sizeof(int)) == 0;
    }
    return false;
}
