/* Arithmetic on shapes that come from files. See named_array.h for the contract. */
#include "checkpoints/named_array.h"

#include <inttypes.h>
#include <stdio.h>

bool f2b_shape_bytes(int ndim, const int64_t *shape, int64_t element_bytes, int64_t *bytes)
{
    int64_t product = element_bytes;
    bool empty = false; /* a zero dimension makes any other harmless, but not a negative one */
    for (int i = 0; i < ndim; ++i) {
        if (shape[i] < 0) return false;
        if (shape[i] == 0) empty = true;
    }
    for (int i = 0; i < ndim && !empty; ++i)
        if (__builtin_mul_overflow(product, shape[i], &product)) return false;
    *bytes = empty ? 0 : product;
    return true;
}

bool f2b_shape_equal(int ndim_a, const int64_t *a, int ndim_b, const int64_t *b)
{
    if (ndim_a != ndim_b) return false;
    for (int i = 0; i < ndim_a; ++i)
        if (a[i] != b[i]) return false;
    return true;
}

const char *f2b_shape_text(int ndim, const int64_t *shape, char text[F2B_SHAPE_TEXT])
{
    size_t used = (size_t)snprintf(text, F2B_SHAPE_TEXT, "[");
    for (int i = 0; i < ndim && used < F2B_SHAPE_TEXT; ++i)
        used += (size_t)snprintf(text + used, F2B_SHAPE_TEXT - used, "%s%" PRId64, i ? ", " : "",
                                 shape[i]);
    if (used < F2B_SHAPE_TEXT) snprintf(text + used, F2B_SHAPE_TEXT - used, "]");
    return text;
}
