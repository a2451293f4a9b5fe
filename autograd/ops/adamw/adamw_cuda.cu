/* CUDA kernel of AdamW, for f32 alone: master copies and moments have no other type. */
#include "autograd/device/cuda/kernel.cuh"

#if defined(F2B_KERNEL_F32)

#include "autograd/ops/adamw/adamw_internal.h"

static __global__ void update(real *p, const real *grad, real *m, real *v, int64_t n,
                              f2bi_adamw_terms t)
{
    const int64_t first = f2bi_first();
    float factor;
    if (first >= n || !f2bi_adamw_factor(&t, &factor)) return;
    real vp[WIDE], g[WIDE], vm[WIDE], vv[WIDE];
    f2bi_read(vp, p, first, n);
    f2bi_read(g, grad, first, n);
    f2bi_read(vm, m, first, n);
    f2bi_read(vv, v, first, n);
    for (int i = 0; i < WIDE; i++) {
        g[i] *= factor;
        vm[i] = t.beta1 * vm[i] + t.one_minus_beta1 * g[i];
        vv[i] = t.beta2 * vv[i] + t.one_minus_beta2 * g[i] * g[i];
        vp[i] = vp[i] * t.keep - t.step * vm[i] / (sqrtf(vv[i]) / t.root_correction + t.eps);
        vp[i] = vp[i] < t.least ? t.least : vp[i];
    }
    f2bi_write(p, first, n, vp);
    f2bi_write(m, first, n, vm);
    f2bi_write(v, first, n, vv);
}

f2b_status f2bi_adamw_cuda(int index, float *p, const float *grad, float *m, float *v, int64_t n,
                           f2bi_adamw_terms t)
{
    if (n == 0) return F2B_OK;
    F2B_LAUNCH(update, f2bi_blocks(n), F2BI_BLOCK, 0, f2bi_cuda_stream(index), p, grad, m, v, n, t);
    return f2bi_cuda_launched(index, "adamw");
}

#endif
