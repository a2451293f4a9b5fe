/*
 * safetensors files: read by mapping, nothing copied, every rule of the format enforced; written
 * atomically, byte for byte as the reference implementation does
 * (huggingface/safetensors, safetensors/src/tensor.rs).
 */
#ifndef F2B_CHECKPOINTS_SAFETENSORS_H
#define F2B_CHECKPOINTS_SAFETENSORS_H

#include <stddef.h>

#include "autograd/core/status.h"
#include "checkpoints/named_array.h"

/** One tensor of a file. Types that we never compute with (I64, BOOL, ...) are listed all the
 * same. */
typedef struct f2b_safetensor {
    const char *name;
    const char *type;                           /* as written: "F32", "BF16", "I64", ... */
    int ndim;
    int64_t shape[F2B_NAMED_ARRAY_DIMS];
    int64_t bytes;
    const void *data;                           /* aligned to the size of an element */
} f2b_safetensor;

typedef struct f2b_safetensors f2b_safetensors;

/**
 * Map a file and check its whole header: length, JSON without duplicate keys, known types, shapes
 * that fit their byte ranges, ranges without hole or overlap, and the file's exact length.
 * return: a handle to close, or NULL: F2B_ERR_NOT_FOUND, F2B_ERR_IO, F2B_ERR_MEMORY, or
 * F2B_ERR_FORMAT, which names file, tensor and rule.
 */
f2b_safetensors *f2b_safetensors_open(const char *path);
void f2b_safetensors_close(f2b_safetensors *file);

const char *f2b_safetensors_path(const f2b_safetensors *file);

/** The tensors, in the order of their bytes in the file; borrowed. */
int64_t f2b_safetensors_count(const f2b_safetensors *file);

/** Let go of the memory that holds [data, data + bytes) of the map, whose contents have been copied;
 *  they are read from the file again if anybody looks. Nothing happens to memory outside the map. */
void f2b_safetensors_release(const f2b_safetensors *file, const void *data, int64_t bytes);
const f2b_safetensor *f2b_safetensors_at(const f2b_safetensors *file, int64_t i);

/** A tensor by its name, or NULL (no error is set). */
const f2b_safetensor *f2b_safetensors_find(const f2b_safetensors *file, const char *name);

/** A value of __metadata__, or NULL. */
const char *f2b_safetensors_metadata(const f2b_safetensors *file, const char *key);

/** The tensor as an array (borrowed); F2B_ERR_DTYPE, naming file and tensor, for a type that no
 *  array of ours has. */
F2B_MUST_USE f2b_status f2b_safetensors_array(const f2b_safetensors *file,
                                              const f2b_safetensor *tensor, f2b_named_array *out);

typedef struct f2b_text_pair {
    const char *key, *value;
} f2b_text_pair;

/**
 * Write a file: tensors by descending size of an element, then by name, behind a header padded with
 * spaces to a multiple of 8. Duplicate names are refused (F2B_ERR_INVALID). What was at `path`
 * stays on any failure. metadata may be NULL with n_metadata 0.
 */
F2B_MUST_USE f2b_status f2b_safetensors_write(const char *path, const f2b_named_array *tensors,
                                              int64_t n, const f2b_text_pair *metadata,
                                              int64_t n_metadata);

#endif
