/* CPU kernels of head_cross_entropy. Legend: R rows, V tokens, d width, z logits. */
#include <math.h>

#include "autograd/core/op.h"
#include "autograd/device/cpu/gemm.h"
#include "autograd/device/cpu/kernel.h"
#include "autograd/device/cpu/vector_math.h"

f2b_kernel KERNEL(f2bi_head_cross_entropy_forward), KERNEL(f2bi_head_cross_entropy_backward);

/* Logits of one chunk. It changes no value; fewer rows a chunk would pack the head more often. */
enum { LOGITS_BYTES = 64 << 20 };

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
    h.chunk = LOGITS_BYTES / (int64_t)sizeof(real) / (h.V > 0 ? h.V : 1);
    if (h.chunk < 16) h.chunk = 16;
    return h;
}

static f2b_status logits(const head *h, int64_t r0, int64_t rows, real *z)
{
    const f2b_gemm_term t = { h->x + r0 * h->d, F2B_KERNEL_DTYPE, h->d, 1, h->w->data, h->w->dtype,
                              1, h->d, h->d, 1.0 };
    return f2bi_gemm(h->dtype, rows, h->V, &t, 1, (f2b_gemm_out){ z, F2B_REAL_DTYPE, h->V, 1, 0, NULL, 0 });
}

/* z becomes scale * (softmax(z) - onehot(label)); returns the row's loss. */
static double loss_row(real *z, int64_t V, int32_t label, real scale)
{
    real top = z[0];
#pragma omp simd reduction(max : top)
    for (int64_t v = 0; v < V; v++) top = z[v] > top ? z[v] : top;
    const real at_label = z[label];
    double sum = 0;
    for (int64_t v0 = 0; v0 < V; v0 += 1024) {      /* f32 within a stretch, f64 across */
        const int64_t v1 = v0 + 1024 < V ? v0 + 1024 : V;
        real part = 0;
#pragma omp simd reduction(+ : part)
        for (int64_t v = v0; v < v1; v++) {
            z[v] = f2bi_exp(z[v] - top);
            part += z[v];
        }
        sum += (double)part;
    }
    const real factor = scale * (real)(1.0 / sum);
    for (int64_t v = 0; v < V; v++) z[v] *= factor;
    z[label] -= scale;
    return (double)top + log(sum) - (double)at_label;
}

f2b_status KERNEL(f2bi_head_cross_entropy_forward)(f2b_node *n)
{
    const head h = head_of(n);
    void *dx = NULL;
    if (n->in[0]->requires_grad)
        F2B_TRY(f2b_node_save(n, 0, (size_t)(h.R * h.d) * sizeof(T), &dx));
    real *z = f2b_alloc_host((size_t)(h.chunk * h.V) * sizeof(real), F2B_TAG_SCRATCH);
    double *loss = f2b_alloc_host((size_t)h.R * sizeof(double), F2B_TAG_SCRATCH);
    f2b_status status = z != NULL && loss != NULL ? F2B_OK : F2B_ERR_MEMORY;
    for (int64_t r0 = 0; r0 < h.R && status == F2B_OK; r0 += h.chunk) {
        const int64_t rows = h.R - r0 < h.chunk ? h.R - r0 : h.chunk;
        status = logits(&h, r0, rows, z);
        if (status != F2B_OK) break;
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < rows; i++)
            loss[r0 + i] = loss_row(z + i * h.V, h.V, h.label[r0 + i], 1);
        if (dx == NULL) continue;
        const f2b_gemm_term t = { z, F2B_REAL_DTYPE, h.V, 1, h.w->data, h.w->dtype, h.d, 1, h.V, 1.0 };
        status = f2bi_gemm(h.dtype, rows, h.d, &t, 1,
                           (f2b_gemm_out){ (T *)dx + r0 * h.d, F2B_KERNEL_DTYPE, h.d, 1, 0, NULL, 0 });
    }
    double sum = 0;
    for (int64_t r = 0; r < h.R && status == F2B_OK; r++) sum += loss[r];
    *(real *)n->out[0]->data = (real)sum;
    f2b_free(loss);
    f2b_free(z);
    n->flops = 2.0 * (dx != NULL ? 2 : 1) * (double)h.R * (double)h.V * (double)h.d;
    return status;
}

/* dW [V,d] += (g * dz)^T x, chunk after chunk. */
static f2b_status weight_gradient(f2b_node *n, const head *h, real g, real *dw)
{
    real *z = f2b_alloc_host((size_t)(h->chunk * h->V) * sizeof(real), F2B_TAG_SCRATCH);
    f2b_status status = z != NULL ? F2B_OK : F2B_ERR_MEMORY;
    for (int64_t r0 = 0; r0 < h->R && status == F2B_OK; r0 += h->chunk) {
        const int64_t rows = h->R - r0 < h->chunk ? h->R - r0 : h->chunk;
        status = logits(h, r0, rows, z);
        if (status != F2B_OK) break;
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < rows; i++)
            (void)loss_row(z + i * h->V, h->V, h->label[r0 + i], g);
        const f2b_gemm_term t = { z, F2B_REAL_DTYPE, 1, h->V, h->x + r0 * h->d, F2B_KERNEL_DTYPE,
                                  h->d, 1, rows, 1.0 };
        status = f2bi_gemm(h->dtype, h->V, h->d, &t, 1,
                           (f2b_gemm_out){ dw, F2B_REAL_DTYPE, h->d, 1, 1, NULL, 0 });
    }
    f2b_free(z);
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
