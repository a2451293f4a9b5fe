/* random_fill: checks and the host's loop. Not a node: it fills a leaf and has no backward. */
#include "autograd/ops/random_fill/random_fill.h"

#include "autograd/device/device.h"
#include "autograd/ops/random_fill/random_fill_internal.h"

static f2b_status on_host(f2b_tensor *x, f2b_init init, const f2b_rng *stream)
{
    const int64_t n = f2b_numel(x);
    const size_t size = f2b_dtype_size(x->dtype);
#pragma omp parallel for schedule(static) if (n > 8192)
    for (int64_t i = 0; i < n; i++) {
        const float v = f2bi_random_element(init, stream, (uint64_t)i);
        f2b_convert((char *)x->data + (size_t)i * size, x->dtype, &v, F2B_F32, 1);
    }
    return F2B_OK;
}

f2b_status f2b_random_fill(f2b_tensor *x, f2b_init init, const f2b_rng *stream)
{
    if (!f2b_dtype_is_float(x->dtype) || (x->dtype == F2B_F64 && x->device.kind != F2B_CPU))
        return f2b_fail(F2B_ERR_DTYPE, "random_fill: %s on %s", f2b_tensor_describe(x),
                        f2b_device_name(x->device));
    if (x->device.kind == F2B_CPU) return on_host(x, init, stream);
    if (f2bi_random_fill_cuda != NULL)
        return f2bi_random_fill_cuda(x->device.index, x->data, x->dtype, f2b_numel(x), init, stream);
    return f2b_fail(F2B_ERR_UNSUPPORTED, "random_fill has no kernel on %s", f2b_device_name(x->device));
}
