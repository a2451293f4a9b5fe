/*
 * What the CPU kernels of linear and of gated_linear share. Legend: M rows, I in, O out, r rank of one LoRA, R sum
 * of the ranks of the group. All the work is in the GEMM (device/cpu/gemm.h); a LoRA is one more term of it.
 */
#ifndef F2B_AUTOGRAD_OPS_LINEAR_PARTS_H
#define F2B_AUTOGRAD_OPS_LINEAR_PARTS_H

#include "autograd/device/cpu/gemm.h"
#include "autograd/device/cpu/kernel.h"
#include "autograd/device/cpu/packed_weight.h"
#include "autograd/ops/dropout/dropout_internal.h"
#include "autograd/ops/linear/linear_internal.h"

/* The A_i below each other: a [R,I] in the compute type. */
static inline void stack_a(const f2b_node *n, real *a)
{
    const linear_attr *attr = n->attr;
    for (int i = 0; i < attr->n; i++) {
        const f2b_tensor *t = n->in[linear_slot(i, LINEAR_A)];
        if (t == NULL) continue;
        f2b_convert(a, F2B_REAL_DTYPE, t->data, t->dtype, (size_t)f2b_numel(t));
        a += f2b_numel(t);
    }
}

/* Bytes of the group's mask, a bit an element. */
static inline int64_t mask_bytes(const linear_attr *attr, int64_t M, int64_t I)
{
    return attr->has_dropout ? M * f2bi_dropout_words(I) * (int64_t)sizeof(uint16_t) : 0;
}

/* xd = x by the mask of forward (saved[1]), or x itself where there is none (xd unused). */
static inline const T *dropped(const f2b_node *n, const T *x, T *xd, int64_t M, int64_t I)
{
    const linear_attr *attr = n->attr;
    if (!attr->has_dropout) return x;
    const uint16_t *stays = n->saved[1];
    const int64_t words = f2bi_dropout_words(I);
#pragma omp parallel for schedule(static)
    for (int64_t m = 0; m < M; m++)
        KERNEL(f2bi_dropout_row)(&attr->dropout, stays + m * words, I, x + m * I, xd + m * I);
    return xd;
}

/* x W_i^T, x [M,I]; NULL: the caller says how x is made. */
static inline f2b_gemm_term weight_term(const f2b_node *n, int i, const T *x, int64_t I)
{
    const f2b_tensor *w = n->in[linear_slot(i, LINEAR_WEIGHT)];
    return (f2b_gemm_term){ x, F2B_KERNEL_DTYPE, I, 1, w->data, w->dtype, 1, I, I, 1.0,
                            f2b_packed_forward(w, n->dtype) };
}

/* y_i = that and all that is added to it; h: the columns of [M,R] that are this projection's. */
static inline f2b_status project(f2b_node *n, int i, const f2b_gemm_term *by_weight, const T *h, int64_t M,
                                 int64_t R)
{
    const f2b_tensor *bias = n->in[linear_slot(i, LINEAR_BIAS)];
    const f2b_tensor *b = n->in[linear_slot(i, LINEAR_B)];
    const f2b_tensor *residual = n->in[linear_slot(i, LINEAR_RESIDUAL)];
    const int64_t O = f2b_dim(n->out[i], -1), r = linear_rank(n, i);
    f2b_gemm_term terms[2] = { *by_weight };
    if (r > 0) terms[1] = (f2b_gemm_term){ h, F2B_KERNEL_DTYPE, R, 1, b->data, b->dtype, 1, r, r, 1.0 };
    f2b_gemm_out y = f2b_gemm_rows(n->out[i]->data, F2B_KERNEL_DTYPE, O, 0);
    if (bias != NULL) y.bias = bias->data, y.bias_type = bias->dtype;
    if (residual != NULL) y.from = residual->data, y.beta = 1;
    return f2bi_gemm(n->dtype, M, O, terms, r > 0 ? 2 : 1, y);
}

/* db += sum over rows of dy: each thread has columns of its own and adds rows in order. */
static inline void add_column_sums(real *db, const T *dy, int64_t M, int64_t O)
{
    enum { WIDE = 128 };
#pragma omp parallel for schedule(static)
    for (int64_t o = 0; o < O; o += WIDE) {
        double sum[WIDE] = { 0 };
        const int64_t n = O - o < WIDE ? O - o : WIDE;
        for (int64_t m = 0; m < M; m++)
            for (int64_t j = 0; j < n; j++) sum[j] += (double)LOAD(dy[m * O + o + j]);
        for (int64_t j = 0; j < n; j++) db[o + j] += (real)sum[j];
    }
}

/* Trained weight and bias: dW [O,I] += dy^T x, db += column sums of dy. */
static inline f2b_status weight_gradients(f2b_node *n, int i, const T *x, int64_t M, int64_t I)
{
    const int64_t O = f2b_dim(n->out[i], -1);
    const T *dy = n->out[i]->grad;
    real *dw = f2b_node_grad(n, linear_slot(i, LINEAR_WEIGHT), NULL);
    real *db = f2b_node_grad(n, linear_slot(i, LINEAR_BIAS), NULL);
    if (db != NULL) add_column_sums(db, dy, M, O);
    if (dw == NULL) return F2B_OK;
    const f2b_gemm_term term = { dy, F2B_KERNEL_DTYPE, 1, O, x, F2B_KERNEL_DTYPE, I, 1, M, 1.0 };
    n->flops += 2.0 * (double)M * (double)I * (double)O;
    return f2bi_gemm(n->dtype, O, I, &term, 1, f2b_gemm_rows(dw, F2B_REAL_DTYPE, I, 1));
}

