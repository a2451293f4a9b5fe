/*
 * CPU kernels of patch_embedding: patches laid out as rows, then a matrix product; a few images at
 * a time, so that the rows need little room. N images, G patches a side, K = C p p numbers a patch.
 */
#include "autograd/core/op.h"
#include "autograd/device/cpu/gemm.h"
#include "autograd/device/cpu/row_math.h"

f2b_kernel KERNEL(f2bi_patch_embedding_forward), KERNEL(f2bi_patch_embedding_backward);

enum { IMAGES_AT_A_TIME = 8 };

typedef struct sizes {
    int64_t N, C, S, p, G, K, D;
} sizes;

static sizes sizes_of(const f2b_node *n)
{
    sizes z = { .N = f2b_dim(n->in[0], 0), .C = f2b_dim(n->in[0], 1), .S = f2b_dim(n->in[0], 3),
                .p = f2b_dim(n->in[1], 3), .D = f2b_dim(n->in[1], 0) };
    z.G = z.S / z.p, z.K = z.C * z.p * z.p;
    return z;
}

/* rows[(i G + gy) G + gx][(c p + y) p + x] = image first + i, channel c, at gy p + y, gx p + x. */
static void lay_out(const f2b_tensor *images, sizes z, int64_t first, int64_t count, real *rows)
{
#pragma omp parallel for schedule(static) collapse(2)
    for (int64_t i = 0; i < count; i++)
        for (int64_t gy = 0; gy < z.G; gy++)
            for (int64_t gx = 0; gx < z.G; gx++) {
                real *row = rows + ((i * z.G + gy) * z.G + gx) * z.K;
                for (int64_t c = 0; c < z.C; c++)
                    for (int64_t y = 0; y < z.p; y++) {
                        const int64_t line = ((first + i) * z.C + c) * z.S + gy * z.p + y;
                        f2bi_read_row(row + (c * z.p + y) * z.p, images->data, images->dtype,
                                      line * z.S + gx * z.p, z.p);
                    }
            }
}

static real *room_for_rows(sizes z)
{
    const int64_t most = z.N < IMAGES_AT_A_TIME ? z.N : IMAGES_AT_A_TIME;
    return f2b_alloc_host((size_t)(most * z.G * z.G * z.K) * sizeof(real), F2B_TAG_SCRATCH);
}

f2b_status KERNEL(f2bi_patch_embedding_forward)(f2b_node *n)
{
    const sizes z = sizes_of(n);
    real *rows = room_for_rows(z);
    if (rows == NULL) return F2B_ERR_MEMORY;
    f2b_status status = F2B_OK;
    for (int64_t i = 0; i < z.N && status == F2B_OK; i += IMAGES_AT_A_TIME) {
        const int64_t count = z.N - i < IMAGES_AT_A_TIME ? z.N - i : IMAGES_AT_A_TIME;
        const int64_t M = count * z.G * z.G;
        lay_out(n->in[0], z, i, count, rows);
        const f2b_gemm_term term = { .a = rows, .a_type = F2B_REAL_DTYPE, .a_row = z.K, .a_col = 1,
                                     .b = n->in[1]->data, .b_type = n->in[1]->dtype, .b_row = 1,
                                     .b_col = z.K, .k = z.K, .alpha = 1 };
        const f2b_gemm_out out = { .c = (T *)n->out[0]->data + i * z.G * z.G * z.D,
                                   .c_type = F2B_KERNEL_DTYPE, .c_row = z.D, .c_col = 1 };
        status = f2bi_gemm(F2B_KERNEL_DTYPE, M, z.D, &term, 1, out);
        n->flops += 2.0 * (double)M * (double)z.D * (double)z.K;
    }
    f2b_free(rows);
    return status;
}

/* dw[o, k] += sum over patches of dy[patch, o] * rows[patch, k]. */
f2b_status KERNEL(f2bi_patch_embedding_backward)(f2b_node *n)
{
    const sizes z = sizes_of(n);
    void *dw = f2b_node_grad(n, 1, NULL);
    real *rows = room_for_rows(z);
    if (rows == NULL) return F2B_ERR_MEMORY;
    f2b_status status = F2B_OK;
    for (int64_t i = 0; i < z.N && status == F2B_OK; i += IMAGES_AT_A_TIME) {
        const int64_t count = z.N - i < IMAGES_AT_A_TIME ? z.N - i : IMAGES_AT_A_TIME;
        lay_out(n->in[0], z, i, count, rows);
        const f2b_gemm_term term = { .a = (const T *)n->out[0]->grad + i * z.G * z.G * z.D,
                                     .a_type = F2B_KERNEL_DTYPE, .a_row = 1, .a_col = z.D,
                                     .b = rows, .b_type = F2B_REAL_DTYPE, .b_row = z.K, .b_col = 1,
                                     .k = count * z.G * z.G, .alpha = 1 };
        const f2b_gemm_out out = { .c = dw, .c_type = n->in[1]->dtype, .c_row = z.K, .c_col = 1,
                                   .beta = 1 };
        status = f2bi_gemm(F2B_KERNEL_DTYPE, z.D, z.K, &term, 1, out);
        n->flops += 2.0 * (double)term.k * (double)z.D * (double)z.K;
    }
    f2b_free(rows);
    return status;
}
