/* The norm of all gradients: partial sums by device, added in order here. */
#include "autograd/ops/grad_norm/grad_norm.h"

#include <math.h>

#include "autograd/ops/grad_norm/grad_norm_internal.h"

typedef void partial_sums(const void *x, int64_t n, double *sums);
static partial_sums *const kernels[F2B_DEVICE_KINDS][F2B_F64 + 1] = {
    [F2B_CPU] = { f2bi_grad_norm_cpu_f32, f2bi_grad_norm_cpu_f64 },
};

static int64_t chunks_of(const f2b_tensor *x)
{
    return (f2b_numel(x) + F2BI_GRAD_NORM_CHUNK - 1) / F2BI_GRAD_NORM_CHUNK;
}

f2b_status f2b_grad_norm(f2b_tensor *const *tensors, int64_t n, double *norm)
{
    int64_t most = 0;
    for (int64_t i = 0; i < n; i++) {
        const f2b_tensor *x = tensors[i];
        if (x->dtype != F2B_F32 && x->dtype != F2B_F64)
            return f2b_fail(F2B_ERR_DTYPE, "grad_norm: %s is %s, but must be f32 or f64",
                            x->name != NULL ? x->name : "a tensor", f2b_tensor_describe(x));
        if (kernels[x->device.kind][x->dtype] == NULL)
            return f2b_fail(F2B_ERR_UNSUPPORTED, "grad_norm has no kernel on this device");
        if (chunks_of(x) > most) most = chunks_of(x);
    }
    double *sums = f2b_alloc_host((size_t)most * sizeof *sums, F2B_TAG_SCRATCH);
    if (sums == NULL) return F2B_ERR_MEMORY;
    double total = 0;
    for (int64_t i = 0; i < n; i++) {
        const f2b_tensor *x = tensors[i];
        if (x->grad == NULL) continue;
        kernels[x->device.kind][x->dtype](x->grad, f2b_numel(x), sums);
        for (int64_t c = 0; c < chunks_of(x); c++) total += sums[c];
    }
    f2b_free(sums);
    *norm = sqrt(total);
    return F2B_OK;
}

double f2b_clip_factor(double norm, double max_norm)
{
    const double factor = max_norm / (norm + 1e-6);
    return max_norm == 0 || factor > 1 ? 1 : factor;
}