/* dh [M,R] = scale * dy B, in bf16 rounded as the products that read it would; and dB [O,r] +=
 * dy^T h, computed as its transpose: few rows, so that each part of dy is packed where it is used. */
static inline f2b_status lora_b_gradients(f2b_node *n, T *dh, int64_t M, int64_t R)
{
    const linear_attr *attr = n->attr;
    const T *h = n->saved[0];
    for (int i = 0; i < attr->n; i++) {
        const f2b_tensor *b = n->in[linear_slot(i, LINEAR_B)];
        if (b == NULL) continue;
        const int64_t O = b->shape[0], r = b->shape[1];
        const T *dy = n->out[i]->grad;
        const f2b_gemm_term to_h = { dy, F2B_KERNEL_DTYPE, O, 1, b->data, b->dtype, r, 1, O,
                                     attr->scale };
        F2B_TRY(f2bi_gemm(n->dtype, M, r, &to_h, 1, f2b_gemm_rows(dh, F2B_KERNEL_DTYPE, R, 0)));
        real *db = f2b_node_grad(n, linear_slot(i, LINEAR_B), NULL);
        if (db != NULL) {
            const f2b_gemm_term to_b = { h, F2B_KERNEL_DTYPE, 1, R, dy, F2B_KERNEL_DTYPE, O, 1, M,
                                         1.0 };
            const f2b_gemm_out turned = { .c = db, .c_type = F2B_REAL_DTYPE, .c_row = 1, .c_col = r, .beta = 1 };
            F2B_TRY(f2bi_gemm(n->dtype, r, O, &to_b, 1, turned));
        }
        h += r, dh += r;
    }
    return F2B_OK;
}

/* dA_i [r,I] += dh_i^T dropout(x): one product for the group, then added to each. */
static inline f2b_status lora_a_gradients(f2b_node *n, const T *x, const T *dh, T *space, real *da, int64_t M,
                                   int64_t I, int64_t R)
{
    const linear_attr *attr = n->attr;
    bool wanted = false;
    for (int i = 0; i < attr->n; i++) wanted |= n->wants >> linear_slot(i, LINEAR_A) & 1;
    if (!wanted) return F2B_OK;
    const T *xd = dropped(n, x, space, M, I);
    const f2b_gemm_term term = { dh, F2B_KERNEL_DTYPE, 1, R, xd, F2B_KERNEL_DTYPE, I, 1, M, 1.0 };
    F2B_TRY(f2bi_gemm(n->dtype, R, I, &term, 1, f2b_gemm_rows(da, F2B_REAL_DTYPE, I, 0)));
    for (int i = 0; i < attr->n; i++) {
        const int64_t count = linear_rank(n, i) * I;
        real *grad = f2b_node_grad(n, linear_slot(i, LINEAR_A), NULL);
        for (int64_t j = 0; grad != NULL && j < count; j++) grad[j] += da[j];
        da += count;
    }
    return F2B_OK;
}

/* Rows of x whose gradient is wanted: all M of them where they lie, or some of them together. */
typedef struct wanted_rows {
    int64_t M;
    const int32_t *picked;      /* [M] which rows; NULL: all */
    const T *dy[F2B_MAX_PROJECTIONS], *dh;
    T *dx;
} wanted_rows;

/* dx += sum of dy_i W_i + mask * (dh A), all in one pass over dx where there is no mask. */
static inline f2b_status multiply_back(const f2b_node *n, const wanted_rows *w, bool fresh, const real *a, T *dxd,
                                int64_t I, int64_t R)
{
    const linear_attr *attr = n->attr;
    f2b_gemm_term terms[F2B_MAX_PROJECTIONS + 1];
    int n_terms = 0;
    for (int i = 0; i < attr->n; i++) {
        const f2b_tensor *weight = n->in[linear_slot(i, LINEAR_WEIGHT)];
        const int64_t O = weight->shape[0];
        terms[n_terms++] = (f2b_gemm_term){ w->dy[i], F2B_KERNEL_DTYPE, O, 1, weight->data, weight->dtype, I, 1,
                                            O, 1.0, f2b_packed_backward(weight, n->dtype) };
    }
    const f2b_gemm_term lora = { w->dh, F2B_KERNEL_DTYPE, R, 1, a, F2B_REAL_DTYPE, I, 1, R, 1.0 };
    if (R > 0 && !attr->has_dropout) terms[n_terms++] = lora;
    F2B_TRY(f2bi_gemm(n->dtype, w->M, I, terms, n_terms,
                      f2b_gemm_rows(w->dx, F2B_KERNEL_DTYPE, I, fresh ? 0 : 1)));
    if (R == 0 || !attr->has_dropout) return F2B_OK;
    F2B_TRY(f2bi_gemm(n->dtype, w->M, I, &lora, 1, f2b_gemm_rows(dxd, F2B_KERNEL_DTYPE, I, 0)));
    const uint16_t *stays = n->saved[1];
    const int64_t words = f2bi_dropout_words(I);
#pragma omp parallel for schedule(static)
    for (int64_t m = 0; m < w->M; m++)
        KERNEL(f2bi_dropout_row_backward)(&attr->dropout, stays + (w->picked != NULL ? w->picked[m] : m) * words, I,
                                          dxd + m * I, w->dx + m * I, false);
    return F2B_OK;
}

#endif
