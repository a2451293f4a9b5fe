/* CPU kernel of the gradient norm, for f32 and f64. */
#include "autograd/device/cpu/kernel.h"

#if !defined(F2B_KERNEL_BF16)

#include "autograd/device/cpu/row_math.h"
#include "autograd/ops/grad_norm/grad_norm_internal.h"

f2b_status KERNEL(f2bi_grad_norm_cpu)(int index, const void *x, int64_t n, double *sums)
{
    (void)index;
    const real *all = x;
    const int64_t chunks = (n + F2BI_GRAD_NORM_CHUNK - 1) / F2BI_GRAD_NORM_CHUNK;
#pragma omp parallel for schedule(static) if (chunks > 4)
    for (int64_t c = 0; c < chunks; c++) {
        const real *v = all + c * F2BI_GRAD_NORM_CHUNK;
        const int64_t rest = n - c * F2BI_GRAD_NORM_CHUNK;
        const int64_t m = rest < F2BI_GRAD_NORM_CHUNK ? rest : F2BI_GRAD_NORM_CHUNK;
        F2BI_ROW_SUM(sum, m, (double)v[i] * (double)v[i]);
        sums[c] = sum;
    }
    return F2B_OK;
}

#else
typedef int grad_norm_is_compiled_for_f32_and_f64_only;
#endif
