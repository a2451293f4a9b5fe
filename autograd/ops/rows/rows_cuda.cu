/*
 * CUDA kernels of rows_gather, rows_assemble and embedding. Backward has a block for each source row
 * and stretch of columns, which goes through the index in order and adds the row's uses: no list of
 * uses is needed, and the order is that of the CPU.
 */
#include "autograd/device/cuda/kernel.cuh"
#include "autograd/ops/rows/rows_internal.h"

typedef struct source {
    void *data;                 /* rows, or their gradient */
    f2b_dtype type;
    int64_t rows;
} source;
typedef struct sources {
    source at[F2B_MAX_IN];
    int n, stride;
} sources;

/* Which source row t comes from, and which row of it; false: neither there nor anywhere. */
F2BI_ON_DEVICE bool resolve(const sources *all, const int *index, int64_t t, int *s, int64_t *row)
{
    *s = all->stride == 1 ? 0 : index[2 * t];
    *row = index[all->stride * t + all->stride - 1];
    return *s >= 0 && *s < all->n && *row >= 0 && *row < all->at[*s].rows;
}

static __global__ void gather(T *y, const sources all, const int *index, int64_t D,
                              f2bi_fault fault)
{
    const int64_t t = blockIdx.x;
    int s;
    int64_t row;
    const bool there = resolve(&all, index, t, &s, &row);
    if (!there && threadIdx.x == 0) f2bi_report(fault, t);
    for (int64_t c = (int64_t)threadIdx.x * WIDE; c < D; c += (int64_t)blockDim.x * WIDE) {
        real v[WIDE] = { 0 };
        if (there && all.at[s].type == F2B_KERNEL_DTYPE)
            f2bi_read(v, (const T *)all.at[s].data + row * D, c, D);
        else if (there)
            for (int i = 0; i < WIDE && c + i < D; i++)
                v[i] = f2bi_get(all.at[s].data, all.at[s].type, row * D + c + i);
        f2bi_write(y + t * D, c, D, v);
    }
}

static sources sources_of(const f2b_node *n)
{
    const f2bi_rows_attr *a = (const f2bi_rows_attr *)n->attr;
    sources all;
    memset(&all, 0, sizeof all);
    all.n = a->n_sources, all.stride = a->stride;
    for (int s = 0; s < all.n; s++) {
        all.at[s].data = n->in[s]->data;
        all.at[s].type = n->in[s]->dtype;
        all.at[s].rows = f2b_dim(n->in[s], 0);
    }
    return all;
}

f2b_status KERNEL(f2bi_rows_forward)(f2b_node *n)
{
    const int64_t count = f2b_dim(n->out[0], 0), D = f2b_dim(n->out[0], 1);
    if (count * D == 0) return F2B_OK;
    F2B_LAUNCH(gather, (unsigned)count, f2bi_row_threads(D), 0, f2bi_stream(n),
               (T *)n->out[0]->data, sources_of(n), (const int *)n->in[n->n_in - 1]->data, D,
               f2bi_fault_of(n, n->op->name));
    return f2bi_launched(n);
}

enum { THREADS = 128, WARPS = THREADS / F2BI_WARP };

/* dx[row, :] (+)= sum of dy over the row's uses, in their order. */
static __global__ void add_uses(void *dx, f2b_dtype type, bool fresh, const sources all, int from,
                                const int *index, const T *dy, int64_t count, int64_t D)
{
    __shared__ unsigned used[WARPS];
    const int64_t row = blockIdx.x, c = ((int64_t)blockIdx.y * THREADS + threadIdx.x) * WIDE;
    real sum[WIDE];
    for (int i = 0; i < WIDE; i++)
        sum[i] = fresh || c + i >= D ? 0 : f2bi_get(dx, type, row * D + c + i);
    for (int64_t first = 0; first < count; first += THREADS) {
        const int64_t t = first + threadIdx.x;
        int s;
        int64_t r;
        const bool mine = t < count && resolve(&all, index, t, &s, &r) && s == from && r == row;
        const unsigned votes = __ballot_sync(0xFFFFFFFFu, mine);
        if (threadIdx.x % F2BI_WARP == 0) used[threadIdx.x / F2BI_WARP] = votes;
        __syncthreads();
        for (int w = 0; w < WARPS; w++)
            for (unsigned left = used[w]; left != 0; left &= left - 1) {
                const int64_t use = first + w * F2BI_WARP + __ffs((int)left) - 1;
                real v[WIDE];
                f2bi_read(v, dy + use * D, c, D);
                for (int i = 0; i < WIDE; i++) sum[i] += v[i];
            }
        __syncthreads();                    /* before the next votes */
    }
    for (int i = 0; i < WIDE && c + i < D; i++) f2bi_put(dx, type, row * D + c + i, sum[i]);
}

f2b_status KERNEL(f2bi_rows_backward)(f2b_node *n)
{
    const int64_t count = f2b_dim(n->out[0], 0), D = f2b_dim(n->out[0], 1);
    const sources all = sources_of(n);
    for (int s = 0; s < all.n; s++) {
        bool fresh;
        void *dx = f2b_node_grad(n, s, &fresh);
        if (dx == NULL || all.at[s].rows * D == 0) continue;
        const dim3 grid((unsigned)all.at[s].rows, (unsigned)((D + THREADS * WIDE - 1) / (THREADS * WIDE)));
        F2B_LAUNCH(add_uses, grid, THREADS, 0, f2bi_stream(n), dx, all.at[s].type, fresh, all, s,
                   (const int *)n->in[n->n_in - 1]->data, (const T *)n->out[0]->grad, count, D);
    }
    return f2bi_launched(n);
}
