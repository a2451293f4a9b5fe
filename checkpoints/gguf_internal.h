/* What the reader and the writer of GGUF share: limits of the format, numbers of types. */
#ifndef F2B_CHECKPOINTS_GGUF_INTERNAL_H
#define F2B_CHECKPOINTS_GGUF_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "autograd/core/dtype.h"

enum {
    F2BI_GGUF_VERSION = 3,
    F2BI_GGUF_ALIGNMENT = 32,   /* where the file names no other */
    F2BI_GGUF_MAX_NAME = 63,    /* bytes of a tensor's name */
    F2BI_GGUF_MAX_DIMS = 4,
};

/** ggml's number of a type; false where it has none. */
bool f2bi_gguf_type_number(f2b_dtype dtype, uint32_t *number);

#endif
