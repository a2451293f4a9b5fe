/* CUDA kernels of mul. */
#include "autograd/device/cuda/kernel.cuh"

F2B_DECLARE_KERNELS(f2bi_mul_forward);
F2B_DECLARE_KERNELS(f2bi_mul_backward);

/* y = a * b, or y += a * b. */
static __global__ void multiply(T *y, bool fresh, const T *a, const T *b, int64_t n)
{
    const int64_t first = f2bi_first();
    if (first >= n) return;
    real va[WIDE], vb[WIDE];
    f2bi_read(va, a, first, n);
    f2bi_read(vb, b, first, n);
    for (int i = 0; i < WIDE; i++) va[i] *= vb[i];
    f2bi_accumulate(y, first, n, va, fresh);
}

f2b_status KERNEL(f2bi_mul_forward)(f2b_node *n)
{
    const int64_t count = f2b_numel(n->out[0]);
    if (count == 0) return F2B_OK;
    F2B_LAUNCH(multiply, f2bi_blocks(count), F2BI_BLOCK, 0, f2bi_stream(n), (T *)n->out[0]->data,
               true, (const T *)n->in[0]->data, (const T *)n->in[1]->data, count);
    return f2bi_launched(n);
}

/* da = dy * b, db = dy * a. */
f2b_status KERNEL(f2bi_mul_backward)(f2b_node *n)
{
    const int64_t count = f2b_numel(n->out[0]);
    for (int input = 0; input < 2; input++) {
        bool fresh;
        T *dx = (T *)f2b_node_grad(n, input, &fresh);
        if (dx == NULL || count == 0) continue;
        F2B_LAUNCH(multiply, f2bi_blocks(count), F2BI_BLOCK, 0, f2bi_stream(n), dx, fresh,
                   (const T *)n->out[0]->grad, (const T *)n->in[1 - input]->data, count);
    }
    return f2bi_launched(n);
}
