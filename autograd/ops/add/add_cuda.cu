/* CUDA kernels of add. */
#include "autograd/device/cuda/kernel.cuh"

F2B_DECLARE_KERNELS(f2bi_add_forward);
F2B_DECLARE_KERNELS(f2bi_add_backward);

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

/* da += dy, db += dy. An uninitialised gradient is written instead of added to. */
f2b_status KERNEL(f2bi_add_backward)(f2b_node *n)
{
    const f2b_tensor *y = n->out[0];
    for (int input = 0; input < 2; input++) {
        bool fresh;
        void *dx = f2b_node_grad(n, input, &fresh);
        if (dx == NULL) continue;
        F2B_TRY(fresh ? f2b_copy(dx, y->device, y->grad, y->device, f2b_tensor_bytes(y))
                      : f2b_add_into(y->device, y->dtype, dx, y->grad, f2b_numel(y)));
    }
    return F2B_OK;
}
