/*
 * Reading JSON that others wrote: a file with duplicate keys refused, and values by key with the
 * file's name in every message. The first error is kept, so that many values need one check.
 */
#ifndef F2B_CHECKPOINTS_JSON_INTERNAL_H
#define F2B_CHECKPOINTS_JSON_INTERNAL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "autograd/core/status.h"

/** The object in a file of at most max_bytes; json_decref it. NULL with the error set. */
json_t *f2bi_json_load(const char *path, int64_t max_bytes);

/** The object in a text; `where` names it in messages. */
json_t *f2bi_json_parse(const char *text, const char *where);

typedef struct f2bi_json_reader {
    const char *file;           /* for messages */
    f2b_status status;          /* of the first error; F2B_OK so far */
} f2bi_json_reader;

/**
 * The value of a key, or `fallback` where it is missing or null. An integer must lie in [low,
 * high], a number must be finite and in [low, high]. On an error the fallback is returned and the
 * reader fails with F2B_ERR_FORMAT.
 */
int64_t f2bi_json_integer(f2bi_json_reader *reader, const json_t *object, const char *key,
                          int64_t fallback, int64_t low, int64_t high);
double f2bi_json_number(f2bi_json_reader *reader, const json_t *object, const char *key,
                        double fallback, double low, double high);
bool f2bi_json_bool(f2bi_json_reader *reader, const json_t *object, const char *key, bool fallback);
const char *f2bi_json_string(f2bi_json_reader *reader, const json_t *object, const char *key,
                             const char *fallback);

/** The value, or NULL where it is missing or null. */
const json_t *f2bi_json_get(const json_t *object, const char *key);

/** The index of the key's string in `names` (n of them), or a failure that lists them. A missing
 *  key is a failure too. */
int f2bi_json_choice(f2bi_json_reader *reader, const json_t *object, const char *key,
                     const char *const *names, int n);

/** Fails for any key of the object that is not among `keys`. */
void f2bi_json_known_keys(f2bi_json_reader *reader, const json_t *object, const char *const *keys,
                          int n);

/** Fail the reader, unless it has failed before: "FILE: message". */
void f2bi_json_fail(f2bi_json_reader *reader, const char *format, ...) F2B_PRINTF(2, 3);

/** json_dumps into our own memory (flags of jansson); free with f2b_free. NULL with the error
 * set. */
char *f2bi_json_text(const json_t *value, size_t flags);

#endif
