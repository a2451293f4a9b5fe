/*
 * HDF5 as this program uses it: no work at exit, no printing, errors as our messages, and every
 * property of a file chosen in one place. The library is not thread-safe; callers take turns.
 */
#ifndef F2B_CHECKPOINTS_HDF5_INTERNAL_H
#define F2B_CHECKPOINTS_HDF5_INTERNAL_H

#include <hdf5.h>
#include <stdint.h>

#include "autograd/core/status.h"
#include "checkpoints/named_array.h"

/** Before any other HDF5 call. Costs nothing when done already. */
void f2bi_hdf5_start(void);

/** f2b_fail with the reason from HDF5's error stack at the end, and the stack cleared. */
f2b_status f2bi_hdf5_fail(f2b_status code, const char *format, ...) F2B_PRINTF(2, 3);

/** Create (truncating) or open for reading. Negative with the error set. */
hid_t f2bi_hdf5_create(const char *path);
hid_t f2bi_hdf5_open(const char *path);

/** Write an f32 dataset `name` in `group`, contiguous. */
F2B_MUST_USE f2b_status f2bi_hdf5_write_f32(hid_t group, const char *name, int ndim,
                                            const int64_t *shape, const float *data);

/** Attributes of an open object. */
F2B_MUST_USE f2b_status f2bi_hdf5_write_integer(hid_t object, const char *name, int64_t value);
F2B_MUST_USE f2b_status f2bi_hdf5_write_number(hid_t object, const char *name, double value);
F2B_MUST_USE f2b_status f2bi_hdf5_write_text(hid_t object, const char *name, const char *value);

/** A 64-bit integer attribute. */
F2B_MUST_USE f2b_status f2bi_hdf5_read_integer(hid_t object, const char *name, int64_t *value);

/** Open the group `name` in `parent`, reached by a hard link. Negative with F2B_ERR_FORMAT. */
hid_t f2bi_hdf5_open_group(hid_t parent, const char *name);

/**
 * Open the dataset `name` in `group` after checking that it is what we write: reached by a hard
 * link, little-endian f32, at most 8 dimensions, contiguous, stored in this file and in full.
 * Type and shape go to *array, whose name stays. Negative with F2B_ERR_FORMAT and `name` in the
 * text otherwise.
 */
hid_t f2bi_hdf5_open_f32(hid_t group, const char *name, f2b_named_array *array);

#endif
