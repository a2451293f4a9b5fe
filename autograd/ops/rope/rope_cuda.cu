/*
 * CUDA kernels of rope: a block a row, a thread WIDE pairs of columns of a head; backward is the same
 * rotation the other way round. A position outside the table is reported, and its row stays as it is.
 */
#include "autograd/device/cuda/kernel.cuh"

F2B_DECLARE_KERNELS(f2bi_rope_forward);
F2B_DECLARE_KERNELS(f2bi_rope_backward);

static __global__ void turn(T *y, bool fresh, const T *x, const real *table, const int *positions,
                            int64_t P, int64_t D, int hd, real direction, f2bi_fault fault)
{
    const int64_t row = blockIdx.x, position = positions[row];
    const bool known = position >= 0 && position < P;
    const int half = hd / 2, parts = (half + WIDE - 1) / WIDE, all = (int)(D / hd) * parts;
    if (!known && threadIdx.x == 0) f2bi_report(fault, row);
    for (int part = (int)threadIdx.x; part < all; part += F2BI_BLOCK) {
        const int first = part % parts * WIDE;              /* of the head's first half */
        const int64_t at = row * D + part / parts * hd;
        real a[WIDE], b[WIDE], c[WIDE], s[WIDE];
        f2bi_read(a, x + at, first, half);
        f2bi_read(b, x + at + half, first, half);
        f2bi_read_as(c, table + (known ? position : 0) * hd, F2B_F32, first, half);
        f2bi_read_as(s, table + (known ? position : 0) * hd + half, F2B_F32, first, half);
        for (int i = 0; i < WIDE; i++) {
            const real cosine = known ? c[i] : 1, sine = known ? direction * s[i] : 0, before = a[i];
            a[i] = before * cosine - b[i] * sine;
            b[i] = b[i] * cosine + before * sine;
        }
        f2bi_accumulate(y + at, first, half, a, fresh);
        f2bi_accumulate(y + at + half, first, half, b, fresh);
    }
}

static f2b_status turn_all(const f2b_node *n, const void *x, void *y, real direction, bool fresh)
{
    const f2b_tensor *table = n->in[1];
    const int64_t rows = f2b_dim(n->in[0], 0), D = f2b_dim(n->in[0], 1);
    if (rows * D == 0) return F2B_OK;
    F2B_LAUNCH(turn, (unsigned)rows, F2BI_BLOCK, 0, f2bi_stream(n), (T *)y, fresh, (const T *)x,
               (const real *)table->data, (const int *)n->in[2]->data, f2b_dim(table, 0), D,
               (int)f2b_dim(table, 1), direction, f2bi_fault_of(n, "rope: positions"));
    return f2bi_launched(n);
}

f2b_status KERNEL(f2bi_rope_forward)(f2b_node *n)
{
    return turn_all(n, n->in[0]->data, n->out[0]->data, 1, true);
}

f2b_status KERNEL(f2bi_rope_backward)(f2b_node *n)
{
    bool fresh;
    void *dx = f2b_node_grad(n, 0, &fresh);
    return turn_all(n, n->out[0]->grad, dx, -1, fresh);
}
