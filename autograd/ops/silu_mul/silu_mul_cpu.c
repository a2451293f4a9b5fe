/* CPU kernels of silu_mul. R rows, D columns: a row's bits do not depend on its place. */
#include "autograd/core/op.h"
#include "autograd/device/cpu/row_math.h"
#include "autograd/device/cpu/vector_math.h"

f2b_kernel KERNEL(f2bi_silu_mul_forward), KERNEL(f2bi_silu_mul_backward);

static inline real gated(real g, real u) { return g * f2bi_sigmoid(g) * u; }

F2BI_ROW_LOOP forward_row(int64_t D, const T *restrict gate, const T *restrict up, T *restrict y)
{
    int64_t c = 0;
#if defined(F2B_KERNEL_BF16)
    const f2bi_pair *restrict g = (const f2bi_pair *)gate, *restrict u = (const f2bi_pair *)up;
    f2bi_pair *restrict to = (f2bi_pair *)y;
    for (; c < D / 2; c++)
        to[c] = f2bi_pair_of(gated(f2bi_pair_first(g[c]), f2bi_pair_first(u[c])),
                             gated(f2bi_pair_second(g[c]), f2bi_pair_second(u[c])));
    c *= 2;
#endif
    for (; c < D; c++) STORE(y[c], gated(LOAD(gate[c]), LOAD(up[c])));
}

f2b_status KERNEL(f2bi_silu_mul_forward)(f2b_node *n)
{
    const int64_t D = f2b_dim(n->in[0], -1), R = f2b_rows(n->in[0]);
    const T *gate = n->in[0]->data, *up = n->in[1]->data;
    T *y = n->out[0]->data;
#pragma omp parallel for schedule(static) if (R * D > F2BI_PARALLEL_FROM)
    for (int64_t r = 0; r < R; r++) forward_row(D, gate + r * D, up + r * D, y + r * D);
    return F2B_OK;
}

/* With s = sigmoid(g):  dg = dy * u * s (1 + g (1 - s)),  du = dy * g * s. */
typedef struct slopes {
    real gate, up;
} slopes;

static inline slopes slopes_of(real g, real u, real d)
{
    const real s = f2bi_sigmoid(g);
    return (slopes){ d * u * (s * (1 + g * (1 - s))), d * (g * s) };
}

F2BI_ROW_LOOP gate_row(int64_t D, const T *restrict gate, const T *restrict up,
                       const T *restrict dy, T *restrict dg, const bool fresh)
{
    for (int64_t i = 0; i < D; i++) {
        const real d = slopes_of(LOAD(gate[i]), LOAD(up[i]), LOAD(dy[i])).gate;
        STORE(dg[i], fresh ? d : LOAD(dg[i]) + d);
    }
}

F2BI_ROW_LOOP up_row(int64_t D, const T *restrict gate, const T *restrict dy, T *restrict du,
                     const bool fresh)
{
    for (int64_t i = 0; i < D; i++) {
        const real d = slopes_of(LOAD(gate[i]), 0, LOAD(dy[i])).up;
        STORE(du[i], fresh ? d : LOAD(du[i]) + d);
    }
}

/* Both at once where both are written: what a layer does. */
F2BI_ROW_LOOP both_rows(int64_t D, const T *restrict gate, const T *restrict up, const T *restrict dy,
                        T *restrict dg, T *restrict du)
{
    int64_t c = 0;
#if defined(F2B_KERNEL_BF16)
    const f2bi_pair *restrict g = (const f2bi_pair *)gate, *restrict u = (const f2bi_pair *)up;
    const f2bi_pair *restrict d = (const f2bi_pair *)dy;
    f2bi_pair *restrict to_g = (f2bi_pair *)dg, *restrict to_u = (f2bi_pair *)du;
    for (; c < D / 2; c++) {
        const slopes x = slopes_of(f2bi_pair_first(g[c]), f2bi_pair_first(u[c]), f2bi_pair_first(d[c]));
        const slopes y = slopes_of(f2bi_pair_second(g[c]), f2bi_pair_second(u[c]), f2bi_pair_second(d[c]));
        to_g[c] = f2bi_pair_of(x.gate, y.gate);
        to_u[c] = f2bi_pair_of(x.up, y.up);
    }
    c *= 2;
#endif
    for (; c < D; c++) {
        const slopes x = slopes_of(LOAD(gate[c]), LOAD(up[c]), LOAD(dy[c]));
        STORE(dg[c], x.gate);
        STORE(du[c], x.up);
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
