/* CUDA kernels of layer_norm: a block a row. R rows, D columns. */
#include "autograd/device/cuda/column_sums.cuh"

F2B_DECLARE_KERNELS(f2bi_layer_norm_forward);
F2B_DECLARE_KERNELS(f2bi_layer_norm_backward);

typedef struct moments {
    real mean, rstd;
} moments;

static __global__ void normalise(T *y, moments *saved, const T *x, const void *w, f2b_dtype w_type,
                                 const void *b, f2b_dtype b_type, int64_t D, real eps)
{
    const int64_t row = blockIdx.x;
    const int64_t step = (int64_t)blockDim.x * WIDE, start = (int64_t)threadIdx.x * WIDE;
    real sum = 0, squares = 0;
    for (int64_t c = start; c < D; c += step) {
        real v[WIDE];
        f2bi_read(v, x + row * D, c, D);
        for (int i = 0; i < WIDE; i++) sum += v[i];     /* 0 beyond the row */
    }
    const real mean = f2bi_block_sum(sum) / (real)D;
    for (int64_t c = start; c < D; c += step) {         /* around the mean: nothing cancels */
        real v[WIDE];
        f2bi_read(v, x + row * D, c, D);
        for (int i = 0; i < WIDE && c + i < D; i++) squares += (v[i] - mean) * (v[i] - mean);
    }
    const real s = 1 / sqrtf(f2bi_block_sum(squares) / (real)D + eps);
    for (int64_t c = start; c < D; c += step) {
        real v[WIDE], vw[WIDE], vb[WIDE];
        f2bi_read(v, x + row * D, c, D);
        f2bi_read_as(vw, w, w_type, c, D);
        f2bi_read_as(vb, b, b_type, c, D);
        for (int i = 0; i < WIDE; i++) v[i] = (v[i] - mean) * s * vw[i] + vb[i];
        f2bi_write(y + row * D, c, D, v);
    }
    if (saved != NULL && threadIdx.x == 0) saved[row].mean = mean, saved[row].rstd = s;
}

f2b_status KERNEL(f2bi_layer_norm_forward)(f2b_node *n)
{
    const f2b_tensor *x = n->in[0], *w = n->in[1], *b = n->in[2];
    const int64_t R = f2b_rows(x), D = f2b_dim(x, -1);
    void *saved;
    F2B_TRY(f2b_node_save(n, 0, (size_t)R * sizeof(moments), &saved));
    if (R * D == 0) return F2B_OK;
    F2B_LAUNCH(normalise, (unsigned)R, f2bi_row_threads(D), 0, f2bi_stream(n), (T *)n->out[0]->data,
               (moments *)saved, (const T *)x->data, w->data, w->dtype, b->data, b->dtype, D,
               (real)*(const double *)n->attr);
    return f2bi_launched(n);
}

/* With g = dy * w and u = (x - mean) * rstd:
 *   dx = rstd * (g - mean_c(g) - u * mean_c(g * u)),  dw = sum_r dy * u,  db = sum_r dy. */
static __global__ void input_gradient(T *dx, bool fresh, const T *x, const T *dy,
                                      const moments *saved, const void *w, f2b_dtype w_type,
                                      int64_t D)
{
    const int64_t row = blockIdx.x;
    const int64_t step = (int64_t)blockDim.x * WIDE, start = (int64_t)threadIdx.x * WIDE;
    const moments m = saved[row];
    real sum_g = 0, sum_gu = 0;
    for (int64_t c = start; c < D; c += step) {
        real u[WIDE], g[WIDE], vw[WIDE];
        f2bi_read(u, x + row * D, c, D);
        f2bi_read(g, dy + row * D, c, D);
        f2bi_read_as(vw, w, w_type, c, D);
        for (int i = 0; i < WIDE; i++) {
            g[i] *= vw[i];                              /* 0 beyond the row */
            sum_g += g[i];
            sum_gu += g[i] * ((u[i] - m.mean) * m.rstd);
        }
    }
    const real mean_g = f2bi_block_sum(sum_g) / (real)D, mean_gu = f2bi_block_sum(sum_gu) / (real)D;
    for (int64_t c = start; c < D; c += step) {
        real u[WIDE], g[WIDE], vw[WIDE];
        f2bi_read(u, x + row * D, c, D);
        f2bi_read(g, dy + row * D, c, D);
        f2bi_read_as(vw, w, w_type, c, D);
        for (int i = 0; i < WIDE; i++)
            g[i] = m.rstd * (g[i] * vw[i] - mean_g - (u[i] - m.mean) * m.rstd * mean_gu);
        f2bi_accumulate(dx + row * D, c, D, g, fresh);
    }
}

static __global__ void weight_partials(real *partial, int64_t R, int64_t D, int64_t chunk_rows,
                                       const T *x, const T *dy, const moments *m)
{
    F2BI_COLUMN_PARTIALS(LOAD(dy[r * D + c]) * ((LOAD(x[r * D + c]) - m[r].mean) * m[r].rstd));
}

static __global__ void bias_partials(real *partial, int64_t R, int64_t D, int64_t chunk_rows,
                                     const T *dy)
{
    F2BI_COLUMN_PARTIALS(LOAD(dy[r * D + c]));
}

static f2b_status parameter_gradients(f2b_node *n, void *dw, void *db, int64_t R, int64_t D)
{
    const dim3 grid = f2bi_column_grid(R, D);
    const T *x = (const T *)n->in[0]->data, *dy = (const T *)n->out[0]->grad;
    real *partial = (real *)f2bi_scratch(n, (size_t)(f2bi_chunks(R) * D) * sizeof(real));
    if (partial == NULL) return F2B_ERR_MEMORY;
    if (dw != NULL) {
        F2B_LAUNCH(weight_partials, grid, F2BI_BLOCK, 0, f2bi_stream(n), partial, R, D,
                   f2bi_chunk_rows(R), x, dy, (const moments *)n->saved[0]);
        f2bi_add_partials(n, dw, n->in[1]->dtype, partial, R, D);
    }
    if (db != NULL) {
        F2B_LAUNCH(bias_partials, grid, F2BI_BLOCK, 0, f2bi_stream(n), partial, R, D,
                   f2bi_chunk_rows(R), dy);
        f2bi_add_partials(n, db, n->in[2]->dtype, partial, R, D);
    }
    f2b_free(partial);
    return F2B_OK;
}

f2b_status KERNEL(f2bi_layer_norm_backward)(f2b_node *n)
{
    const f2b_tensor *x = n->in[0], *w = n->in[1];
    const int64_t R = f2b_rows(x), D = f2b_dim(x, -1);
    bool fresh;
    T *dx = (T *)f2b_node_grad(n, 0, &fresh);
    void *dw = f2b_node_grad(n, 1, NULL), *db = f2b_node_grad(n, 2, NULL);
    if (R * D == 0) return F2B_OK;
    if (dx != NULL)
        F2B_LAUNCH(input_gradient, (unsigned)R, f2bi_row_threads(D), 0, f2bi_stream(n), dx, fresh,
                   (const T *)x->data, (const T *)n->out[0]->grad, (const moments *)n->saved[0],
                   w->data, w->dtype, D);
    if (dw != NULL || db != NULL) F2B_TRY(parameter_gradients(n, dw, db, R, D));
    return f2bi_launched(n);
}
