/*
 * Forward of attention on tensor cores. A block has 128 query rows of one head, 32 a warp: that many,
 * because a warp reads all keys and values from shared memory, and with fewer rows would wait for it.
 * Scores and sums stay in registers. Keys and values have one place each in shared memory: values
 * arrive while keys are multiplied, the next keys while values are.
 */
#include <math.h>

#include "autograd/ops/attention/attention_cuda.cuh"

#if defined(F2B_KERNEL_BF16)
#include "autograd/ops/attention/attention_tiles_cuda.cuh"

enum { KEYS = 64 };                     /* of a step */

/* Over the four lanes that share a row. */
F2BI_ON_DEVICE float row_largest(float x)
{
    x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, 2));
}
F2BI_ON_DEVICE float row_sum(float x)
{
    x += __shfl_xor_sync(0xFFFFFFFFu, x, 1);
    return x + __shfl_xor_sync(0xFFFFFFFFu, x, 2);
}

/* Of the rows that a lane has. */
typedef struct row_state {
    float top[2 * ATT_M], sum[2 * ATT_M];       /* largest scaled score; this lane's part of the sum */
} row_state;

/* The largest scores with the new ones, to which what was summed before is shrunk. */
F2BI_ON_DEVICE void raise_top(const attention_scores *s, attention_sums *sums, row_state *r, float scale,
                              const int D)
{
#pragma unroll
    for (int n = 0; n < 2 * ATT_M; n++) {
        const int i = n / 2, e = n % 2 * 2;
        float top = -INFINITY;
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++) top = fmaxf(top, fmaxf(s[i][j][e], s[i][j][e + 1]));
        top = fmaxf(r->top[n], row_largest(top) * scale);
        const float shrink = f2bi_exp2(r->top[n] - top);
        r->top[n] = top, r->sum[n] *= shrink;
#pragma unroll
        for (int j = 0; j < D / 8; j++) sums[i][j][e] *= shrink, sums[i][j][e + 1] *= shrink;
    }
}

/* Scores of keys 16 k to 16 k + 15 become 2^(scale * score - top), and are summed. */
F2BI_ON_DEVICE void soften(attention_scores *s, row_state *r, float scale, const int k)
{
#pragma unroll
    for (int n = 0; n < 2 * ATT_M; n++)
#pragma unroll
        for (int j = 2 * k; j < 2 * k + 2; j++)
#pragma unroll
            for (int e = n % 2 * 2; e < n % 2 * 2 + 2; e++) {
                s[n / 2][j][e] = f2bi_exp2(s[n / 2][j][e] * scale - r->top[n]);
                r->sum[n] += s[n / 2][j][e];
            }
}

F2BI_ON_DEVICE void write_rows(T *o, real *lse, const attention_view *w, const attention_block *b,
                               const attention_sums *sums, const row_state *r, const int D)
{
#pragma unroll
    for (int n = 0; n < 2 * ATT_M; n++) {
        const bool good = b->limit[f2bi_row(n)] > 0;
        const float sum = row_sum(r->sum[n]), inverse = __fdividef(1, sum);
        if (f2bi_row(n) >= b->t.rows) continue;
        const int64_t row = b->t.first + f2bi_row(n);
        T *y = o + row * w->q_width + b->h * D + f2bi_lane() % 4 * 2;
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
            const float *x = sums[n / 2][j] + n % 2 * 2;
            *(unsigned *)(y + 8 * j) = good ? f2bi_pair(x[0] * inverse, x[1] * inverse) : 0;
        }
        if (lse != NULL && f2bi_lane() % 4 == 0)
            lse[b->h * w->Tq + row] = good ? r->top[n] * ATT_LN_2 + logf(sum) : 0;
    }
}

F2BI_ON_DEVICE void forward(T *o, real *lse, const attention_view *w, f2bi_fault fault, const int D)
{
    __shared__ attention_block b;
    const unsigned q = f2bi_shared_base(), k = q + ATT_ROWS * 2 * D, v = k + KEYS * 2 * D;
    if (blockIdx.x == 0) f2bi_check_layout(w, fault);
    const int most = f2bi_begin_rows(&b, w, fault);
    if (most < 0) return;
    const int64_t width = w->k_width;
    int64_t at = w->k_start[b.t.s] * width + b.h / (w->heads / w->kv_heads) * D + f2bi_part(width, D);
    f2bi_copy_tile(q, w->q + b.t.first * w->q_width + b.h * D + f2bi_part(w->q_width, D), w->q_width,
                   b.t.rows, ATT_ROWS, D);
    f2bi_copy_tile(k, w->k + at, width, most, KEYS, D);

    const unsigned my_q = f2bi_corner(q + f2bi_warp() * 16 * ATT_M * 2 * D, D);
    const unsigned my_k = f2bi_corner_of_columns(k, D), my_v = f2bi_corner(v, D);
    attention_sums sums[ATT_M];
    row_state r;
#pragma unroll
    for (int n = 0; n < 2 * ATT_M; n++) r.top[n] = -INFINITY, r.sum[n] = 0;
    f2bi_clear(sums, ATT_M, D);
    for (int j0 = 0; j0 < most; j0 += KEYS, at += KEYS * width) {
        attention_scores s[ATT_M];
        const bool seen = f2bi_any_seen(&b, j0);
        f2bi_copy_wait();
        __syncthreads();                    /* keys are there, and the values before are read */
        f2bi_copy_tile(v, w->v + at, width, most - j0, KEYS, D);
        if (seen) f2bi_multiply_tiles(s, my_q, my_k, ATT_M, KEYS, D);
        f2bi_copy_wait();
        __syncthreads();                    /* values are there, and the keys are read */
        if (j0 + KEYS < most)
            f2bi_copy_tile(k, w->k + at + KEYS * width, width, most - j0 - KEYS, KEYS, D);
        if (!seen) continue;
        f2bi_hide(s, &b, j0, KEYS);
        raise_top(s, sums, &r, w->scale_2, D);
#pragma unroll
        for (int k16 = 0; k16 < KEYS / 16; k16++) {
            soften(s, &r, w->scale_2, k16);
            f2bi_add_step(sums, s, my_v, k16, ATT_M, D);
        }
    }
    f2bi_copy_wait();                       /* of a tile whose rows see nothing */
    write_rows(o, lse, w, &b, sums, &r, D);
}

static __global__ void __launch_bounds__(ATT_THREADS, ATT_BLOCKS_64)
    forward_64(T *o, real *lse, const attention_view w, f2bi_fault fault)
{
    forward(o, lse, &w, fault, 64);
}
static __global__ void __launch_bounds__(ATT_THREADS, ATT_BLOCKS_128)
    forward_128(T *o, real *lse, const attention_view w, f2bi_fault fault)
{
    forward(o, lse, &w, fault, 128);
}

void f2bi_attention_tensor_forward(const attention_view *w, T *o, real *lse, f2bi_fault fault,
                                   cudaStream_t stream)
{
    const int bytes = (ATT_ROWS + 2 * KEYS) * 2 * w->D;
    const unsigned blocks = f2bi_most_tiles(w->Tq, w->n, ATT_ROWS) * (unsigned)w->heads;
    if (w->D == 64) {
        f2bi_allow_shared((const void *)forward_64, bytes);
        F2B_LAUNCH(forward_64, blocks, ATT_THREADS, bytes, stream, o, lse, *w, fault);
    } else {
        f2bi_allow_shared((const void *)forward_128, bytes);
        F2B_LAUNCH(forward_128, blocks, ATT_THREADS, bytes, stream, o, lse, *w, fault);
    }
}
#endif
