/*
 * Bad records: why each cannot be used, how many there are, and when there are too many.
 *
 * A record counts once however often it is met, so that the counts do not depend on how long a run
 * was or how many threads read. The log may be used from many threads at once.
 */
#ifndef F2B_DATA_SOURCE_FAULT_H
#define F2B_DATA_SOURCE_FAULT_H

#include <stdbool.h>
#include <stdint.h>

#include "autograd/core/status.h"
#include "data/prompt/prompt.h"

/* fault, name in counts and lists, text for people; the faults of prompts (prompt.h) follow. */
#define F2B_FAULT_LIST(X)                                                                          \
    X(F2B_FAULT_NONE, "ok", "usable")                                                              \
    X(F2B_FAULT_JSON, "unreadable_json", "the record is not valid JSON")                           \
    X(F2B_FAULT_FIELD, "bad_field", "a field is missing or of the wrong type")                     \
    X(F2B_FAULT_ROW, "malformed_row", "the row is not `caption TAB file` in UTF-8")                \
    X(F2B_FAULT_MEMBER, "missing_member", "the sample lacks its image or caption")                 \
    X(F2B_FAULT_ARCHIVE, "damaged_archive", "the archive is damaged or cut off here")              \
    X(F2B_FAULT_IMAGE_UNKNOWN, "unknown_image", "no entry of `images` has this image_id")          \
    X(F2B_FAULT_IMAGE_NAME, "unsafe_image_name", "the name leads out of the image folder")         \
    X(F2B_FAULT_IMAGE_MISSING, "missing_image", "the image file does not exist")                   \
    X(F2B_FAULT_IMAGE_BROKEN, "broken_image", "the image cannot be decoded")

/** A fault of a record: one of F2B_FAULT_LIST, or F2B_FAULT_PROMPT + an f2b_prompt_fault. */
typedef enum f2b_fault {
#define F2B_X(fault, name, text) fault,
    F2B_FAULT_LIST(F2B_X)
#undef F2B_X
    F2B_FAULT_PROMPT,
    F2B_FAULT_KINDS = F2B_FAULT_PROMPT + F2B_PROMPT_FAULTS
} f2b_fault;

/** Name as in counts and lists ("missing_image"), and a sentence. Static storage. */
const char *f2b_fault_name(f2b_fault fault);
const char *f2b_fault_text(f2b_fault fault);

/** One bad record, as it is listed. Texts are valid during the call only. */
typedef struct f2b_fault_entry {
    const char *source;         /* "conversations[0]" */
    int64_t record;             /* from 0, in file order */
    f2b_fault fault;
    const char *detail;         /* what exactly: a file, a field, a position; may be "" */
} f2b_fault_entry;

/** Called once for each bad record, under the log's lock, from whichever thread met it. */
typedef void (*f2b_fault_listener)(const f2b_fault_entry *entry, void *user);

typedef struct f2b_fault_log f2b_fault_log;

/** What happens at a bad record. */
typedef struct f2b_fault_policy {
    bool stop_at_first;         /* data.bad_records: error */
    double max_fraction;        /* of each source's records; 1 or more never stops */
    f2b_fault_listener listener;/* or NULL */
    void *user;
} f2b_fault_policy;

/** A new, empty log; NULL on F2B_ERR_MEMORY. Free with f2b_fault_log_free (NULL is allowed). */
f2b_fault_log *f2b_fault_log_new(f2b_fault_policy policy);
void f2b_fault_log_free(f2b_fault_log *log);

/** Make a source of `records` records known; return its number in this log (from 0), or -1 on
 *  F2B_ERR_MEMORY. Not to be called once several threads use the log. */
int f2b_fault_log_source(f2b_fault_log *log, const char *name, int64_t records);

/**
 * Report a bad record. The first report of a record is counted and listed, later ones do nothing.
 * errors  F2B_ERR_DATA: the policy stops here (the text names the record, or the counts by kind);
 *         F2B_ERR_MEMORY.
 */
f2b_status f2b_fault_log_add(f2b_fault_log *log, int source, int64_t record, f2b_fault fault,
                             const char *detail) F2B_MUST_USE;

/** Whether a record was reported. */
bool f2b_fault_log_knows(f2b_fault_log *log, int source, int64_t record);

/** Bad records of a source (-1: of all) and of a kind (F2B_FAULT_NONE: of all kinds). */
int64_t f2b_fault_log_count(f2b_fault_log *log, int source, f2b_fault fault);

#endif
