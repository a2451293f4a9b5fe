#ifndef F2B_AUTOGRAD_OPS_RANDOM_FILL_H
#define F2B_AUTOGRAD_OPS_RANDOM_FILL_H

#include "autograd/core/rng.h"
#include "autograd/core/tensor.h"

/** How initial values are drawn. */
typedef enum f2b_init_kind { F2B_INIT_NORMAL, F2B_INIT_UNIFORM, F2B_INIT_CONSTANT } f2b_init_kind;
typedef struct f2b_init {
    f2b_init_kind kind;
    double value;               /* standard deviation; bound of U(-value, value); the constant */
} f2b_init;

/**
 * Fill x in place. Element i is a pure function of (init, stream, i), made in f64, rounded to f32 and
 * then to the type of x: every storage type rounds the same numbers. Devices have logarithm and cosine
 * of their own: elements drawn normally may differ in the last bit of f32 between kinds of devices.
 *
 * x        a leaf: f32, f64, bf16, f16; f64 on the host alone.
 * stream   element i of a normal draw takes words 2i and 2i + 1 of it, of a uniform one word i.
 * errors   F2B_ERR_DTYPE; F2B_ERR_UNSUPPORTED on a device without a kernel.
 */
f2b_status f2b_random_fill(f2b_tensor *x, f2b_init init, const f2b_rng *stream) F2B_MUST_USE;

#endif
