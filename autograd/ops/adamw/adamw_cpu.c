/* CPU kernel of AdamW, for f32 alone: master copies and moments have no other type. */
#include "autograd/device/cpu/kernel.h"

#if defined(F2B_KERNEL_F32)

#include <math.h>

#include "autograd/ops/adamw/adamw_internal.h"

static void update_chunk(float *restrict p, const float *restrict grad, float *restrict m,
                         float *restrict v, int64_t n, float factor, f2bi_adamw_terms t)
{
    for (int64_t i = 0; i < n; i++) {
        const float g = grad[i] * factor;
        const float mi = t.beta1 * m[i] + t.one_minus_beta1 * g;
        const float vi = t.beta2 * v[i] + t.one_minus_beta2 * g * g;
        m[i] = mi;
        v[i] = vi;
        const float pi = p[i] * t.keep - t.step * mi / (sqrtf(vi) / t.root_correction + t.eps);
        p[i] = pi < t.least ? t.least : pi;
    }
}

f2b_status f2bi_adamw_cpu(int index, float *p, const float *grad, float *m, float *v, int64_t n,
                          f2bi_adamw_terms t)
{
    (void)index;
    float factor;
    if (!f2bi_adamw_factor(&t, &factor)) return F2B_OK;
    const int64_t chunk = 8192;     /* fixed, so that threads do not decide where loops end */
#pragma omp parallel for schedule(static) if (n > 2 * chunk)
    for (int64_t i = 0; i < n; i += chunk)
        update_chunk(p + i, grad + i, m + i, v + i, n - i < chunk ? n - i : chunk, factor,
                     t);
    return F2B_OK;
}

#else
typedef int adamw_is_compiled_for_f32_only;
#endif
