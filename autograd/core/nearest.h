/*
 * The nearest of a list of names, for messages like "unknown option --modle; did you mean
 * --model?".
 */
#ifndef F2B_AUTOGRAD_CORE_NEAREST_H
#define F2B_AUTOGRAD_CORE_NEAREST_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Optimal string alignment distance (insert, delete, replace, swap of neighbours cost 1 each), case
 * ignored. Texts beyond 127 bytes are cut there.
 */
int f2b_edit_distance(const char *a, const char *b);

/**
 * names[n] borrowed, NULL entries are passed over. Returns the name of least distance to `text`
 * (the first of several), or NULL where none is near enough to be worth suggesting: within a third
 * of the longer text's length, at least 1.
 */
const char *f2b_nearest_name(const char *text, const char *const *names, int64_t n);

#ifdef __cplusplus
}
#endif
#endif
