/* CUDA kernels of vision_embed: a block a row. N images of P = 1 + G rows of D columns. */
#include "autograd/device/cuda/column_sums.cuh"

F2B_DECLARE_KERNELS(f2bi_vision_embed_forward);
F2B_DECLARE_KERNELS(f2bi_vision_embed_backward);

static __global__ void embed(T *y, const T *patches, const void *first, f2b_dtype first_type,
                             const void *positions, f2b_dtype positions_type, int64_t P, int64_t D)
{
    const int64_t row = blockIdx.x, p = row % P;
    for (int64_t c = (int64_t)threadIdx.x * WIDE; c < D; c += (int64_t)blockDim.x * WIDE) {
        real v[WIDE], position[WIDE];
        if (p > 0) f2bi_read(v, patches + (row / P * (P - 1) + p - 1) * D, c, D);
        else f2bi_read_as(v, first, first_type, c, D);
        f2bi_read_as(position, positions, positions_type, p * D + c, (p + 1) * D);
        for (int i = 0; i < WIDE; i++) v[i] += position[i];
        f2bi_write(y + row * D, c, D, v);
    }
}

f2b_status KERNEL(f2bi_vision_embed_forward)(f2b_node *n)
{
    const int64_t P = f2b_dim(n->in[2], 0), D = f2b_dim(n->in[0], 1), R = f2b_dim(n->out[0], 0);
    if (R * D == 0) return F2B_OK;
    F2B_LAUNCH(embed, (unsigned)R, f2bi_row_threads(D), 0, f2bi_stream(n), (T *)n->out[0]->data,
               (const T *)n->in[0]->data, (const void *)n->in[1]->data, n->in[1]->dtype,
               (const void *)n->in[2]->data, n->in[2]->dtype, P, D);
    return f2bi_launched(n);
}

static __global__ void patches_gradient(T *dx, bool fresh, const T *dy, int64_t G, int64_t D)
{
    const int64_t row = blockIdx.x;
    for (int64_t c = (int64_t)threadIdx.x * WIDE; c < D; c += (int64_t)blockDim.x * WIDE) {
        real v[WIDE];
        f2bi_read(v, dy + (row / G * (G + 1) + 1 + row % G) * D, c, D);
        f2bi_accumulate(dx + row * D, c, D, v, fresh);
    }
}

/* Images are rows of `width` numbers, of which the first D are summed. */
static __global__ void image_partials(real *partial, int64_t R, int64_t D, int64_t chunk_rows,
                                      const T *dy, int64_t width)
{
    F2BI_COLUMN_PARTIALS(LOAD(dy[r * width + c]));
}

static f2b_status sum_images(f2b_node *n, int input, int64_t N, int64_t D, int64_t width)
{
    void *grad = f2b_node_grad(n, input, NULL);
    if (grad == NULL || N * D == 0) return F2B_OK;
    real *partial = (real *)f2bi_scratch(n, (size_t)(f2bi_chunks(N) * D) * sizeof(real));
    if (partial == NULL) return F2B_ERR_MEMORY;
    F2B_LAUNCH(image_partials, f2bi_column_grid(N, D), F2BI_BLOCK, 0, f2bi_stream(n), partial, N, D,
               f2bi_chunk_rows(N), (const T *)n->out[0]->grad, width);
    f2bi_add_partials(n, grad, n->in[input]->dtype, partial, N, D);
    f2b_free(partial);
    return F2B_OK;
}

/* The class embedding is in the first row of each image; row p of an image is column block p of
 * [N, P * D], so that both gradients are sums over N rows. */
f2b_status KERNEL(f2bi_vision_embed_backward)(f2b_node *n)
{
    const int64_t P = f2b_dim(n->in[2], 0), D = f2b_dim(n->in[0], 1), R = f2b_dim(n->in[0], 0);
    const int64_t N = f2b_dim(n->out[0], 0) / P;
    bool fresh;
    T *dx = (T *)f2b_node_grad(n, 0, &fresh);
    if (dx != NULL && R * D > 0)
        F2B_LAUNCH(patches_gradient, (unsigned)R, f2bi_row_threads(D), 0, f2bi_stream(n), dx, fresh,
                   (const T *)n->out[0]->grad, P - 1, D);
    F2B_TRY(sum_images(n, 1, N, D, P * D));
    F2B_TRY(sum_images(n, 2, N, P * D, P * D));
    return f2bi_launched(n);
}
