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
F2BI_ROW_LOOP gate_row(int64_t D, const T *restrict gate, const T *restrict up,
                       const T *restrict dy, T *restrict dg, const bool fresh)
{
    for (int64_t i = 0; i < D; i++) {
        const real g = LOAD(gate[i]), s = sigmoid(g);
        const real d = LOAD(dy[i]) * LOAD(up[i]) * (s * (1 + g * (1 - s)));
        STORE(dg[i], fresh ? d : LOAD(dg[i]) + d);
    }
}

F2BI_ROW_LOOP up_row(int64_t D, const T *restrict gate, const T *restrict dy, T *restrict du,
                     const bool fresh)
{
    for (int64_t i = 0; i < D; i++) {
        const real g = LOAD(gate[i]), d = LOAD(dy[i]) * (g * sigmoid(g));
        STORE(du[i], fresh ? d : LOAD(du[i]) + d);
    }
}

/* Both at once where both are written: what a layer does. */
static void both_rows(int64_t D, const T *restrict gate, const T *restrict up, const T *restrict dy,
                      T *restrict dg, T *restrict du)
{
    for (int64_t i = 0; i < D; i++) {
        const real g = LOAD(gate[i]), s = sigmoid(g), d = LOAD(dy[i]);
        STORE(dg[i], d * LOAD(up[i]) * (s * (1 + g * (1 - s))));
        STORE(du[i], d * (g * s));
    }
}

f2b_status KERNEL(f2bi_silu_mul_backward)(f2b_node *n)
{
    const int64_t D = f2b_dim(n->in[0], -1), R = f2b_rows(n->in[0]);
    const T *gate = n->in[0]->data, *up = n->in[1]->data, *dy = n->out[0]->grad;
    bool fresh_gate = false, fresh_up = false;
    T *dg = f2b_node_grad(n, 0, &fresh_gate), *du = f2b_node_grad(n, 1, &fresh_up);
#pragma omp parallel for schedule(static) if (R * D > F2BI_PARALLEL_FROM)
    for (int64_t r = 0; r < R; r++) {
        const int64_t at = r * D;
        if (dg != NULL && du != NULL && fresh_gate && fresh_up) {
            both_rows(D, gate + at, up + at, dy + at, dg + at, du + at);
            continue;
        }
        if (dg != NULL && fresh_gate) gate_row(D, gate + at, up + at, dy + at, dg + at, true);
        if (dg != NULL && !fresh_gate) gate_row(D, gate + at, up + at, dy + at, dg + at, false);
        if (du != NULL && fresh_up) up_row(D, gate + at, dy + at, du + at, true);
        if (du != NULL && !fresh_up) up_row(D, gate + at, dy + at, du + at, false);
    }
    return F2B_OK;
}
