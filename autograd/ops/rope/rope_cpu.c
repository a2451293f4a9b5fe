/* CPU kernels of rope: backward is the same rotation the other way round. */
#include "autograd/core/op.h"
#include "autograd/device/cpu/row_math.h"

f2b_kernel KERNEL(f2bi_rope_forward), KERNEL(f2bi_rope_backward);

/* Turn every head of every row of x by direction * angle; `add` to y instead of writing it. */
static void turn(const f2b_node *n, const T *x, T *y, real direction, bool add)
{
    const int64_t rows = f2b_dim(n->in[0], 0), D = f2b_dim(n->in[0], 1);
    const int64_t hd = f2b_dim(n->in[1], 1), half = hd / 2;
    const real *table = n->in[1]->data;
    const int32_t *positions = n->in[2]->data;
#pragma omp parallel for schedule(static) if (rows * D > F2BI_PARALLEL_FROM)
    for (int64_t t = 0; t < rows; t++) {
        const real *restrict cosine = table + positions[t] * hd, *restrict sine = cosine + half;
        for (int64_t head = t * D; head < (t + 1) * D; head += hd) {
            const T *restrict x0 = x + head, *restrict x1 = x0 + half;
            T *restrict y0 = y + head, *restrict y1 = y0 + half;
            for (int64_t i = 0; i < half; i++) {
                const real a = LOAD(x0[i]), b = LOAD(x1[i]), c = cosine[i], s = direction * sine[i];
                const real old0 = add ? LOAD(y0[i]) : 0, old1 = add ? LOAD(y1[i]) : 0;
                STORE(y0[i], old0 + (a * c - b * s));
                STORE(y1[i], old1 + (b * c + a * s));
            }
        }
    }
}

f2b_status KERNEL(f2bi_rope_forward)(f2b_node *n)
{
    const int64_t rows = f2b_dim(n->in[0], 0), P = f2b_dim(n->in[1], 0);
    const int32_t *positions = n->in[2]->data;
    for (int64_t t = 0; t < rows; t++)
        if (positions[t] < 0 || positions[t] >= P)
            return f2b_fail(F2B_ERR_DATA, "rope: position %d of row %lld is outside [0, %lld), what "
                            "the model was made for", (int)positions[t], (long long)t, (long long)P);
    turn(n, n->in[0]->data, n->out[0]->data, 1, false);
    return F2B_OK;
}

f2b_status KERNEL(f2bi_rope_backward)(f2b_node *n)
{
    bool fresh;
    T *dx = f2b_node_grad(n, 0, &fresh);
    turn(n, n->out[0]->grad, dx, -1, !fresh);
    return F2B_OK;
}
