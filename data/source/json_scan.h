/*
 * Finds the elements of arrays in a JSON file of any size, in fixed memory: where each begins, and
 * the values of a few of its fields. It does not check that elements are valid; their reader does.
 */
#ifndef F2B_DATA_SOURCE_JSON_SCAN_H
#define F2B_DATA_SOURCE_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "autograd/core/status.h"

/* One array to look for. */
typedef struct f2bi_json_array {
    const char *key;            /* of the root object; NULL: the root itself is the array */
    const char *fields[3];      /* names of fields to report, then NULL */
    /* An element begins at byte `offset`. */
    f2b_status (*element)(void *user, uint64_t offset);
    /* A field of the latest element: the text of a string, or a literal (number, true, null). */
    f2b_status (*value)(void *user, int field, const char *text, size_t n, bool string);
    bool found;                 /* out */
    uint64_t end;               /* out: offset of the closing bracket */
} f2bi_json_array;

/*
 * Scan a file. Element i reaches from its offset to the next element's, or to `end`; what follows
 * it there is white space and a comma. Strings longer than 4 KiB are not reported.
 * errors  F2B_ERR_FORMAT: another root than expected, an array twice, unbalanced brackets, text
 *         after the end, or an end within a record (named); F2B_ERR_IO; what the callbacks return.
 */
f2b_status f2bi_json_scan(int fd, const char *path, f2bi_json_array *arrays, int n, void *user)
    F2B_MUST_USE;

#endif
