/*
 * Rows of length 1, so that products of rows are cosines.
 */
#ifndef F2B_INFER_UNIT_ROW_H
#define F2B_INFER_UNIT_ROW_H

#include <stdbool.h>
#include <stdint.h>

/** row[d] /= its Euclidean length, which is summed in f64; a row of zeros stays one. false, and the
 *  row is as it was: a value is not finite. */
bool f2b_unit_row(float *row, int64_t d);

#endif
