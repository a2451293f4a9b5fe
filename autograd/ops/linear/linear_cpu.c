/* CPU kernels of linear; linear_parts.h has the legend. */
#include <string.h>

#include "autograd/ops/linear/linear_parts.h"

f2b_kernel KERNEL(f2bi_linear_forward), KERNEL(f2bi_linear_backward);

/* Draws the mask; xd = x by it. Where there is no dropout x itself, the rest unused. */
static const T *drop(const linear_attr *attr, const T *x, uint16_t *stays, T *xd, int64_t M, int64_t I)
{
    if (!attr->has_dropout) return x;
    const int64_t words = f2bi_dropout_words(I);
#pragma omp parallel for schedule(static)
    for (int64_t m = 0; m < M; m++) {
        KERNEL(f2bi_dropout_mask)(&attr->dropout, m, I, stays + m * words);
        KERNEL(f2bi_dropout_row)(&attr->dropout, stays + m * words, I, x + m * I, xd + m * I);
    }
    return xd;
}

/* h [M,R] = scale * dropout(x) A^T, where it is saved or else in *scratch, which is the caller's to free. */
static f2b_status make_h(f2b_node *n, int64_t M, int64_t I, int64_t R, const T **h, char **scratch)
{
    const linear_attr *attr = n->attr;
    const int64_t a_bytes = R * I * (int64_t)sizeof(real), h_bytes = M * R * (int64_t)sizeof(T);
    const int64_t x_bytes = attr->has_dropout ? M * I * (int64_t)sizeof(T) : 0, stays_bytes = mask_bytes(attr, M, I);
    void *saved, *stays = NULL;
    F2B_TRY(f2b_node_save(n, 0, (size_t)h_bytes, &saved));
    if (attr->has_dropout) F2B_TRY(f2b_node_save(n, 1, (size_t)stays_bytes, &stays));
    *scratch = f2b_alloc_host((size_t)(a_bytes + x_bytes + (n->recorded ? 0 : h_bytes + stays_bytes)),
                              F2B_TAG_SCRATCH);
    if (*scratch == NULL) return F2B_ERR_MEMORY;
    real *a = (real *)*scratch;
    T *xd = (T *)(*scratch + a_bytes), *to = saved != NULL ? saved : (T *)((char *)xd + x_bytes);
    if (stays == NULL) stays = (char *)xd + x_bytes + h_bytes;
    stack_a(n, a);
    const f2b_gemm_term term = { drop(attr, n->in[LINEAR_X]->data, stays, xd, M, I), F2B_KERNEL_DTYPE, I, 1,
                                 a, F2B_REAL_DTYPE, 1, I, I, attr->scale };
    *h = to;
    return f2bi_gemm(n->dtype, M, R, &term, 1, f2b_gemm_rows(to, F2B_KERNEL_DTYPE, R, 0));
}

f2b_status KERNEL(f2bi_linear_forward)(f2b_node *n)
{
    const linear_attr *attr = n->attr;
    const f2b_tensor *x = n->in[LINEAR_X];
    const int64_t M = f2b_rows(x), I = f2b_dim(x, -1), R = linear_rank_sum(n);
    const T *h = NULL;
    char *scratch = NULL;
    f2b_status status = R > 0 ? make_h(n, M, I, R, &h, &scratch) : F2B_OK;
    for (int i = 0; i < attr->n && status == F2B_OK; i++) {
        const f2b_gemm_term by_weight = weight_term(n, i, x->data, I);
        status = project(n, i, &by_weight, h, M, R);
        if (h != NULL) h += linear_rank(n, i);
    }
    f2b_free(scratch);
    linear_add_flops(n, true, 0);
    return status;
}

/* The picked rows of from [., D], put at *to, which moves on; where they are. */
static const T *pick(const wanted_rows *w, const T *from, int64_t D, T **to)
{
    T *const at = *to;
    for (int64_t m = 0; m < w->M; m++)
        memcpy(at + m * D, from + w->picked[m] * D, (size_t)D * sizeof(T));
    *to += w->M * D;
    return at;
}

/* Few rows are wanted: they are picked together, and put back where they belong. */
static f2b_status multiply_picked(const f2b_node *n, wanted_rows *w, bool fresh, const real *a, T *dxd,
                                  int64_t I, int64_t R)
{
    const linear_attr *attr = n->attr;
    int64_t width = I + R;
    for (int i = 0; i < attr->n; i++) width += f2b_dim(n->out[i], -1);
    T *const scratch = f2b_alloc_host((size_t)(w->M * width) * sizeof(T), F2B_TAG_SCRATCH), *next = scratch;
    if (scratch == NULL) return F2B_ERR_MEMORY;
    T *const dx = w->dx, *const rows = next;
    if (fresh) next += w->M * I;
    else pick(w, dx, I, &next);
    for (int i = 0; i < attr->n; i++) w->dy[i] = pick(w, w->dy[i], f2b_dim(n->out[i], -1), &next);
    if (R > 0) w->dh = pick(w, w->dh, R, &next);
    w->dx = rows;
    const f2b_status status = multiply_back(n, w, fresh, a, dxd, I, R);
    for (int64_t m = 0; m < w->M; m++)
        memcpy(dx + w->picked[m] * I, rows + m * I, (size_t)I * sizeof(T));
    f2b_free(scratch);
    return status;
}

static f2b_status input_gradient(f2b_node *n, const T *dh, const real *a, T *dxd, int64_t I, int64_t R)
{
    bool fresh;
    wanted_rows w = { .dh = dh, .dx = f2b_node_grad(n, LINEAR_X, &fresh) };
    if (w.dx == NULL) return F2B_OK;
    w.picked = f2b_node_grad_rows(n, LINEAR_X, &w.M);
    for (int i = 0; i < ((const linear_attr *)n->attr)->n; i++) w.dy[i] = n->out[i]->grad;
    return w.picked != NULL ? multiply_picked(n, &w, fresh, a, dxd, I, R)
                            : multiply_back(n, &w, fresh, a, dxd, I, R);
}

f2b_status KERNEL(f2bi_linear_backward)(f2b_node *n)
{
    const linear_attr *attr = n->attr;
    const f2b_tensor *x = n->in[LINEAR_X];
    const int64_t M = f2b_rows(x), I = f2b_dim(x, -1), R = linear_rank_sum(n);
    for (int i = 0; i < attr->n; i++) F2B_TRY(weight_gradients(n, i, x->data, M, I));
    int64_t back;
    (void)f2b_node_grad_rows(n, LINEAR_X, &back);
    linear_add_flops(n, false, n->wants & 1 ? back : 0);
    if (R == 0) return input_gradient(n, NULL, NULL, NULL, I, 0);

    const int64_t stack = R * I, drop = attr->has_dropout ? M * I : 0;
    char *scratch = f2b_alloc_host((size_t)(2 * stack) * sizeof(real) +
                                   (size_t)(M * R + drop) * sizeof(T), F2B_TAG_SCRATCH);
    if (scratch == NULL) return F2B_ERR_MEMORY;
    real *a = (real *)scratch, *da = a + stack;
    T *dh = (T *)(da + stack), *xd = dh + M * R;
    stack_a(n, a);
    f2b_status status = lora_b_gradients(n, dh, M, R);
    if (status == F2B_OK) status = lora_a_gradients(n, x->data, dh, xd, da, M, I, R);
    if (status == F2B_OK) status = input_gradient(n, dh, a, xd, I, R);
    f2b_free(scratch);
    return status;
}
