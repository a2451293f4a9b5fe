/* fp8_weight: checks, the host's way, and what a device found. Not a node: it fills a leaf. */
#include "autograd/ops/fp8_weight/fp8_weight.h"

#include <math.h>

#include "autograd/device/device.h"
#include "autograd/ops/fp8_weight/fp8_weight_internal.h"

/* The first row whose scale is none, as f2b_quantise names it. */
static f2b_status check_scales(const f2b_tensor *x, const f2b_quant *q)
{
    const size_t bytes = (size_t)q->rows * sizeof(float);
    float *scales = f2b_alloc_host(bytes, F2B_TAG_SCRATCH);
    if (scales == NULL) return F2B_ERR_MEMORY;
    f2b_status status = f2b_copy(scales, F2B_HOST, (const char *)x->data + q->scales, x->device, bytes);
    for (int64_t row = 0; row < q->rows && status == F2B_OK; row++)
        if (isnan(scales[row]))
            status = f2b_fail(F2B_ERR_NUMBERS, "row %lld has an infinite element or one that is no "
                              "number", (long long)row);
    f2b_free(scales);
    return status;
}

f2b_status f2b_fp8_weight(f2b_tensor *dst, const f2b_tensor *src)
{
    if (!f2b_same_shape(dst, src))
        return f2b_fail(F2B_ERR_SHAPE, "fp8_weight: %s from %s", f2b_tensor_describe(dst),
                        f2b_tensor_describe(src));
    if (dst->dtype != F2B_FP8 || !f2b_dtype_is_float(src->dtype) || src->dtype == F2B_F64)
        return f2b_fail(F2B_ERR_DTYPE, "fp8_weight: %s from %s", f2b_tensor_describe(dst),
                        f2b_tensor_describe(src));
    F2B_CHECK(dst->device.kind == src->device.kind && dst->device.index == src->device.index);
    const int64_t rows = dst->shape[0], cols = dst->shape[1];
    if (dst->device.kind == F2B_CPU)
        return f2b_quantise(F2B_FP8, rows, cols, src->data, src->dtype, dst->data);
    if (f2bi_fp8_weight_cuda == NULL)
        return f2b_fail(F2B_ERR_UNSUPPORTED, "fp8_weight has no kernel on %s",
                        f2b_device_name(dst->device));
    if (!f2b_fp8_takes(rows, cols))
        return f2b_fail(F2B_ERR_SHAPE, "fp8_weight: %s: sides must be multiples of 16, of %d at most",
                        f2b_tensor_describe(dst), F2B_FP8_LONGEST);
    const f2b_quant q = f2b_quant_head(F2B_FP8, rows, cols);
    F2B_TRY(f2bi_fp8_weight_cuda(dst->device.index, &q, src->data, src->dtype, dst->data));
    F2B_TRY(f2b_copy(dst->data, dst->device, &q, F2B_HOST, sizeof q));
    return check_scales(dst, &q);
}
