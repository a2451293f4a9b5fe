/* What the evaluations share: hooks, and pictures of records. */
#ifndef F2B_INFER_EVALUATE_INTERNAL_H
#define F2B_INFER_EVALUATE_INTERNAL_H

#include "infer/evaluate.h"

/** Tell of a record that is left out. */
void f2bi_evaluate_skip(const f2b_evaluate_hooks *hooks, const f2b_source *source, int64_t record,
                        const char *reason);

/** F2B_ERR_STOPPED if the caller wants to stop; else tells it that `done` of `total` are done. */
f2b_status f2bi_evaluate_tick(const f2b_evaluate_hooks *hooks, int64_t done,
                              int64_t total) F2B_MUST_USE;

/** Records to read: all, or the first `limit`. */
int64_t f2bi_evaluate_count(const f2b_source *source, int64_t limit);

/** The sentence for a record's fault, with its detail: "missing_image: a/b.jpg". f2b_free. */
char *f2bi_evaluate_reason(const f2b_record *record);

/**
 * The prepared pixels [S, S, 3] of a record's image, for f2b_free. *pixels is NULL, and the record
 * has a fault, where it cannot be used.
 */
f2b_status f2bi_evaluate_pixels(const f2b_infer *in, const f2b_source *source, f2b_record *record,
                                uint8_t **pixels) F2B_MUST_USE;

#endif
