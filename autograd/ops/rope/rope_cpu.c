/* CPU kernels of rope: backward is the same rotation the other way round. */
#include "autograd/core/op.h"
#include "autograd/device/cpu/row_math.h"

f2b_kernel KERNEL(f2bi_rope_forward), KERNEL(f2bi_rope_backward);

/* Turn one head by direction * angle; write y, or add to it. */
F2BI_ROW_LOOP turn_head(int64_t half, const real *restrict cosine, const real *restrict sine,
                        real direction, const T *restrict x, T *restrict y, const bool fresh)
{
    for (int64_t i = 0; i < half; i++) {
        const real a = LOAD(x[i]), b = LOAD(x[i + half]), c = cosine[i], s = direction * sine[i];
        const real old0 = fresh ? 0 : LOAD(y[i]), old1 = fresh ? 0 : LOAD(y[i + half]);
        STORE(y[i], old0 + (a * c - b * s));
        STORE(y[i + half], old1 + (b * c + a * s));
    }
}

/* Every head of every row. */
static void turn(const f2b_node *n, const T *x, T *y, real direction, bool fresh)
{
    const int64_t rows = f2b_dim(n->in[0], 0), D = f2b_dim(n->in[0], 1);
    const int64_t hd = f2b_dim(n->in[1], 1), half = hd / 2;
    const real *table = n->in[1]->data;
    const int32_t *positions = n->in[2]->data;
#pragma omp parallel for schedule(static) if (rows * D > F2BI_PARALLEL_FROM)
    for (int64_t t = 0; t < rows; t++) {
        const real *cosine = table + positions[t] * hd, *sine = cosine + half;
        for (int64_t at = t * D; at < (t + 1) * D; at += hd) {
            if (fresh) turn_head(half, cosine, sine, direction, x + at, y + at, true);
            else turn_head(half, cosine, sine, direction, x + at, y + at, false);
        }
    }
}

f2b_status KERNEL(f2bi_rope_forward)(f2b_node *n)
{
    const int64_t rows = f2b_dim(n->in[0], 0), P = f2b_dim(n->in[1], 0);
    const int32_t *positions = n->in[2]->data;
    for (int64_t t = 0; t < rows; t++)
        if (positions[t] < 0 || positions[t] >= P)
            return f2b_fail(F2B_ERR_DATA,
                            "rope: position %d of row %lld is outside [0, %lld), what the model "
                            "was made for", (int)positions[t], (long long)t, (long long)P);
    turn(n, n->in[0]->data, n->out[0]->data, 1, true);
    return F2B_OK;
}

f2b_status KERNEL(f2bi_rope_backward)(f2b_node *n)
{
    bool fresh;
    T *dx = f2b_node_grad(n, 0, &fresh);
    turn(n, n->out[0]->grad, dx, -1, fresh);
    return F2B_OK;
}
