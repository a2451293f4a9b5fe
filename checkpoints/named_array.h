/*
 * A tensor as files know it: a name, a type, a shape and where its elements lie. It borrows all it
 * points to. Names are the ones on disk of Hugging Face models, with a suffix for what is added
 * (DESIGN section 2): "language_model.model.layers.3.self_attn.q_proj.compression.lora_A".
 */
#ifndef F2B_CHECKPOINTS_NAMED_ARRAY_H
#define F2B_CHECKPOINTS_NAMED_ARRAY_H

#include <stdbool.h>
#include <stdint.h>

#include "autograd/core/dtype.h"

enum { F2B_NAMED_ARRAY_DIMS = 8 };

typedef struct f2b_named_array {
    const char *name;
    f2b_dtype dtype;
    int ndim;                                   /* 0 is a scalar */
    int64_t shape[F2B_NAMED_ARRAY_DIMS];        /* outermost first; row-major, contiguous */
    const void *data;                           /* aligned to the size of an element */
} f2b_named_array;

/** Number of elements (1 for a scalar, 0 where a dimension is 0). The shape was checked before. */
static inline int64_t f2b_named_array_count(const f2b_named_array *array)
{
    int64_t n = 1;
    for (int i = 0; i < array->ndim; ++i) n *= array->shape[i];
    return n;
}

static inline int64_t f2b_named_array_bytes(const f2b_named_array *array)
{
    return f2b_named_array_count(array) * (int64_t)f2b_dtype_size(array->dtype);
}

/**
 * bytes = product of shape * element_bytes. False where a dimension is negative or the product does
 * not fit an int64_t: what every reader asks before it believes a shape.
 */
bool f2b_shape_bytes(int ndim, const int64_t *shape, int64_t element_bytes, int64_t *bytes);

/** Same rank and dimensions. */
bool f2b_shape_equal(int ndim_a, const int64_t *a, int ndim_b, const int64_t *b);

/** "[4096, 128]" into text, cut at its end; returns text. For messages. */
enum { F2B_SHAPE_TEXT = 192 };
const char *f2b_shape_text(int ndim, const int64_t *shape, char text[F2B_SHAPE_TEXT]);

#endif
