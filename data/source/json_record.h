/* One element of a scanned array, parsed. */
#ifndef F2B_DATA_SOURCE_JSON_RECORD_H
#define F2B_DATA_SOURCE_JSON_RECORD_H

#include <jansson.h>

#include "data/source/source.h"

/*
 * Parse the element in bytes [begin, end) (with the white space and comma behind it) as an object.
 * *root receives it (json_decref), or NULL with a fault in the record.
 */
f2b_status f2bi_json_record(int fd, const char *path, uint64_t begin, uint64_t end,
                            f2b_record *record, json_t **root) F2B_MUST_USE;

#endif
