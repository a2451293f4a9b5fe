/* The types of the safetensors format, shared by reader and writer. */
#ifndef F2B_CHECKPOINTS_SAFETENSORS_INTERNAL_H
#define F2B_CHECKPOINTS_SAFETENSORS_INTERNAL_H

#include "autograd/core/dtype.h"

/* In the order of the reference's Dtype: files are written by descending rank, then by name. */
#define F2BI_SAFETENSORS_TYPES(X)                                                                 \
    X("BOOL", 1, -1)                                                                              \
    X("U8",   1, F2B_U8)                                                                          \
    X("I8",   1, -1)                                                                              \
    X("I16",  2, -1)                                                                              \
    X("U16",  2, -1)                                                                              \
    X("F16",  2, F2B_F16)                                                                         \
    X("BF16", 2, F2B_BF16)                                                                        \
    X("I32",  4, F2B_I32)                                                                         \
    X("U32",  4, -1)                                                                              \
    X("F32",  4, F2B_F32)                                                                         \
    X("F64",  8, F2B_F64)                                                                         \
    X("I64",  8, -1)                                                                              \
    X("U64",  8, -1)

typedef struct f2bi_safetensors_type {
    const char *name;
    int bytes;
    int dtype;                  /* f2b_dtype, or -1: listed, never computed with */
} f2bi_safetensors_type;

static const f2bi_safetensors_type f2bi_safetensors_types[] = {
#define F2B_X(name, bytes, dtype) { name, bytes, dtype },
    F2BI_SAFETENSORS_TYPES(F2B_X)
#undef F2B_X
};
enum {
    F2BI_SAFETENSORS_TYPE_COUNT = sizeof f2bi_safetensors_types / sizeof f2bi_safetensors_types[0],
    F2BI_SAFETENSORS_MAX_HEADER = 100000000
};

#endif
