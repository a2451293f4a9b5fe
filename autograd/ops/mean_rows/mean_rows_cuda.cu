/* CUDA kernels of mean_rows: a thread WIDE columns of a group. */
#include "autograd/device/cuda/kernel.cuh"

F2B_DECLARE_KERNELS(f2bi_mean_rows_forward);
F2B_DECLARE_KERNELS(f2bi_mean_rows_backward);

static __global__ void mean(T *y, const T *x, int64_t K, int64_t D)
{
    const int64_t g = blockIdx.x;
    for (int64_t c = (int64_t)threadIdx.x * WIDE; c < D; c += (int64_t)blockDim.x * WIDE) {
        real sum[WIDE] = { 0 }, v[WIDE];
        for (int64_t k = 0; k < K; k++) {
            f2bi_read(v, x + (g * K + k) * D, c, D);
            for (int i = 0; i < WIDE; i++) sum[i] += v[i];
        }
        for (int i = 0; i < WIDE; i++) sum[i] *= 1 / (real)K;
        f2bi_write(y + g * D, c, D, sum);
    }
}

f2b_status KERNEL(f2bi_mean_rows_forward)(f2b_node *n)
{
    const int64_t K = *(const int64_t *)n->attr, D = f2b_dim(n->in[0], 1), G = f2b_dim(n->out[0], 0);
    if (G * D == 0) return F2B_OK;
    F2B_LAUNCH(mean, (unsigned)G, f2bi_row_threads(D), 0, f2bi_stream(n), (T *)n->out[0]->data,
               (const T *)n->in[0]->data, K, D);
    return f2bi_launched(n);
}

static __global__ void spread(T *dx, bool fresh, const T *dy, int64_t K, int64_t D)
{
    const int64_t row = blockIdx.x;
    for (int64_t c = (int64_t)threadIdx.x * WIDE; c < D; c += (int64_t)blockDim.x * WIDE) {
        real v[WIDE];
        f2bi_read(v, dy + row / K * D, c, D);
        for (int i = 0; i < WIDE; i++) v[i] *= 1 / (real)K;
        f2bi_accumulate(dx + row * D, c, D, v, fresh);
    }
}

f2b_status KERNEL(f2bi_mean_rows_backward)(f2b_node *n)
{
    const int64_t K = *(const int64_t *)n->attr, R = f2b_dim(n->in[0], 0), D = f2b_dim(n->in[0], 1);
    bool fresh;
    T *dx = (T *)f2b_node_grad(n, 0, &fresh);
    if (R * D == 0) return F2B_OK;
    F2B_LAUNCH(spread, (unsigned)R, f2bi_row_threads(D), 0, f2bi_stream(n), dx, fresh,
               (const T *)n->out[0]->grad, K, D);
    return f2bi_launched(n);
}
