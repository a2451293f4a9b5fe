/*
 * Writer of NumPy's .npy files (format version 1.0), little-endian, C order.
 */
#ifndef F2B_DATA_NPY_NPY_H
#define F2B_DATA_NPY_NPY_H

#include <stdint.h>

#include "autograd/core/status.h"

typedef enum f2b_npy_type { F2B_NPY_F32, F2B_NPY_I32, F2B_NPY_I64 } f2b_npy_type;

/**
 * Write `data`, an array of `shape` [dims] outermost first, to `path` (replaced if it exists; removed
 * again if writing fails). dims is 0 to 8; a dimension may be 0; the size in bytes is checked.
 * errors  F2B_ERR_INVALID (shape), F2B_ERR_IO with the path.
 * source  numpy/lib/format.py
 */
f2b_status f2b_npy_write(const char *path, f2b_npy_type type, const int64_t *shape, int dims,
                         const void *data) F2B_MUST_USE;

/**
 * The same in pieces, for arrays that never exist as a whole: begin writes the header, append adds
 * elements in order, end closes and fails unless exactly the shape's number of elements came.
 * end frees the writer in any case; NULL is allowed (and is F2B_OK).
 */
typedef struct f2b_npy_writer f2b_npy_writer;
f2b_npy_writer *f2b_npy_begin(const char *path, f2b_npy_type type, const int64_t *shape, int dims);
f2b_status f2b_npy_append(f2b_npy_writer *writer, const void *data, int64_t elements) F2B_MUST_USE;
f2b_status f2b_npy_end(f2b_npy_writer *writer) F2B_MUST_USE;

#endif
