/* rows_store: checks and the CPU copy. Not a node: it writes into a leaf and has no backward. */
#include "autograd/ops/rows_store/rows_store.h"

#include <string.h>

#include "autograd/device/device.h"
#include "autograd/ops/rows_store/rows_store_internal.h"

f2b_status f2b_rows_store(f2b_tape *tape, f2b_tensor *dst, f2b_tensor *index, f2b_tensor *x)
{
    if (dst == NULL || index == NULL || x == NULL) return f2b_last_status();
    if (dst->ndim != 2 || x->ndim != 2 || dst->shape[1] != x->shape[1] ||
        index->dtype != F2B_I32 || f2b_numel(index) != x->shape[0])
        return f2b_fail(F2B_ERR_SHAPE, "rows_store: %s, index %s and rows %s do not fit",
                        f2b_tensor_describe(dst), f2b_tensor_describe(index), f2b_tensor_describe(x));
    if (dst->dtype != x->dtype)
        return f2b_fail(F2B_ERR_DTYPE, "rows_store: %s and %s differ in type",
                        f2b_tensor_describe(dst), f2b_tensor_describe(x));
    if (f2b_tape_recording(tape) && x->requires_grad)
        return f2b_fail(F2B_ERR_UNSUPPORTED, "rows_store: has no gradient");
    if (dst->device.kind == F2B_CUDA && f2bi_rows_store_cuda != NULL)
        return f2bi_rows_store_cuda(dst, index, x);
    if (dst->device.kind != F2B_CPU)
        return f2b_fail(F2B_ERR_UNSUPPORTED, "rows_store has no kernel on %s",
                        f2b_device_name(dst->device));
    const size_t row = (size_t)dst->shape[1] * f2b_dtype_size(dst->dtype);
    const int32_t *at = index->data;
    for (int64_t i = 0; i < x->shape[0]; i++) {
        if (at[i] < 0 || at[i] >= dst->shape[0])
            return f2b_fail(F2B_ERR_DATA, "rows_store: entry %lld is row %d of %lld", (long long)i,
                            at[i], (long long)dst->shape[0]);
        memcpy((char *)dst->data + (size_t)at[i] * row, (const char *)x->data + (size_t)i * row, row);
    }
    return F2B_OK;
}
