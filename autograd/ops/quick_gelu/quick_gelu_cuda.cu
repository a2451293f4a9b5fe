/* CUDA kernels of quick_gelu. */
#include "autograd/device/cuda/kernel.cuh"

F2B_DECLARE_KERNELS(f2bi_quick_gelu_forward);
F2B_DECLARE_KERNELS(f2bi_quick_gelu_backward);

F2BI_ON_DEVICE real sigmoid(real v) { return 1 / (1 + __expf(-v)); }

/* d/dv v s(a v) = s + a v s (1 - s), a = 1.702. */
F2BI_ON_DEVICE real slope(real v)
{
    const real a = 1.702f, s = sigmoid(a * v);
    return s + a * v * s * (1 - s);
}

static __global__ void quick_gelu(T *y, const T *x, int64_t n)
{
    const int64_t first = f2bi_first();
    if (first >= n) return;
    real v[WIDE];
    f2bi_read(v, x, first, n);
    for (int i = 0; i < WIDE; i++) v[i] *= sigmoid(1.702f * v[i]);
    f2bi_write(y, first, n, v);
}

f2b_status KERNEL(f2bi_quick_gelu_forward)(f2b_node *n)
{
    const int64_t count = f2b_numel(n->out[0]);
    if (count == 0) return F2B_OK;
    F2B_LAUNCH(quick_gelu, f2bi_blocks(count), F2BI_BLOCK, 0, f2bi_stream(n), (T *)n->out[0]->data,
               (const T *)n->in[0]->data, count);
    return f2bi_launched(n);
}

static __global__ void gradient(T *dx, bool fresh, const T *x, const T *dy, int64_t n)
{
    const int64_t first = f2bi_first();
    if (first >= n) return;
    real v[WIDE], d[WIDE];
    f2bi_read(v, x, first, n);
    f2bi_read(d, dy, first, n);
    for (int i = 0; i < WIDE; i++) d[i] *= slope(v[i]);
    f2bi_accumulate(dx, first, n, d, fresh);
}

f2b_status KERNEL(f2bi_quick_gelu_backward)(f2b_node *n)
{
    const int64_t count = f2b_numel(n->out[0]);
    bool fresh;
    T *dx = (T *)f2b_node_grad(n, 0, &fresh);
    if (count == 0) return F2B_OK;
    F2B_LAUNCH(gradient, f2bi_blocks(count), F2BI_BLOCK, 0, f2bi_stream(n), dx, fresh,
               (const T *)n->in[0]->data, (const T *)n->out[0]->grad, count);
    return f2bi_launched(n);
}
