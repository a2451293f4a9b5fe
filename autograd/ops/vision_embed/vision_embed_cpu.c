/* CPU kernels of vision_embed. N images of P = 1 + G rows of D columns. */
#include "autograd/core/op.h"
#include "autograd/device/cpu/row_math.h"

f2b_kernel KERNEL(f2bi_vision_embed_forward), KERNEL(f2bi_vision_embed_backward);

f2b_status KERNEL(f2bi_vision_embed_forward)(f2b_node *n)
{
    const int64_t P = f2b_dim(n->in[2], 0), D = f2b_dim(n->in[0], 1), R = f2b_dim(n->out[0], 0);
    const T *patches = n->in[0]->data;
    T *y = n->out[0]->data;
    const real *first, *positions;
    void *first_scratch, *scratch;
    F2B_TRY(f2bi_parameter_as_real(n->in[1], &first, &first_scratch));
    if (f2bi_parameter_as_real(n->in[2], &positions, &scratch) != F2B_OK) {
        f2b_free(first_scratch);
        return F2B_ERR_MEMORY;
    }
#pragma omp parallel for schedule(static) if (R * D > F2BI_PARALLEL_FROM)
    for (int64_t r = 0; r < R; r++) {
        const int64_t image = r / P, p = r % P;
        const real *position = positions + p * D;
        T *row = y + r * D;
        if (p == 0) {
            for (int64_t c = 0; c < D; c++) STORE(row[c], first[c] + position[c]);
        } else {
            const T *patch = patches + (image * (P - 1) + p - 1) * D;
            for (int64_t c = 0; c < D; c++) STORE(row[c], LOAD(patch[c]) + position[c]);
        }
    }
    f2b_free(first_scratch);
    f2b_free(scratch);
    return F2B_OK;
}

static void patches_gradient(f2b_node *n)
{
    const int64_t G = f2b_dim(n->in[2], 0) - 1, D = f2b_dim(n->in[0], 1), R = f2b_dim(n->in[0], 0);
    const T *dy = n->out[0]->grad;
    bool fresh;
    T *dx = f2b_node_grad(n, 0, &fresh);
    if (dx == NULL) return;
#pragma omp parallel for schedule(static) if (R * D > F2BI_PARALLEL_FROM)
    for (int64_t r = 0; r < R; r++) {
        const T *g = dy + (r / G * (G + 1) + 1 + r % G) * D;
        T *d = dx + r * D;
        for (int64_t c = 0; c < D; c++) {
            const real old = fresh ? 0 : LOAD(d[c]);
            STORE(d[c], old + LOAD(g[c]));
        }
    }
}

/* The class embedding is in the first row of each image; row p of an image is column block p of
 * [N, P * D], so that both gradients are sums over N rows. */
f2b_status KERNEL(f2bi_vision_embed_backward)(f2b_node *n)
{
    const int64_t P = f2b_dim(n->in[2], 0), D = f2b_dim(n->in[0], 1);
    const int64_t N = f2b_dim(n->out[0], 0) / P;
    const T *dy = n->out[0]->grad;
    patches_gradient(n);
    void *dfirst = f2b_node_grad(n, 1, NULL);
    if (dfirst != NULL)
        F2BI_ADD_COLUMN_SUMS(dfirst, n->in[1]->dtype, N, D, LOAD(dy[r * P * D + c]));
    void *dpositions = f2b_node_grad(n, 2, NULL);
    if (dpositions != NULL)
        F2BI_ADD_COLUMN_SUMS(dpositions, n->in[2]->dtype, N, P * D, LOAD(dy[r * P * D + c]));
    return F2B_OK;
}
