/* CPU kernels of head_cross_entropy. Legend: R rows, V tokens, d width, z logits. */
#include <math.h>

#include "autograd/core/op.h"
#include "autograd/device/cpu/gemm.h"
#include "autograd/device/cpu/kernel.h"
#include "autograd/device/cpu/packed_weight.h"
#include "autograd/device/cpu/vector_math.h"
#include "autograd/ops/head_cross_entropy/head_cross_entropy_internal.h"

f2b_kernel KERNEL(f2bi_head_cross_entropy_forward), KERNEL(f2bi_head_cross_entropy_backward);

typedef struct head {
    const T *x;
    const f2b_tensor *w;
    const int32_t *label;
    int64_t R, V, d, chunk;
    f2b_dtype dtype;
} head;

static head head_of(const f2b_node *n)
{
    head h = { .x = n->in[0]->data, .w = n->in[1], .label = n->in[2]->data,
               .R = n->in[0]->shape[0], .V = n->in[1]->shape[0], .d = n->in[1]->shape[1],
               .dtype = n->dtype };
    h.chunk = f2bi_head_chunk(h.R, h.V, (int64_t)sizeof(real), h.w->packed != NULL);
    return h;
}

static f2b_status logits(const head *h, int64_t r0, int64_t rows, real *z)
{
    const f2b_gemm_term t = { h->x + r0 * h->d, F2B_KERNEL_DTYPE, h->d, 1, h->w->data, h->w->dtype,
                              1, h->d, h->d, 1.0, f2b_packed_forward(h->w, h->dtype) };
    return f2bi_gemm(h->dtype, rows, h->V, &t, 1, f2b_gemm_rows(z, F2B_REAL_DTYPE, h->V, 0));
}

/* The row becomes e = exp(z - largest), as T from its start on, less its sum at the label: e times
 * *inverse, one over the sum, is softmax(z) - onehot(label). Returns the row's loss. */
static double loss_row(real *z, int64_t V, int32_t label, real *inverse)
{
    enum { STRETCH = 1024 };
    T *e = (T *)z;
    real top = z[0], part[STRETCH];
#pragma omp simd reduction(max : top)
    for (int64_t v = 0; v < V; v++) top = z[v] > top ? z[v] : top;
    const real at_label = z[label];
    double sum = 0;
    for (int64_t v0 = 0; v0 < V; v0 += STRETCH) {       /* f32 within a stretch, f64 across */
        const int32_t n = V - v0 < STRETCH ? (int32_t)(V - v0) : STRETCH;
        real stretch = 0;
#pragma omp simd reduction(+ : stretch)
        for (int32_t i = 0; i < n; i++) {
            part[i] = f2bi_exp(z[v0 + i] - top);
            stretch += part[i];
        }
        for (int32_t i = 0; i < n; i++) STORE(e[v0 + i], part[i]);
        sum += (double)stretch;
    }
    STORE(e[label], (real)((double)f2bi_exp(at_label - top) - sum));
    *inverse = (real)(1.0 / sum);
    return (double)top + log(sum) - (double)at_label;
}

/* Room for a chunk: its logits, an [rows, d] matrix, and a number a row. */
typedef struct room {
    real *z, *rows, *inverse;
} room;

static f2b_status take_room(const head *h, room *r)
{
    r->z = f2b_alloc_host((size_t)(h->chunk * (h->V + h->d + 1)) * sizeof(real), F2B_TAG_SCRATCH);
    if (r->z == NULL) return F2B_ERR_MEMORY;
    r->rows = r->z + h->chunk * h->V, r->inverse = r->rows + h->chunk * h->d;
    return F2B_OK;
}

/* Logits of rows [r0, r0 + rows) and what loss_row makes of them; losses to `loss` or nowhere. */
static f2b_status softmax_chunk(const head *h, int64_t r0, int64_t rows, const room *r, double *loss)
{
    F2B_TRY(logits(h, r0, rows, r->z));
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < rows; i++) {
        const double l = loss_row(r->z + i * h->V, h->V, h->label[r0 + i], &r->inverse[i]);
        if (loss != NULL) loss[r0 + i] = l;
    }
    return F2B_OK;
}

/* Elements of T from one row of a chunk to the next. */
static int64_t row_step(const head *h) { return h->V * (int64_t)(sizeof(real) / sizeof(T)); }

