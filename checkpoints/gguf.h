/*
 * GGUF files, version 3: read by mapping, nothing copied but names, every rule of the format
 * enforced as llama.cpp's loader does (ggml-org/ggml docs/gguf.md, src/gguf.cpp); and written.
 */
#ifndef F2B_CHECKPOINTS_GGUF_H
#define F2B_CHECKPOINTS_GGUF_H

#include <stddef.h>

#include "autograd/core/status.h"
#include "checkpoints/named_array.h"

/* type, number in the file, bytes of an element (0: of no fixed size), name in reports */
#define F2B_GGUF_VALUE_LIST(X)                                                                     \
    X(F2B_GGUF_U8, 0, 1, "u8")                                                                     \
    X(F2B_GGUF_I8, 1, 1, "i8")                                                                     \
    X(F2B_GGUF_U16, 2, 2, "u16")                                                                   \
    X(F2B_GGUF_I16, 3, 2, "i16")                                                                   \
    X(F2B_GGUF_U32, 4, 4, "u32")                                                                   \
    X(F2B_GGUF_I32, 5, 4, "i32")                                                                   \
    X(F2B_GGUF_F32, 6, 4, "f32")                                                                   \
    X(F2B_GGUF_BOOL, 7, 1, "bool")                                                                 \
    X(F2B_GGUF_STRING, 8, 0, "string")                                                             \
    X(F2B_GGUF_ARRAY, 9, 0, "array")                                                               \
    X(F2B_GGUF_U64, 10, 8, "u64")                                                                  \
    X(F2B_GGUF_I64, 11, 8, "i64")                                                                  \
    X(F2B_GGUF_F64, 12, 8, "f64")

typedef enum f2b_gguf_type {
#define F2B_X(type, number, bytes, name) type = number,
    F2B_GGUF_VALUE_LIST(F2B_X)
#undef F2B_X
    F2B_GGUF_TYPES
} f2b_gguf_type;

const char *f2b_gguf_type_name(f2b_gguf_type type);

/** A value of the metadata, or an element of an array. */
typedef struct f2b_gguf_value {
    f2b_gguf_type type;
    union {
        uint64_t u;                             /* u8 to u64, bool (0 or 1) */
        int64_t i;                              /* i8 to i64 */
        double f;                               /* f32, f64 */
        struct { const char *bytes; int64_t n; } text;      /* any bytes, no closing zero */
        struct { f2b_gguf_type type; int64_t n; const void *first; } array;
    } as;
} f2b_gguf_value;

/** A tensor. Quantised types are listed, never computed with: their dtype is -1. */
typedef struct f2b_gguf_tensor {
    const char *name;
    const char *type;                           /* ggml's name: "F32", "Q4_K" */
    int dtype;                                  /* f2b_dtype, or -1 */
    int ndim;
    int64_t shape[4];                           /* outermost first: ggml's `ne` in reverse */
    int64_t bytes;
    const void *data;                           /* aligned to 8 bytes */
} f2b_gguf_tensor;

typedef struct f2b_gguf f2b_gguf;

/**
 * Map a file and check all of it: magic and version, lengths against the file's, keys and names
 * that are there once, types that are known, tensors in order without a hole but for alignment.
 * return: a handle to close, or NULL: F2B_ERR_NOT_FOUND, F2B_ERR_IO, F2B_ERR_MEMORY, or
 * F2B_ERR_FORMAT, which names file, key or tensor, and rule.
 */
f2b_gguf *f2b_gguf_open(const char *path);
void f2b_gguf_close(f2b_gguf *file);

/** Metadata in the order of the file; borrowed. */
int64_t f2b_gguf_keys(const f2b_gguf *file);
const char *f2b_gguf_key(const f2b_gguf *file, int64_t i);
const f2b_gguf_value *f2b_gguf_value_at(const f2b_gguf *file, int64_t i);

/** A value by its key, or NULL (no error is set). */
const f2b_gguf_value *f2b_gguf_find(const f2b_gguf *file, const char *key);

/** Element of an array at *cursor, which starts as array.first and moves on; call it array.n times
 *  at most. */
f2b_gguf_value f2b_gguf_next(const f2b_gguf_value *array, const void **cursor);

/** The tensors in the order of the file; borrowed. */
int64_t f2b_gguf_tensors(const f2b_gguf *file);
const f2b_gguf_tensor *f2b_gguf_tensor_at(const f2b_gguf *file, int64_t i);

/** A tensor by its name, or NULL (no error is set). */
const f2b_gguf_tensor *f2b_gguf_tensor_find(const f2b_gguf *file, const char *name);

/** A key to write with its value: a scalar or a text. */
typedef struct f2b_gguf_pair {
    const char *key;
    f2b_gguf_value value;
} f2b_gguf_pair;

/** Values to write; the text is borrowed. */
f2b_gguf_value f2b_gguf_text(const char *text);
f2b_gguf_value f2b_gguf_u32(uint32_t x);
f2b_gguf_value f2b_gguf_f32(float x);

/**
 * Write a file with these keys and tensors, in this order, at the default alignment of 32.
 * tensors  f32, f16, bf16, f64 or i32, of at most 4 dimensions, names of at most 63 bytes.
 * errors   F2B_ERR_INVALID (a tensor or key that GGUF cannot hold, or one that is there twice: it
 *          is named), F2B_ERR_IO, F2B_ERR_MEMORY; then `path` is as it was.
 */
F2B_MUST_USE f2b_status f2b_gguf_write(const char *path, const f2b_gguf_pair *pairs,
                                       int64_t n_pairs, const f2b_named_array *tensors, int64_t n);

#endif
