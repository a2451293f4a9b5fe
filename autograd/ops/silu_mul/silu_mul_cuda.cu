/* CUDA kernels of silu_mul: both gradients in one pass over gate, up and dy. */
#include "autograd/device/cuda/kernel.cuh"

F2B_DECLARE_KERNELS(f2bi_silu_mul_forward);
F2B_DECLARE_KERNELS(f2bi_silu_mul_backward);

F2BI_ON_DEVICE real sigmoid(real v) { return 1 / (1 + __expf(-v)); }

static __global__ void silu_mul(T *y, const T *gate, const T *up, int64_t n)
{
    const int64_t first = f2bi_first();
    if (first >= n) return;
    real g[WIDE], u[WIDE];
    f2bi_read(g, gate, first, n);
    f2bi_read(u, up, first, n);
    for (int i = 0; i < WIDE; i++) u[i] *= g[i] * sigmoid(g[i]);
    f2bi_write(y, first, n, u);
}

f2b_status KERNEL(f2bi_silu_mul_forward)(f2b_node *n)
{
    const int64_t count = f2b_numel(n->out[0]);
    if (count == 0) return F2B_OK;
    F2B_LAUNCH(silu_mul, f2bi_blocks(count), F2BI_BLOCK, 0, f2bi_stream(n), (T *)n->out[0]->data,
               (const T *)n->in[0]->data, (const T *)n->in[1]->data, count);
    return f2bi_launched(n);
}

/* With s = sigmoid(g):  dg = dy * u * s (1 + g (1 - s)),  du = dy * g * s. NULL is not wanted. */
static __global__ void gradients(T *dg, bool fresh_g, T *du, bool fresh_u, const T *gate,
                                 const T *up, const T *dy, int64_t n)
{
    const int64_t first = f2bi_first();
    if (first >= n) return;
    real g[WIDE], u[WIDE], d[WIDE];
    f2bi_read(g, gate, first, n);
    f2bi_read(u, up, first, n);
    f2bi_read(d, dy, first, n);
    for (int i = 0; i < WIDE; i++) {
        const real s = sigmoid(g[i]);
        u[i] = d[i] * u[i] * (s * (1 + g[i] * (1 - s)));
        d[i] *= g[i] * s;
    }
    if (dg != NULL) f2bi_accumulate(dg, first, n, u, fresh_g);
    if (du != NULL) f2bi_accumulate(du, first, n, d, fresh_u);
}

f2b_status KERNEL(f2bi_silu_mul_backward)(f2b_node *n)
{
    const int64_t count = f2b_numel(n->out[0]);
    bool fresh_g = false, fresh_u = false;
    T *dg = (T *)f2b_node_grad(n, 0, &fresh_g), *du = (T *)f2b_node_grad(n, 1, &fresh_u);
    if (count == 0) return F2B_OK;
    F2B_LAUNCH(gradients, f2bi_blocks(count), F2BI_BLOCK, 0, f2bi_stream(n), dg, fresh_g, du,
               fresh_u, (const T *)n->in[0]->data, (const T *)n->in[1]->data,
               (const T *)n->out[0]->grad, count);
    return f2bi_launched(n);
}
