/*
 * CUDA kernels of patch_embedding: patches laid out as rows, then a matrix product; a few images at
 * a time, so that the rows need little room. N images, G patches a side, K = C p p numbers a patch.
 */
#include "autograd/device/cuda/operand.cuh"

F2B_DECLARE_KERNELS(f2bi_patch_embedding_forward);
F2B_DECLARE_KERNELS(f2bi_patch_embedding_backward);

static const int64_t IMAGES_AT_A_TIME = 8;

typedef struct sizes {
    int64_t N, C, S, p, G, K, D;
} sizes;

static sizes sizes_of(const f2b_node *n)
{
    sizes z;
    z.N = f2b_dim(n->in[0], 0), z.C = f2b_dim(n->in[0], 1), z.S = f2b_dim(n->in[0], 3);
    z.p = f2b_dim(n->in[1], 3), z.D = f2b_dim(n->in[1], 0);
    z.G = z.S / z.p, z.K = z.C * z.p * z.p;
    return z;
}

/* A block a patch: rows[(i G + gy) G + gx][(c p + y) p + x] = image first + i, channel c, at
 * gy p + y, gx p + x. */
static __global__ void lay_out(T *rows, const void *images, f2b_dtype type, const sizes z,
                               int64_t first)
{
    const int64_t row = blockIdx.x, gx = row % z.G, gy = row / z.G % z.G, image = first + row / z.G / z.G;
    for (int64_t k = threadIdx.x; k < z.K; k += blockDim.x) {
        const int64_t x = k % z.p, y = k / z.p % z.p, c = k / z.p / z.p;
        const int64_t line = (image * z.C + c) * z.S + gy * z.p + y;
        STORE(rows[row * z.K + k], f2bi_get(images, type, line * z.S + gx * z.p + x));
    }
}

/* The rows of up to IMAGES_AT_A_TIME images from the given one on; their number in *M. */
static void lay_out_images(const f2b_node *n, const sizes *z, int64_t first, T *rows, int64_t *M)
{
    const int64_t count = z->N - first < IMAGES_AT_A_TIME ? z->N - first : IMAGES_AT_A_TIME;
    *M = count * z->G * z->G;
    if (*M * z->K == 0) return;
    F2B_LAUNCH(lay_out, (unsigned)*M, F2BI_BLOCK, 0, f2bi_stream(n), rows,
               (const void *)n->in[0]->data, n->in[0]->dtype, *z, first);
}

static T *room_for_rows(const f2b_node *n, const sizes *z)
{
    const int64_t most = z->N < IMAGES_AT_A_TIME ? z->N : IMAGES_AT_A_TIME;
    return (T *)f2bi_scratch(n, (size_t)(most * z->G * z->G * z->K + 1) * sizeof(T));
}

f2b_status KERNEL(f2bi_patch_embedding_forward)(f2b_node *n)
{
    const sizes z = sizes_of(n);
    void *scratch;
    const T *w = f2bi_operand(n, n->in[1], &scratch);
    T *rows = room_for_rows(n, &z);
    f2b_status status = w != NULL && rows != NULL ? F2B_OK : F2B_ERR_MEMORY;
    for (int64_t i = 0; i < z.N && status == F2B_OK; i += IMAGES_AT_A_TIME) {
        int64_t M;
        lay_out_images(n, &z, i, rows, &M);
        status = f2bi_product(n, M, z.D, z.K, f2bi_plain(rows, z.K), f2bi_turned(w, z.K), 1, 0,
                              (T *)n->out[0]->data + i * z.G * z.G * z.D, F2B_KERNEL_DTYPE, z.D);
        n->flops += 2.0 * (double)M * (double)z.D * (double)z.K;
    }
    f2b_free(rows);
    f2b_free(scratch);
    F2B_TRY(status);
    return f2bi_launched(n);
}

/* dw[o, k] += sum over patches of dy[patch, o] * rows[patch, k]. */
f2b_status KERNEL(f2bi_patch_embedding_backward)(f2b_node *n)
{
    const sizes z = sizes_of(n);
    void *dw = f2b_node_grad(n, 1, NULL);
    T *rows = room_for_rows(n, &z);
    f2b_status status = rows != NULL ? F2B_OK : F2B_ERR_MEMORY;
    for (int64_t i = 0; i < z.N && status == F2B_OK; i += IMAGES_AT_A_TIME) {
        const T *dy = (const T *)n->out[0]->grad + i * z.G * z.G * z.D;
        int64_t M;
        lay_out_images(n, &z, i, rows, &M);
        status = f2bi_product(n, z.D, z.K, M, f2bi_turned(dy, z.D), f2bi_plain(rows, z.K), 1, 1, dw,
                              n->in[1]->dtype, z.K);
        n->flops += 2.0 * (double)M * (double)z.D * (double)z.K;
    }
    f2b_free(rows);
    F2B_TRY(status);
    return f2bi_launched(n);
}
