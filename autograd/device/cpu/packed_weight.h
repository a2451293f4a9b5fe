/*
 * A frozen matrix W [out, in] as the CPU's products read it, laid out once for both directions (y = x W^T and
 * dx = dy W) instead of in every product. It takes the memory of W twice more, in the type of arithmetic, and
 * changes no bit of a product.
 */
#ifndef F2B_AUTOGRAD_DEVICE_CPU_PACKED_WEIGHT_H
#define F2B_AUTOGRAD_DEVICE_CPU_PACKED_WEIGHT_H

#include "autograd/core/tensor.h"

typedef struct f2b_packed_weight {
    f2b_dtype compute;          /* whose layout it is */
    void *forward, *backward;   /* B of x W^T [in, out], of dy W [out, in]; NULL where it is planned alone */
} f2b_packed_weight;

/** Bytes that packing takes; 0: w is left as it is, being trained, on a device, no matrix, or int8 or nf4 (which
 *  are there to be small). */
int64_t f2b_packed_weight_bytes(const f2b_tensor *w, f2b_dtype compute);

/** Pack a matrix for products in `compute`, on all threads; its values must not change any more. Nothing happens
 *  where it takes no bytes or is done. errors: F2B_ERR_MEMORY. */
f2b_status f2b_packed_weight_make(f2b_tensor *w, f2b_dtype compute) F2B_MUST_USE;

/** As if it were packed: for rehearsals, which ask what work space products take (ops/space.h). */
f2b_status f2b_packed_weight_plan(f2b_tensor *w, f2b_dtype compute) F2B_MUST_USE;

/** Products pack w on the way again. */
void f2b_packed_weight_free(f2b_tensor *w);

/** What a product in `compute` takes as a term's `packed`; NULL where w is not packed for it. */
static inline const void *f2b_packed_forward(const f2b_tensor *w, f2b_dtype compute)
{
    return w->packed != NULL && w->packed->compute == compute ? w->packed->forward : NULL;
}

static inline const void *f2b_packed_backward(const f2b_tensor *w, f2b_dtype compute)
{
    return w->packed != NULL && w->packed->compute == compute ? w->packed->backward : NULL;
}

#endif
