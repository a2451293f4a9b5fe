/* Shared by the config_*.c files: the field table and what works on one field. */
#ifndef F2B_TRAIN_CONFIG_INTERNAL_H
#define F2B_TRAIN_CONFIG_INTERNAL_H

#include <stddef.h>
#include <stdio.h>
#include <yaml.h>

#include "train/config.h"

typedef enum f2bi_field_type {
    F2BI_TEXT,          /* char * */
    F2BI_PATH,          /* char *, made absolute */
    F2BI_INTEGER,       /* int64_t */
    F2BI_BYTES,         /* int64_t: a number and a unit, "20GiB"; 0 needs none */
    F2BI_NUMBER,        /* double; where `choices` is set, that one word stands for 0 */
    F2BI_SWITCH,        /* bool */
    F2BI_CHOICE,        /* an enum; `choices` in its order */
    F2BI_SUBSET,        /* uint32_t, bit i for entry i of `choices`; at least one */
    F2BI_SOURCES,       /* f2b_config_sources */
} f2bi_field_type;

typedef struct f2bi_field {
    const char *name;           /* "train.adam.beta1" */
    f2bi_field_type type;
    size_t offset;              /* in f2b_config */
    const char *fallback;       /* the default as YAML; NULL: the key is required */
    const char *choices;        /* "a|b|c" */
    double min, max;            /* F2BI_INTEGER, F2BI_NUMBER: the range; F2BI_TEXT: most bytes */
    bool above;                 /* min itself is out of range */
    bool nullable;              /* null (NULL, or 0) is allowed */
    bool images;                /* F2BI_SOURCES: items may have `images` */
    bool may_change;            /* on resume */
    const char *unit;           /* "tokens", "steps"; NULL: none */
    const char *help;
} f2bi_field;

extern const f2bi_field f2bi_fields[];
extern const int f2bi_n_fields;
enum { F2BI_MAX_FIELDS = 128, F2BI_MAX_NAME = 64 };

/** One line on a section such as "train", for the reference page; NULL: none. */
const char *f2bi_section_help(const char *section);

/** Index of the field of that name, or -1; of the first below that section, or -1. */
int f2bi_field_find(const char *name);
int f2bi_section_find(const char *section);

static inline void *f2bi_field_of(f2b_config *config, const f2bi_field *field)
{
    return (char *)config + field->offset;
}
static inline const void *f2bi_field_in(const f2b_config *config, const f2bi_field *field)
{
    return (const char *)config + field->offset;
}

/** The layers a value can come from; a later one takes the place of an earlier one. */
typedef enum f2bi_layer { F2BI_DEFAULT, F2BI_FILE, F2BI_OVERRIDE } f2bi_layer;

/** Where a value stands, for messages and for relative paths. Borrowed texts. */
typedef struct f2bi_place {
    f2bi_layer layer;
    const char *name;           /* the file's name; of an override, its text */
    int64_t line;               /* in the file, from 1; 0: none */
    const char *folder;         /* what paths are relative to, absolute */
} f2bi_place;

/** f2b_fail(F2B_ERR_CONFIG), with the place before the text. */
f2b_status f2bi_config_fail(const f2bi_place *place, const char *format, ...) F2B_PRINTF(2, 3);

/** Set a field of config from a YAML node, checked for type and range. What it held is freed. */
F2B_MUST_USE f2b_status f2bi_field_read(f2b_config *config, const f2bi_field *field,
                                        yaml_document_t *document, const yaml_node_t *node,
                                        const f2bi_place *place);

/** Set a member ("path", "images") of an item of a list of sources; item n appends one. */
F2B_MUST_USE f2b_status f2bi_source_read(f2b_config *config, const f2bi_field *field, int64_t item,
                                         const char *member, const yaml_node_t *node,
                                         const f2bi_place *place);

/** Free what the field holds and make it null. */
void f2bi_field_clear(f2b_config *config, const f2bi_field *field);
bool f2bi_field_equal(const f2b_config *a, const f2b_config *b, const f2bi_field *field);

/** Write a field's value as YAML on one line. */
void f2bi_field_write(FILE *out, const f2b_config *config, const f2bi_field *field);
/** Write a size, in the largest unit that has it whole. */
void f2bi_bytes_write(FILE *out, int64_t bytes);
/** Write a text as a double-quoted YAML scalar; only what has to be is escaped. */
void f2bi_text_quote(FILE *out, const char *text);
/** Whether a plain scalar means null: empty, ~, null, Null, NULL. */
bool f2bi_is_null(const char *text);

/** The i-th of "a|b|c" into word[F2BI_MAX_NAME], false if there is none. Index of a word, or -1. */
bool f2bi_choice_at(const char *choices, int i, char *word);
int f2bi_choice_find(const char *choices, const char *word);

/** A loss without data is no error for who looks at data alone. */
void f2bi_config_drop_loss(f2b_config *config);

/** The checks across fields; places[i] is where field i was set. */
F2B_MUST_USE f2b_status f2bi_config_check(const f2b_config *config, const f2bi_place *places);

#endif
