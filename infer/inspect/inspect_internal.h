/* A report in the making, and the kinds of things that reports are about. */
#ifndef F2B_INFER_INSPECT_INSPECT_INTERNAL_H
#define F2B_INFER_INSPECT_INSPECT_INTERNAL_H

#include "checkpoints/named_array.h"
#include "infer/inspect/inspect.h"

typedef struct f2bi_report {
    const f2b_inspect_options *options;
    const char *path;
    json_t *root, *facts, *tensors, *checks;    /* the last three belong to root */
    int64_t count, elements, bytes;
    bool failed;                                /* jansson had no memory */
} f2bi_report;

/** A text as JSON: invalid UTF-8 becomes U+FFFD. A new reference, or NULL. */
json_t *f2bi_json_clean(const char *bytes, size_t n);

/** Put a fact (the reference is taken; NULL marks the report as failed). */
void f2bi_fact(f2bi_report *r, const char *key, json_t *value);
void f2bi_fact_text(f2bi_report *r, const char *key, const char *text);     /* NULL: no fact */

/** What a tensor is, for the list. */
typedef struct f2bi_listed {
    const char *name, *type, *file;     /* file: NULL where there is only one */
    int ndim;
    const int64_t *shape;
    int64_t bytes;
    int dtype;                          /* of data, or -1 */
    const void *data;                   /* NULL: no norm */
    int64_t updates;                    /* Adam's count, or -1 */
} f2bi_listed;
void f2bi_list(f2bi_report *r, const f2bi_listed *tensor);

/** Whether the next tensor is still to be listed with its norm (so that its data must be read). */
bool f2bi_wants_norm(const f2bi_report *r);

/** Note a check and why it failed; NULL: it is ok. */
void f2bi_check(f2bi_report *r, const char *what, const char *why);

/** As f2bi_check, with this thread's last error where it is not ok. */
void f2bi_check_status(f2bi_report *r, const char *what, bool ok);

/** With options.verify: the fact `checksums` gets the file's size and XXH3-128 under `name`. */
void f2bi_checksum(f2bi_report *r, const char *path, const char *name);

/** The same of folder/name; a file that is not there has none. */
void f2bi_checksum_in(f2bi_report *r, const char *folder, const char *name);

/** All tensors of a safetensors file; `file` as above. */
f2b_status f2bi_list_safetensors(f2bi_report *r, const char *path, const char *file) F2B_MUST_USE;

/** The kinds. Each fills the report; an error where nothing of it can be read. */
f2b_status f2bi_inspect_run(f2bi_report *r) F2B_MUST_USE;
f2b_status f2bi_inspect_checkpoint(f2bi_report *r) F2B_MUST_USE;
f2b_status f2bi_inspect_export(f2bi_report *r) F2B_MUST_USE;
f2b_status f2bi_inspect_peft(f2bi_report *r) F2B_MUST_USE;
f2b_status f2bi_inspect_model(f2bi_report *r) F2B_MUST_USE;
f2b_status f2bi_inspect_safetensors(f2bi_report *r) F2B_MUST_USE;
f2b_status f2bi_inspect_gguf(f2bi_report *r) F2B_MUST_USE;
f2b_status f2bi_inspect_store(f2bi_report *r) F2B_MUST_USE;

/** Is there such an entry in the folder? */
bool f2bi_folder_has(const char *folder, const char *name);

#endif
