/* Checks of AdamW, and the terms that do not depend on the element. */
#include "autograd/ops/adamw/adamw.h"

#include <math.h>

#include "autograd/core/profile.h"
#include "autograd/device/device.h"
#include "autograd/ops/adamw/adamw_internal.h"

static f2bi_adamw_kernel *const updates[F2B_DEVICE_KINDS] = {
    [F2B_CPU] = f2bi_adamw_cpu, [F2B_CUDA] = f2bi_adamw_cuda
};

static f2b_status check(const f2b_tensor *p, const f2b_tensor *m, const f2b_tensor *v,
                        const f2b_adamw *s)
{
    const char *name = p->name != NULL ? p->name : "a tensor";
    if (p->dtype != F2B_F32 || m->dtype != F2B_F32 || v->dtype != F2B_F32)
        return f2b_fail(F2B_ERR_DTYPE, "adamw: %s and its moments must be f32, got %s, %s, %s",
                        name, f2b_tensor_describe(p), f2b_tensor_describe(m),
                        f2b_tensor_describe(v));
    if (!f2b_same_shape(p, m) || !f2b_same_shape(p, v))
        return f2b_fail(F2B_ERR_SHAPE, "adamw: %s is %s, its moments are %s and %s", name,
                        f2b_tensor_describe(p), f2b_tensor_describe(m), f2b_tensor_describe(v));
    if (p->grad == NULL) return f2b_fail(F2B_ERR_INVALID, "adamw: %s has no gradient", name);
    if (s->count < 1)
        return f2b_fail(F2B_ERR_INVALID, "adamw: update number %lld of %s; they count from 1",
                        (long long)s->count, name);
    if (updates[p->device.kind] == NULL)
        return f2b_fail(F2B_ERR_UNSUPPORTED, "adamw has no kernel on %s",
                        f2b_device_name(p->device));
    return F2B_OK;
}

f2b_status f2b_adamw_update(f2b_tensor *parameter, f2b_tensor *m, f2b_tensor *v,
                            const f2b_adamw *settings)
{
    const f2b_adamw *s = settings;
    F2B_TRY(check(parameter, m, v, s));
    const double t = (double)s->count;
    const f2bi_adamw_terms terms = {
        .beta1 = (float)s->beta1, .beta2 = (float)s->beta2,
        .one_minus_beta1 = (float)(1 - s->beta1), .one_minus_beta2 = (float)(1 - s->beta2),
        .keep = (float)(1 - s->learning_rate * s->weight_decay),
        .step = (float)(s->learning_rate / (1 - pow(s->beta1, t))),
        .root_correction = (float)sqrt(1 - pow(s->beta2, t)),
        .eps = (float)s->eps, .least = s->bounded ? (float)s->least : -INFINITY,
        .norm = s->norm, .max_norm = s->max_norm,
    };
    const f2b_profile_mark start = f2b_profile_start(parameter->device);
    const f2b_status status =
        updates[parameter->device.kind](parameter->device.index, parameter->data, parameter->grad,
                                        m->data, v->data, f2b_numel(parameter), terms);
    /* Reads all four, writes all but the gradient. */
    f2b_profile_stop(start, "adamw", false, 0, 7.0 * (double)f2b_tensor_bytes(parameter));
    return status;
}
