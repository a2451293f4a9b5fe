/*
 * CPU kernels of linear. Legend: M rows, I in, O out, r rank of one LoRA, R sum of the ranks of the
 * group. All the work is in the GEMM (device/cpu/gemm.h); a LoRA is one more term of it.
 */
#include <string.h>

#include "autograd/device/cpu/gemm.h"
#include "autograd/device/cpu/kernel.h"
#include "autograd/device/cpu/packed_weight.h"
#include "autograd/ops/dropout/dropout_internal.h"
#include "autograd/ops/linear/linear_internal.h"

f2b_kernel KERNEL(f2bi_linear_forward), KERNEL(f2bi_linear_backward);

/* The A_i below each other: a [R,I] in the compute type. */
static void stack_a(const f2b_node *n, real *a)
{
    const linear_attr *attr = n->attr;
    for (int i = 0; i < attr->n; i++) {
        const f2b_tensor *t = n->in[linear_slot(i, LINEAR_A)];
        if (t == NULL) continue;
        f2b_convert(a, F2B_REAL_DTYPE, t->data, t->dtype, (size_t)f2b_numel(t));
        a += f2b_numel(t);
    }
}

/* xd = dropout(x), or x itself where there is no dropout (xd unused). */
static const T *dropped(const linear_attr *attr, const T *x, T *xd, int64_t M, int64_t I)
{
    if (!attr->has_dropout) return x;
#pragma omp parallel for schedule(static)
    for (int64_t m = 0; m < M; m++)
        f2bi_dropout_row(&attr->dropout, m, I, x + m * I, xd + m * I);
    return xd;
}

f2b_status KERNEL(f2bi_linear_forward)(f2b_node *n)
{
    const linear_attr *attr = n->attr;
    const f2b_tensor *x = n->in[LINEAR_X];
    const int64_t M = f2b_rows(x), I = f2b_dim(x, -1), R = linear_rank_sum(n);
    const T *x_data = x->data;
    T *h = NULL;                        /* h [M,R] = scale * dropout(x) A^T */
    char *scratch = NULL;
    if (R > 0) {
        void *saved;
        F2B_TRY(f2b_node_save(n, 0, (size_t)(M * R) * sizeof(T), &saved));
        const int64_t a_bytes = R * I * (int64_t)sizeof(real);
        const int64_t x_bytes = attr->has_dropout ? M * I * (int64_t)sizeof(T) : 0;
        scratch = f2b_alloc_host((size_t)(a_bytes + x_bytes + M * R * (int64_t)sizeof(T)),
                                 F2B_TAG_SCRATCH);
        if (scratch == NULL) return F2B_ERR_MEMORY;
        real *a = (real *)scratch;
        T *xd = (T *)(scratch + a_bytes);
        h = saved != NULL ? saved : (T *)(scratch + a_bytes + x_bytes);
        stack_a(n, a);
        const f2b_gemm_term term = { dropped(attr, x_data, xd, M, I), F2B_KERNEL_DTYPE, I, 1,
                                     a, F2B_REAL_DTYPE, 1, I, I, attr->scale };
        const f2b_status status = f2bi_gemm(n->dtype, M, R, &term, 1, f2b_gemm_rows(h, F2B_KERNEL_DTYPE, R, 0));
        if (status != F2B_OK) {
            f2b_free(scratch);
            return status;
        }
    }
    f2b_status status = F2B_OK;
    for (int i = 0; i < attr->n && status == F2B_OK; i++) {
        const f2b_tensor *w = n->in[linear_slot(i, LINEAR_WEIGHT)];
        const f2b_tensor *bias = n->in[linear_slot(i, LINEAR_BIAS)];
        const f2b_tensor *b = n->in[linear_slot(i, LINEAR_B)];
        const f2b_tensor *residual = n->in[linear_slot(i, LINEAR_RESIDUAL)];
        const int64_t O = w->shape[0], r = linear_rank(n, i);
        f2b_gemm_term terms[2] = { { x_data, F2B_KERNEL_DTYPE, I, 1, w->data, w->dtype, 1, I, I, 1.0,
                                     f2b_packed_forward(w, n->dtype) } };
        if (r > 0) {
            terms[1] = (f2b_gemm_term){ h, F2B_KERNEL_DTYPE, R, 1, b->data, b->dtype, 1, r, r, 1.0 };
            h += r;
        }
        f2b_gemm_out y = f2b_gemm_rows(n->out[i]->data, F2B_KERNEL_DTYPE, O, 0);
        if (bias != NULL) y.bias = bias->data, y.bias_type = bias->dtype;
        if (residual != NULL) y.from = residual->data, y.beta = 1;
        status = f2bi_gemm(n->dtype, M, O, terms, r > 0 ? 2 : 1, y);
    }
    f2b_free(scratch);
    linear_add_flops(n, true, 0);
    return status;
}

/* db += sum over rows of dy: each thread has columns of its own and adds rows in order. */
static void add_column_sums(real *db, const T *dy, int64_t M, int64_t O)
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
static f2b_status weight_gradients(f2b_node *n, int i, const T *x, int64_t M, int64_t I)
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
static f2b_status lora_b_gradients(f2b_node *n, T *dh, int64_t M, int64_t R)
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
static f2b_status lora_a_gradients(f2b_node *n, const T *dh, T *space, real *da, int64_t M,
                                   int64_t I, int64_t R)
{
    const linear_attr *attr = n->attr;
    bool wanted = false;
    for (int i = 0; i < attr->n; i++) wanted |= n->wants >> linear_slot(i, LINEAR_A) & 1;
    if (!wanted) return F2B_OK;
    const T *xd = dropped(attr, n->in[LINEAR_X]->data, space, M, I);
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
static f2b_status multiply_back(const f2b_node *n, const wanted_rows *w, bool fresh, const real *a, T *dxd,
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
#pragma omp parallel for schedule(static)
    for (int64_t m = 0; m < w->M; m++)
        f2bi_dropout_row_backward(&attr->dropout, w->picked != NULL ? w->picked[m] : m, I, dxd + m * I,
                                  w->dx + m * I, false);
    return F2B_OK;
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
    if (status == F2B_OK) status = lora_a_gradients(n, dh, xd, da, M, I, R);
    if (status == F2B_OK) status = input_gradient(n, dh, a, xd, I, R);
    f2b_free(scratch);
    return status;
}
