/* CUDA kernel of add. */
#include "autograd/device/cuda/kernel.cuh"

F2B_DECLARE_KERNELS(f2bi_add_forward);

static __global__ void add(T *y, const T *a, const T *b, int64_t n)
{
    const int64_t first = f2bi_first();
    if (first >= n) return;
    real va[WIDE], vb[WIDE];
    f2bi_read(va, a, first, n);
    f2bi_read(vb, b, first, n);
    for (int i = 0; i < WIDE; i++) va[i] += vb[i];
    f2bi_write(y, first, n, va);
}

f2b_status KERNEL(f2bi_add_forward)(f2b_node *n)
{
    const int64_t count = f2b_numel(n->out[0]);
    if (count == 0) return F2B_OK;
    F2B_LAUNCH(add, f2bi_blocks(count), F2BI_BLOCK, 0, f2bi_stream(n), (T *)n->out[0]->data,
               (const T *)n->in[0]->data, (const T *)n->in[1]->data, count);
    return f2bi_launched(n);
}
