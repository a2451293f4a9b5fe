/* CUDA kernels of rms_norm: a block a row. R rows, D columns. */
#include "autograd/device/cuda/column_sums.cuh"

F2B_DECLARE_KERNELS(f2bi_rms_norm_forward);
F2B_DECLARE_KERNELS(f2bi_rms_norm_backward);

static __global__ void normalise(T *y, real *rstd, const T *x, const void *w, f2b_dtype w_type,
                                 int64_t D, real eps)
{
    const int64_t row = blockIdx.x;
    const int64_t step = (int64_t)blockDim.x * WIDE, start = (int64_t)threadIdx.x * WIDE;
    real squares = 0;
    for (int64_t c = start; c < D; c += step) {
        real v[WIDE];
        f2bi_read(v, x + row * D, c, D);
        for (int i = 0; i < WIDE; i++) squares += v[i] * v[i];
    }
    const real s = 1 / sqrtf(f2bi_block_sum(squares) / (real)D + eps);
    for (int64_t c = start; c < D; c += step) {
        real v[WIDE], vw[WIDE];
        f2bi_read(v, x + row * D, c, D);
        f2bi_read_as(vw, w, w_type, c, D);
        for (int i = 0; i < WIDE; i++)                  /* rounds before the weight, as HF does */
            v[i] = vw[i] * LOAD(f2bi_store(v[i] * s));
        f2bi_write(y + row * D, c, D, v);
    }
    if (rstd != NULL && threadIdx.x == 0) rstd[row] = s;
}

f2b_status KERNEL(f2bi_rms_norm_forward)(f2b_node *n)
{
    const f2b_tensor *x = n->in[0], *w = n->in[1];
    const int64_t R = f2b_rows(x), D = f2b_dim(x, -1);
    void *rstd;
    F2B_TRY(f2b_node_save(n, 0, (size_t)R * sizeof(real), &rstd));
    if (R * D == 0) return F2B_OK;
    F2B_LAUNCH(normalise, (unsigned)R, f2bi_row_threads(D), 0, f2bi_stream(n), (T *)n->out[0]->data,
               (real *)rstd, (const T *)x->data, w->data, w->dtype, D,
               (real)*(const double *)n->attr);
    return f2bi_launched(n);
}

/* With g = dy * w:  dx = rstd * g - x * rstd^3 * mean_c(g * x),  dw = sum_r dy * x * rstd. */
static __global__ void input_gradient(T *dx, bool fresh, const T *x, const T *dy, const real *rstd,
                                      const void *w, f2b_dtype w_type, const int32_t *wanted, int64_t D)
{
    const int64_t row = wanted != NULL ? wanted[blockIdx.x] : blockIdx.x;
    const int64_t step = (int64_t)blockDim.x * WIDE, start = (int64_t)threadIdx.x * WIDE;
    const real s = rstd[row];
    real gx = 0;
    for (int64_t c = start; c < D; c += step) {
        real vx[WIDE], g[WIDE], vw[WIDE];
        f2bi_read(vx, x + row * D, c, D);
        f2bi_read(g, dy + row * D, c, D);
        f2bi_read_as(vw, w, w_type, c, D);
        for (int i = 0; i < WIDE; i++) gx += g[i] * vw[i] * vx[i];
    }
    const real k = f2bi_block_sum(gx) / (real)D * s * s * s;
    for (int64_t c = start; c < D; c += step) {
        real vx[WIDE], g[WIDE], vw[WIDE];
        f2bi_read(vx, x + row * D, c, D);
        f2bi_read(g, dy + row * D, c, D);
        f2bi_read_as(vw, w, w_type, c, D);
        for (int i = 0; i < WIDE; i++) g[i] = s * (g[i] * vw[i]) - k * vx[i];
        f2bi_accumulate(dx + row * D, c, D, g, fresh);
    }
}

static __global__ void weight_partials(real *partial, int64_t R, int64_t D, int64_t chunk_rows,
                                       const T *x, const T *dy, const real *rstd)
{
    F2BI_COLUMN_PARTIALS(LOAD(dy[r * D + c]) * LOAD(x[r * D + c]) * rstd[r]);
}

static f2b_status weight_gradient(f2b_node *n, void *dw, int64_t R, int64_t D)
{
    real *partial = (real *)f2bi_scratch(n, (size_t)(f2bi_chunks(R) * D) * sizeof(real));
    if (partial == NULL) return F2B_ERR_MEMORY;
    F2B_LAUNCH(weight_partials, f2bi_column_grid(R, D), F2BI_BLOCK, 0, f2bi_stream(n), partial, R, D,
               f2bi_chunk_rows(R), (const T *)n->in[0]->data, (const T *)n->out[0]->grad,
               (const real *)n->saved[0]);
    f2bi_add_partials(n, dw, n->in[1]->dtype, partial, R, D);
    f2b_free(partial);
    return F2B_OK;
}

f2b_status KERNEL(f2bi_rms_norm_backward)(f2b_node *n)
{
    const f2b_tensor *x = n->in[0], *w = n->in[1];
    const int64_t R = f2b_rows(x), D = f2b_dim(x, -1);
    bool fresh;
    T *dx = (T *)f2b_node_grad(n, 0, &fresh);
    void *dw = f2b_node_grad(n, 1, NULL);
    if (R * D == 0) return F2B_OK;
    int64_t count;
    const int32_t *wanted = f2b_node_grad_rows(n, 0, &count);
    if (dx != NULL && count > 0)
        F2B_LAUNCH(input_gradient, (unsigned)count, f2bi_row_threads(D), 0, f2bi_stream(n), dx, fresh,
                   (const T *)x->data, (const T *)n->out[0]->grad, (const real *)n->saved[0],
                   w->data, w->dtype, wanted, D);
    if (dw != NULL) F2B_TRY(weight_gradient(n, dw, R, D));
    return f2bi_launched(n);
}
