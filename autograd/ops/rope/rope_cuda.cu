/*
 * CUDA kernels of rope: a block a row, a thread a pair of columns; backward is the same rotation the
 * other way round. A position outside the table is reported, and its row stays as it is.
 */
#include "autograd/device/cuda/kernel.cuh"

F2B_DECLARE_KERNELS(f2bi_rope_forward);
F2B_DECLARE_KERNELS(f2bi_rope_backward);

static __global__ void turn(T *y, bool fresh, const T *x, const real *table, const int *positions,
                            int64_t P, int64_t D, int64_t hd, real direction, f2bi_fault fault)
{
    const int64_t row = blockIdx.x, half = hd / 2, position = positions[row];
    const bool known = position >= 0 && position < P;
    if (!known && threadIdx.x == 0) f2bi_report(fault, row);
    for (int64_t pair = threadIdx.x; pair < D / 2; pair += blockDim.x) {
        const int64_t i = pair % half, at = row * D + pair / half * hd + i;
        const real c = known ? table[position * hd + i] : 1;
        const real s = known ? direction * table[position * hd + half + i] : 0;
        const real a = LOAD(x[at]), b = LOAD(x[at + half]);
        const real old_a = fresh ? 0 : LOAD(y[at]), old_b = fresh ? 0 : LOAD(y[at + half]);
        STORE(y[at], old_a + (a * c - b * s));
        STORE(y[at + half], old_b + (b * c + a * s));
    }
}

static f2b_status turn_all(const f2b_node *n, const void *x, void *y, real direction, bool fresh)
{
    const f2b_tensor *table = n->in[1];
    const int64_t rows = f2b_dim(n->in[0], 0), D = f2b_dim(n->in[0], 1);
    if (rows * D == 0) return F2B_OK;
    F2B_LAUNCH(turn, (unsigned)rows, F2BI_BLOCK, 0, f2bi_stream(n), (T *)y, fresh, (const T *)x,
               (const real *)table->data, (const int *)n->in[2]->data, f2b_dim(table, 0), D,
               f2b_dim(table, 1), direction,
               f2bi_fault_of(n, "rope: positions"));
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
