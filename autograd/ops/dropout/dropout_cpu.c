/* CPU kernels of dropout. A mask is a bit a column: it is saved. */
#include "autograd/core/op.h"
#include "autograd/device/cpu/kernel.h"
#include "autograd/ops/dropout/dropout_internal.h"

f2b_kernel KERNEL(f2bi_dropout_forward), KERNEL(f2bi_dropout_backward);

f2b_status KERNEL(f2bi_dropout_forward)(f2b_node *n)
{
    const f2b_dropout *d = n->attr;
    const int64_t rows = f2b_rows(n->in[0]), D = f2b_dim(n->in[0], -1), words = f2bi_dropout_words(D);
    const T *x = n->in[0]->data;
    T *y = n->out[0]->data;
    void *saved;
    F2B_TRY(f2b_node_save(n, 0, (size_t)(rows * words) * sizeof(uint16_t), &saved));
    uint16_t *stays = saved != NULL ? saved : f2b_alloc_host((size_t)(rows * words) * sizeof *stays, F2B_TAG_SCRATCH);
    if (stays == NULL) return F2B_ERR_MEMORY;
#pragma omp parallel for schedule(static) if (rows * D > 16384)
    for (int64_t r = 0; r < rows; r++) {
        KERNEL(f2bi_dropout_mask)(d, r, D, stays + r * words);
        KERNEL(f2bi_dropout_row)(d, stays + r * words, D, x + r * D, y + r * D);
    }
    if (saved == NULL) f2b_free(stays);
    return F2B_OK;
}

f2b_status KERNEL(f2bi_dropout_backward)(f2b_node *n)
{
    const f2b_dropout *d = n->attr;
    const int64_t rows = f2b_rows(n->in[0]), D = f2b_dim(n->in[0], -1), words = f2bi_dropout_words(D);
    const T *dy = n->out[0]->grad;
    const uint16_t *stays = n->saved[0];
    bool fresh;
    T *dx = f2b_node_grad(n, 0, &fresh);
#pragma omp parallel for schedule(static) if (rows * D > 16384)
    for (int64_t r = 0; r < rows; r++)
        KERNEL(f2bi_dropout_row_backward)(d, stays + r * words, D, dy + r * D, dx + r * D, fresh);
    return F2B_OK;
}
