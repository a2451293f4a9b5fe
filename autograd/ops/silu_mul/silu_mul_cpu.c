/* CPU kernels of silu_mul. R rows, D columns: a row's bits do not depend on its place. */
#include "autograd/core/op.h"
#include "autograd/device/cpu/row_math.h"
#include "autograd/device/cpu/vector_math.h"

f2b_kernel KERNEL(f2bi_silu_mul_forward), KERNEL(f2bi_silu_mul_backward);

static inline real sigmoid(real v) { return 1 / (1 + f2bi_exp(-v)); }

f2b_status KERNEL(f2bi_silu_mul_forward)(f2b_node *n)
{
    const int64_t D = f2b_dim(n->in[0], -1), R = f2b_rows(n->in[0]);
    const T *gate = n->in[0]->data, *up = n->in[1]->data;
    T *y = n->out[0]->data;
#pragma omp parallel for schedule(static) if (R * D > F2BI_PARALLEL_FROM)
    for (int64_t r = 0; r < R; r++)
        for (int64_t i = r * D; i < (r + 1) * D; i++) {
            const real g = LOAD(gate[i]);
            STORE(y[i], g * sigmoid(g) * LOAD(up[i]));
        }
    return F2B_OK;
}

/* With s = sigmoid(g):  dg = dy * u * s (1 + g (1 - s)),  du = dy * g * s. */
static void gate_gradient(const f2b_node *n, T *dg, bool fresh)
{
    const int64_t D = f2b_dim(n->in[0], -1), R = f2b_rows(n->in[0]);
    const T *gate = n->in[0]->data, *up = n->in[1]->data, *dy = n->out[0]->grad;
#pragma omp parallel for schedule(static) if (R * D > F2BI_PARALLEL_FROM)
    for (int64_t r = 0; r < R; r++)
        for (int64_t i = r * D; i < (r + 1) * D; i++) {
            const real g = LOAD(gate[i]), s = sigmoid(g), old = fresh ? 0 : LOAD(dg[i]);
            STORE(dg[i], old + LOAD(dy[i]) * LOAD(up[i]) * (s * (1 + g * (1 - s))));
        }
}

static void up_gradient(const f2b_node *n, T *du, bool fresh)
{
    const int64_t D = f2b_dim(n->in[0], -1), R = f2b_rows(n->in[0]);
    const T *gate = n->in[0]->data, *dy = n->out[0]->grad;
#pragma omp parallel for schedule(static) if (R * D > F2BI_PARALLEL_FROM)
    for (int64_t r = 0; r < R; r++)
        for (int64_t i = r * D; i < (r + 1) * D; i++) {
            const real g = LOAD(gate[i]), old = fresh ? 0 : LOAD(du[i]);
            STORE(du[i], old + LOAD(dy[i]) * (g * sigmoid(g)));
        }
}

f2b_status KERNEL(f2bi_silu_mul_backward)(f2b_node *n)
{
    bool fresh;
    T *dg = f2b_node_grad(n, 0, &fresh);
    if (dg != NULL) gate_gradient(n, dg, fresh);
    T *du = f2b_node_grad(n, 1, &fresh);
    if (du != NULL) up_gradient(n, du, fresh);
    return F2B_OK;
}
