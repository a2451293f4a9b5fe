/* CPU kernels of silu_mul. R rows, D columns: a row's bits do not depend on its place. */
#include "autograd/core/op.h"
#include "autograd/device/cpu/row_math.h"
#include "autograd/device/cpu/vector_math.h"

f2b_kernel KERNEL(f2bi_silu_mul_forward), KERNEL(f2bi_silu_mul_backward);

/* Loops over one width of numbers vectorise better than mixed ones: parts of rows are widened first. */
enum { PART = 256 };

static inline real sigmoid(real v) { return 1 / (1 + f2bi_exp(-v)); }

f2b_status KERNEL(f2bi_silu_mul_forward)(f2b_node *n)
{
    const int64_t D = f2b_dim(n->in[0], -1), R = f2b_rows(n->in[0]);
    const T *gate = n->in[0]->data, *up = n->in[1]->data;
    T *y = n->out[0]->data;
#pragma omp parallel for schedule(static) if (R * D > F2BI_PARALLEL_FROM)
    for (int64_t r = 0; r < R; r++)
        for (int64_t c = 0; c < D; c += PART) {
            const int32_t m = D - c < PART ? (int32_t)(D - c) : PART;
            const T *restrict g_part = gate + r * D + c, *restrict u_part = up + r * D + c;
            T *restrict y_part = y + r * D + c;
            real g[PART], u[PART];
            for (int32_t i = 0; i < m; i++) g[i] = LOAD(g_part[i]);
            for (int32_t i = 0; i < m; i++) u[i] = LOAD(u_part[i]);
            for (int32_t i = 0; i < m; i++) u[i] = g[i] * sigmoid(g[i]) * u[i];
            for (int32_t i = 0; i < m; i++) STORE(y_part[i], u[i]);
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
    for (int64_t c = 0; c < D; c += PART, gate += PART, up += PART, dy += PART, dg += PART, du += PART) {
        const int32_t n = D - c < PART ? (int32_t)(D - c) : PART;
        real g[PART], u[PART], d[PART];
        for (int32_t i = 0; i < n; i++) g[i] = LOAD(gate[i]);
        for (int32_t i = 0; i < n; i++) u[i] = LOAD(up[i]);
        for (int32_t i = 0; i < n; i++) d[i] = LOAD(dy[i]);
        for (int32_t i = 0; i < n; i++) {
            const real s = sigmoid(g[i]);
            u[i] = d[i] * u[i] * (s * (1 + g[i] * (1 - s)));
            d[i] = d[i] * (g[i] * s);
        }
        for (int32_t i = 0; i < n; i++) STORE(dg[i], u[i]);
        for (int32_t i = 0; i < n; i++) STORE(du[i], d[i]);
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