/* dx = (softmax - onehot) W of a chunk: the product of e, each row then times its inverse sum. */
static f2b_status chunk_gradient(const head *h, int64_t rows, const room *r, T *dx)
{
    const f2b_gemm_term t = { r->z, F2B_KERNEL_DTYPE, row_step(h), 1, h->w->data, h->w->dtype, h->d, 1,
                              h->V, 1.0, f2b_packed_backward(h->w, h->dtype) };
    F2B_TRY(f2bi_gemm(h->dtype, rows, h->d, &t, 1,
                      f2b_gemm_rows(r->rows, F2B_REAL_DTYPE, h->d, 0)));
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < h->d; c++)
            STORE(dx[i * h->d + c], r->rows[i * h->d + c] * r->inverse[i]);
    return F2B_OK;
}

f2b_status KERNEL(f2bi_head_cross_entropy_forward)(f2b_node *n)
{
    const head h = head_of(n);
    void *dx = NULL;
    if (n->in[0]->requires_grad)
        F2B_TRY(f2b_node_save(n, 0, (size_t)(h.R * h.d) * sizeof(T), &dx));
    room r;
    F2B_TRY(take_room(&h, &r));
    double *loss = f2b_alloc_host((size_t)h.R * sizeof(double), F2B_TAG_SCRATCH);
    f2b_status status = loss != NULL ? F2B_OK : F2B_ERR_MEMORY;
    for (int64_t r0 = 0; r0 < h.R && status == F2B_OK; r0 += h.chunk) {
        const int64_t rows = h.R - r0 < h.chunk ? h.R - r0 : h.chunk;
        status = softmax_chunk(&h, r0, rows, &r, loss);
        if (status == F2B_OK && dx != NULL)
            status = chunk_gradient(&h, rows, &r, (T *)dx + r0 * h.d);
    }
    double sum = 0;
    for (int64_t i = 0; i < h.R && status == F2B_OK; i++) sum += loss[i];
    *(real *)n->out[0]->data = (real)sum;
    f2b_free(loss);
    f2b_free(r.z);
    n->flops = 2.0 * (dx != NULL ? 2 : 1) * (double)h.R * (double)h.V * (double)h.d;
    return status;
}

/* dW [V,d] += (softmax - onehot)^T g x, chunk after chunk: rows of x times g and their inverse sum. */
static f2b_status weight_gradient(f2b_node *n, const head *h, real g, real *dw)
{
    room r;
    F2B_TRY(take_room(h, &r));
    f2b_status status = F2B_OK;
    for (int64_t r0 = 0; r0 < h->R && status == F2B_OK; r0 += h->chunk) {
        const int64_t rows = h->R - r0 < h->chunk ? h->R - r0 : h->chunk;
        status = softmax_chunk(h, r0, rows, &r, NULL);
        if (status != F2B_OK) break;
        for (int64_t i = 0; i < rows; i++)
            for (int64_t c = 0; c < h->d; c++)
                r.rows[i * h->d + c] = LOAD(h->x[(r0 + i) * h->d + c]) * (g * r.inverse[i]);
        const f2b_gemm_term t = { r.z, F2B_KERNEL_DTYPE, 1, row_step(h), r.rows, F2B_REAL_DTYPE,
                                  h->d, 1, rows, 1.0 };
        status = f2bi_gemm(h->dtype, h->V, h->d, &t, 1,
                           f2b_gemm_rows(dw, F2B_REAL_DTYPE, h->d, 1));
    }
    f2b_free(r.z);
    n->flops += 4.0 * (double)h->R * (double)h->V * (double)h->d;
    return status;
}

f2b_status KERNEL(f2bi_head_cross_entropy_backward)(f2b_node *n)
{
    const head h = head_of(n);
    const real g = *(const real *)n->out[0]->grad;
    const T *saved = n->saved[0];
    bool fresh;
    T *dx = f2b_node_grad(n, 0, &fresh);
    const int64_t count = h.R * h.d;
    if (dx != NULL) {
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < count; i++)
            STORE(dx[i], (fresh ? 0 : LOAD(dx[i])) + g * LOAD(saved[i]));
    }
    real *dw = f2b_node_grad(n, 1, NULL);
    return dw != NULL ? weight_gradient(n, &h, g, dw) : F2B_OK;
}
