/* CUDA kernels of scale. */
#include "autograd/device/cuda/kernel.cuh"

F2B_DECLARE_KERNELS(f2bi_scale_forward);
F2B_DECLARE_KERNELS(f2bi_scale_backward);

/* y = c x, or y += c x. */
static __global__ void scale(T *y, bool fresh, const T *x, real c, int64_t n)
{
    const int64_t first = f2bi_first();
    if (first >= n) return;
    real v[WIDE];
    f2bi_read(v, x, first, n);
    for (int i = 0; i < WIDE; i++) v[i] *= c;
    f2bi_accumulate(y, first, n, v, fresh);
}

f2b_status KERNEL(f2bi_scale_forward)(f2b_node *n)
{
    const int64_t count = f2b_numel(n->out[0]);
    if (count == 0) return F2B_OK;
    F2B_LAUNCH(scale, f2bi_blocks(count), F2BI_BLOCK, 0, f2bi_stream(n), (T *)n->out[0]->data, true,
               (const T *)n->in[0]->data, (real)*(const double *)n->attr, count);
    return f2bi_launched(n);
}

f2b_status KERNEL(f2bi_scale_backward)(f2b_node *n)
{
    const int64_t count = f2b_numel(n->out[0]);
    bool fresh;
    T *dx = (T *)f2b_node_grad(n, 0, &fresh);
    if (count == 0) return F2B_OK;
    F2B_LAUNCH(scale, f2bi_blocks(count), F2BI_BLOCK, 0, f2bi_stream(n), dx, fresh,
               (const T *)n->out[0]->grad, (real)*(const double *)n->attr, count);
    return f2bi_launched(n);
}
