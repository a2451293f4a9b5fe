/*
 * HDF5 as this program uses it: no work at exit, no printing, errors as our messages, and every
 * property of a file chosen in one place. The library is not thread-safe, so threads take turns: who
 * calls it has begun a turn.
 */
#ifndef F2B_CHECKPOINTS_HDF5_INTERNAL_H
#define F2B_CHECKPOINTS_HDF5_INTERNAL_H

#include <hdf5.h>
#include <stdbool.h>
#include <stdint.h>

#include "autograd/core/status.h"
#include "checkpoints/named_array.h"

/** Around all HDF5 calls that belong together: from here on no other thread calls HDF5. Turns nest. */
void f2bi_hdf5_begin(void);
void f2bi_hdf5_end(void);

/** f2b_fail with the reason from HDF5's error stack at the end, and the stack cleared. */
f2b_status f2bi_hdf5_fail(f2b_status code, const char *format, ...) F2B_PRINTF(2, 3);

/** Create (truncating) or open for reading. Negative with the error set. */
hid_t f2bi_hdf5_create(const char *path);
hid_t f2bi_hdf5_open(const char *path);

/** Write a dataset `name` in `group`: contiguous, no fill values, no times. `type` is that of file
 *  and memory; *offset gets where its bytes lie in the file, 0 where it has none (NULL: unasked). */
F2B_MUST_USE f2b_status f2bi_hdf5_write_dataset(hid_t group, const char *name, hid_t type, int ndim,
                                                const int64_t *shape, const void *data,
                                                int64_t *offset);

/** The same of f32, but its values come later, from who knows where: at *offset. */
F2B_MUST_USE f2b_status f2bi_hdf5_make_f32(hid_t group, const char *name, int ndim, const int64_t *shape,
                                           int64_t *offset);

/** Attributes of an open object. */
F2B_MUST_USE f2b_status f2bi_hdf5_write_integer(hid_t object, const char *name, int64_t value);
F2B_MUST_USE f2b_status f2bi_hdf5_write_number(hid_t object, const char *name, double value);
F2B_MUST_USE f2b_status f2bi_hdf5_write_text(hid_t object, const char *name, const char *value);

/** The value of an open attribute whose type is a text of fixed length, at most max_bytes long, as a
 *  copy (f2b_free); and of an attribute by name, whose type is checked. */
F2B_MUST_USE f2b_status f2bi_hdf5_read_open_text(hid_t attribute, hid_t type, size_t max_bytes,
                                                 char **text);
F2B_MUST_USE f2b_status f2bi_hdf5_read_text(hid_t object, const char *name, size_t max_bytes,
                                            char **text);

/** A 64-bit integer attribute. */
F2B_MUST_USE f2b_status f2bi_hdf5_read_integer(hid_t object, const char *name, int64_t *value);

/** Make a group without times. Negative on failure, with HDF5's error stack. */
hid_t f2bi_hdf5_make_group(hid_t parent, const char *name);

/** Whether `name` in `group` is there by a hard link; others could lead into other files. */
bool f2bi_hdf5_has(hid_t group, const char *name);

/** Open the group `name` in `parent`, reached by a hard link. Negative with F2B_ERR_FORMAT. */
hid_t f2bi_hdf5_open_group(hid_t parent, const char *name);

/**
 * Open the dataset `name` in `group` after checking that it is what we write: reached by a hard
 * link, little-endian f32, at most 8 dimensions, contiguous, stored in this file and in full.
 * Type and shape go to *array, whose name stays. Negative with F2B_ERR_FORMAT and `name` in the
 * text otherwise.
 */
hid_t f2bi_hdf5_open_f32(hid_t group, const char *name, f2b_named_array *array);

/** The same of another type, which messages call type_name; array->dtype is not set. */
hid_t f2bi_hdf5_open_dataset(hid_t group, const char *name, hid_t type, const char *type_name,
                             f2b_named_array *array);

#endif
