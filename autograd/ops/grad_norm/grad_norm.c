/* The norm of all gradients: partial sums of chunks, then their sum in order. */
#include "autograd/ops/grad_norm/grad_norm.h"

#include <math.h>

#include "autograd/core/profile.h"
#include "autograd/device/device.h"
#include "autograd/ops/grad_norm/grad_norm_internal.h"

static f2bi_grad_norm_kernel *const kernels[F2B_DEVICE_KINDS][F2B_F64 + 1] = {
    [F2B_CPU] = { f2bi_grad_norm_cpu_f32, f2bi_grad_norm_cpu_f64 },
    [F2B_CUDA] = { [F2B_F32] = f2bi_grad_norm_cuda_f32 },
};

static int64_t chunks_of(const f2b_tensor *x)
{
    return (f2b_numel(x) + F2BI_GRAD_NORM_CHUNK - 1) / F2BI_GRAD_NORM_CHUNK;
}

static f2b_status check(const f2b_tensor *x, f2b_device device)
{
    const char *name = x->name != NULL ? x->name : "a tensor";
    if (x->dtype != F2B_F32 && x->dtype != F2B_F64)
        return f2b_fail(F2B_ERR_DTYPE, "grad_norm: %s is %s, but must be f32 or f64", name,
                        f2b_tensor_describe(x));
    if (kernels[x->device.kind][x->dtype] == NULL)
        return f2b_fail(F2B_ERR_UNSUPPORTED, "grad_norm has no kernel for %s on %s",
                        f2b_dtype_name(x->dtype), f2b_device_name(x->device));
    if (x->device.kind != device.kind || x->device.index != device.index)
        return f2b_fail(F2B_ERR_INVALID, "grad_norm: %s is on %s, others are on %s", name,
                        f2b_device_name(x->device), f2b_device_name(device));
    return F2B_OK;
}

/* The chunks of all tensors, one after another. */
static f2b_status gather(f2b_tensor *const *tensors, int64_t n, double *sums)
{
    for (int64_t i = 0; i < n; i++) {
        const f2b_tensor *x = tensors[i];
        if (x->grad == NULL) continue;
        F2B_TRY(kernels[x->device.kind][x->dtype](x->device.index, x->grad, f2b_numel(x), sums));
        sums += chunks_of(x);
    }
    return F2B_OK;
}

static f2b_status finish(f2b_device device, const double *sums, int64_t chunks,
                         const double *watched, int64_t n_watched, double *norm)
{
    if (device.kind != F2B_CPU)
        return f2bi_grad_norm_finish_cuda(device.index, sums, chunks, watched, n_watched, norm);
    double total = 0;
    for (int64_t c = 0; c < chunks; c++) total += sums[c];
    *norm = sqrt(total);
    for (int64_t i = 0; i < n_watched; i++)
        if (!isfinite(watched[i])) *norm = NAN;
    return F2B_OK;
}

f2b_status f2b_grad_norm(f2b_device device, f2b_tensor *const *tensors, int64_t n,
                         const double *watched, int64_t n_watched, double *norm)
{
    int64_t chunks = 0;
    double bytes = 0;
    if (kernels[device.kind][F2B_F32] == NULL)
        return f2b_fail(F2B_ERR_UNSUPPORTED, "grad_norm has no kernel on %s", f2b_device_name(device));
    for (int64_t i = 0; i < n; i++) {
        F2B_TRY(check(tensors[i], device));
        if (tensors[i]->grad == NULL) continue;
        chunks += chunks_of(tensors[i]);
        bytes += (double)f2b_tensor_bytes(tensors[i]);
    }
    double *sums = f2b_alloc(device, (size_t)chunks * sizeof *sums, F2B_TAG_SCRATCH);
    if (sums == NULL) return F2B_ERR_MEMORY;
    const f2b_profile_mark start = f2b_profile_start(device);
    f2b_status status = gather(tensors, n, sums);
    if (status == F2B_OK) status = finish(device, sums, chunks, watched, n_watched, norm);
    f2b_profile_stop(start, "grad_norm", false, 0, bytes);
    f2b_free(sums);
    return status;
}
