/*
 * What the CUDA kernels of attention share: the node as they see it, where tiles of a packed layout
 * begin, and who computes. There are two families, interchangeable between forward and backward:
 *
 *   plain     any type, heads of up to 128; f32 arithmetic (attention_plain_cuda.cu)
 *   tensor    bf16, heads of 64 and 128, on tensor cores (attention_tensor_cuda.cu, .._back_cuda.cu)
 *
 * A block is a tile of one sequence and one head: of query rows in forward and for dq, of keys for dk
 * and dv, so that every sum has one owner and one order, which no other sequence has a part in.
 */
#ifndef F2B_AUTOGRAD_OPS_ATTENTION_CUDA_CUH
#define F2B_AUTOGRAD_OPS_ATTENTION_CUDA_CUH

#include "autograd/device/cuda/kernel.cuh"
#include "autograd/ops/attention/attention_internal.h"

enum { ATT_CUDA_MAX_D = 128 };

typedef struct attention_view {
    const T *q, *k, *v;
    const int *q_start, *k_start, *k_count, *limit;
    int64_t n, Tq, Tk, q_width, k_width;
    int heads, kv_heads, D;
    real scale, scale_2;        /* of scores; that times log2(e), for powers of 2 */
    int none;                   /* 0: the struct has no padding, in which anything may look like a pointer */
} attention_view;

/* With P the softmax and S its argument:  dV = P^T dO,  dP = dO V^T,  dS = P * (dP - delta) with
 * delta = rowsum(dO * O),  dQ = scale * dS K,  dK = scale * dS^T Q. */
typedef struct attention_gradients {
    const T *o, *d_o;
    const real *lse;            /* [heads, Tq], of natural logarithms */
    real *delta;                /* [heads, Tq] */
    T *dq, *dk, *dv;            /* NULL where not wanted */
    int64_t fresh_q;            /* dq is written, not added to (no bool: the struct has no padding) */
} attention_gradients;

/* ---- The launches of each family: o, lse (or NULL), and the gradients that are wanted ---- */

void KERNEL(f2bi_attention_plain_forward)(const attention_view *w, T *o, real *lse, f2bi_fault fault,
                                          cudaStream_t stream);
void KERNEL(f2bi_attention_plain_backward)(const attention_view *w, const attention_gradients *g,
                                           cudaStream_t stream);
#if defined(F2B_KERNEL_BF16)
void f2bi_attention_tensor_forward(const attention_view *w, T *o, real *lse, f2bi_fault fault,
                                   cudaStream_t stream);
void f2bi_attention_tensor_backward(const attention_view *w, const attention_gradients *g,
                                    cudaStream_t stream);
#endif

/* ---- The layout: only the device knows it, and it may be wrong ---- */

F2BI_ON_DEVICE bool f2bi_within(const attention_view *w, int64_t s)
{
    const int64_t from = w->q_start[s], to = w->q_start[s + 1], k = w->k_start[s], count = w->k_count[s];
    return from >= 0 && from <= to && to <= w->Tq && k >= 0 && count >= 0 && k + count <= w->Tk;
}

/* By the threads of one block: reports the first sequence that leaves its rows, or the last one if
 * not all rows of q are in one. */
F2BI_ON_DEVICE void f2bi_check_layout(const attention_view *w, f2bi_fault fault)
{
    for (int64_t s = threadIdx.x; s < w->n; s += blockDim.x)
        if (!f2bi_within(w, s) || (s == 0 && w->q_start[0] != 0)
            || (s == w->n - 1 && w->q_start[w->n] != w->Tq))
            f2bi_report(fault, s);
}

/* Keys that query row t of sequence s sees; 0 if its limit is wrong. */
F2BI_ON_DEVICE int f2bi_visible(const attention_view *w, int64_t s, int64_t t)
{
    const int limit = w->limit[t];
    return limit >= 1 && limit <= w->k_count[s] ? limit : 0;
}

typedef struct attention_tile {
    int64_t s, first;           /* sequence; row of q or k, of all */
    int at, rows;               /* the same within the sequence; rows of the tile that are there */
} attention_tile;

/* Rows of q of sequence s, or its keys; 0 if it leaves its rows. */
F2BI_ON_DEVICE int f2bi_rows_of(const attention_view *w, int64_t s, bool keys)
{
    if (s >= w->n || !f2bi_within(w, s)) return 0;
    return keys ? w->k_count[s] : w->q_start[s + 1] - w->q_start[s];
}

/*
 * Tile number b of query rows, or of keys, `size` a tile; false: there are fewer. By whole warps, a
 * lane a sequence at a time. A causal sequence's last query rows see the most keys, and its first keys
 * are seen by the most rows: tiles of query rows are counted from the last, so that long work starts
 * first.
 */
F2BI_ON_DEVICE bool f2bi_find_tile(const attention_view *w, int64_t b, int size, bool keys,
                                   attention_tile *t)
{
    const unsigned all = 0xFFFFFFFFu, lane = threadIdx.x % F2BI_WARP;
    for (int64_t s0 = 0; s0 < w->n; s0 += F2BI_WARP) {
        const int tiles = (f2bi_rows_of(w, s0 + lane, keys) + size - 1) / size;
        int sum = tiles;
        for (unsigned step = 1; step < F2BI_WARP; step *= 2) {
            const int other = __shfl_up_sync(all, sum, step);
            if (lane >= step) sum += other;
        }
        const int total = __shfl_sync(all, sum, F2BI_WARP - 1);
        if (b < total) {
            const int which = __ffs((int)__ballot_sync(all, b < sum)) - 1;
            const int number = (int)b - __shfl_sync(all, sum - tiles, which);
            const int count = __shfl_sync(all, tiles, which);
            t->s = s0 + which;
            t->at = (keys ? number : count - 1 - number) * size;
            t->first = (int64_t)(keys ? w->k_start : w->q_start)[t->s] + t->at;
            t->rows = f2bi_rows_of(w, t->s, keys) - t->at;
            t->rows = t->rows < size ? t->rows : size;
            return true;
        }
        b -= total;
    }
    return false;
}
static inline unsigned f2bi_most_tiles(int64_t rows, int64_t sequences, int size)
{
    return (unsigned)(rows / size + sequences);
}

#endif
