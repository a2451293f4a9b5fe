/*
 * Backward of attention on tensor cores. The softmax is computed again from the scores and their log
 * sums, once by blocks of query rows for dq, once by blocks of keys for dk and dv: each sum stays in
 * the registers of one warp from the first tile to the last, in one order, and no atomics are needed.
 * Tiles of the other side have two places in shared memory: one arrives while one is multiplied.
 */
#include "autograd/ops/attention/attention_cuda.cuh"

#if defined(F2B_KERNEL_BF16)
#include "autograd/ops/attention/attention_tiles_cuda.cuh"

/* ---- delta: D / 8 lanes for a row and head, 16 bytes of it each ---- */

static __global__ void row_products(const attention_gradients g, const attention_view w)
{
    const int lanes = w.D / WIDE;
    const int64_t n = w.Tq * w.heads, at = ((int64_t)blockIdx.x * ATT_THREADS + threadIdx.x) / lanes;
    const int64_t first = at * w.D + (int)threadIdx.x % lanes * WIDE;   /* rows lie end to end */
    real o[WIDE], d_o[WIDE], sum = 0;
    f2bi_read(o, g.o, first, n * w.D);
    f2bi_read(d_o, g.d_o, first, n * w.D);
    for (int i = 0; i < WIDE; i++) sum += o[i] * d_o[i];
    for (int step = lanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, step);
    if (at < n && threadIdx.x % lanes == 0) g.delta[at % w.heads * w.Tq + at / w.heads] = sum;
}

/* Two neighbours of a gradient: added to, or written. */
F2BI_ON_DEVICE void add_pair(T *place, float low, float high, bool fresh)
{
    const unsigned old = fresh ? 0 : *(const unsigned *)place;
    *(unsigned *)place = f2bi_pair(low + __int_as_float((int)(old << 16)),
                                   high + __int_as_float((int)(old & 0xFFFF0000u)));
}

/* ---- dq: a block of query rows goes through the keys that any of them sees ---- */

enum { Q_KEYS = 32 };                   /* of a step */

static inline int query_bytes(int D) { return (2 * ATT_ROWS + 4 * Q_KEYS) * 2 * D; }

F2BI_ON_DEVICE void query_gradient(const attention_gradients *g, const attention_view *w, const int D)
{
    __shared__ attention_block b;
    __shared__ float lse[ATT_ROWS], delta[ATT_ROWS];
    const unsigned q = f2bi_shared_base(), d_o = q + ATT_ROWS * 2 * D, k = d_o + ATT_ROWS * 2 * D;
    const unsigned v = k + Q_KEYS * 2 * D, stage = 2 * Q_KEYS * 2 * D;
    const int row = (int)threadIdx.x;
    const int most = f2bi_begin_rows(&b, w, (f2bi_fault){ NULL, 0 });
    if (most < 0) return;
    lse[row] = row < b.t.rows ? g->lse[b.h * w->Tq + b.t.first + row] * ATT_LOG2_E : 0;
    delta[row] = row < b.t.rows ? g->delta[b.h * w->Tq + b.t.first + row] : 0;

    const int64_t width = w->k_width;
    const int64_t part = b.t.first * w->q_width + b.h * D + f2bi_part(w->q_width, D);
    int64_t at = w->k_start[b.t.s] * width + b.h / (w->heads / w->kv_heads) * D + f2bi_part(width, D);
    f2bi_copy_tile(q, w->q + part, w->q_width, b.t.rows, ATT_ROWS, D);
    f2bi_copy_tile(d_o, g->d_o + part, w->q_width, b.t.rows, ATT_ROWS, D);
    f2bi_copy_tile(k, w->k + at, width, most, Q_KEYS, D);
    f2bi_copy_tile(v, w->v + at, width, most, Q_KEYS, D);

    const unsigned mine = f2bi_warp() * 16 * ATT_M * 2 * D;
    const unsigned my_q = f2bi_corner(q + mine, D), my_d_o = f2bi_corner(d_o + mine, D);
    const unsigned k_columns = f2bi_corner_of_columns(k, D), k_rows = f2bi_corner(k, D);
    unsigned now = 0;                       /* where this step's keys and values are: 0 or stage */
    attention_sums dq[ATT_M];
    f2bi_clear(dq, ATT_M, D);
    for (int j0 = 0; j0 < most; j0 += Q_KEYS, now ^= stage) {
        attention_scores s[ATT_M], dp[ATT_M];
        f2bi_copy_wait();
        __syncthreads();                    /* this step's are there, the ones before are read */
        at += Q_KEYS * width;
        if (j0 + Q_KEYS < most) {
            f2bi_copy_tile(k + (now ^ stage), w->k + at, width, most - j0 - Q_KEYS, Q_KEYS, D);
            f2bi_copy_tile(v + (now ^ stage), w->v + at, width, most - j0 - Q_KEYS, Q_KEYS, D);
        }
        if (!f2bi_any_seen(&b, j0)) continue;
        f2bi_multiply_tiles(s, my_q, k_columns + now, ATT_M, Q_KEYS, D);
        f2bi_multiply_tiles(dp, my_d_o, k_columns + now + (v - k), ATT_M, Q_KEYS, D);
        f2bi_hide(s, &b, j0, Q_KEYS);
#pragma unroll
        for (int k16 = 0; k16 < Q_KEYS / 16; k16++) {
#pragma unroll
            for (int n = 0; n < 2 * ATT_M; n++)
#pragma unroll
                for (int j = 2 * k16; j < 2 * k16 + 2; j++)
#pragma unroll
                    for (int e = n % 2 * 2; e < n % 2 * 2 + 2; e++)
                        s[n / 2][j][e] = f2bi_exp2(s[n / 2][j][e] * w->scale_2 - lse[f2bi_row(n)])
                                         * (dp[n / 2][j][e] - delta[f2bi_row(n)]);
            f2bi_add_step(dq, s, k_rows + now, k16, ATT_M, D);
        }
    }
    f2bi_copy_wait();                       /* of a tile whose rows see nothing */
#pragma unroll
    for (int n = 0; n < 2 * ATT_M; n++) {
        if (f2bi_row(n) >= b.t.rows) continue;
        T *y = g->dq + (b.t.first + f2bi_row(n)) * w->q_width + b.h * D + f2bi_lane() % 4 * 2;
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
            const float *x = dq[n / 2][j] + n % 2 * 2;
            add_pair(y + 8 * j, w->scale * x[0], w->scale * x[1], g->fresh_q);
        }
    }
}

/* ---- dk and dv: a block of keys, 16 a warp, goes through the query rows that see any of them ---- */

enum { KEYS = ATT_WARPS * 16, K_ROWS = 64 };    /* of a block; query rows of a step */

/* A step's query rows in shared memory: two tiles, then numbers of each row. */
enum { LSE = 0, DELTA = K_ROWS * 4, LIMIT = 2 * K_ROWS * 4, NUMBERS = 3 * K_ROWS * 4 };
static __host__ __device__ __forceinline__ unsigned step_bytes(int D) { return 2 * K_ROWS * 2 * D + NUMBERS; }
static inline int key_bytes(int D) { return 2 * KEYS * 2 * D + 2 * (int)step_bytes(D); }

/* Which steps there are: query heads of the group one after the other, and of each the tiles of rows
 * from the first that sees one of the keys to the last. */
typedef struct key_steps {
    int from, to;               /* query rows: from that tile on; behind the last that sees */
    int left, h, t;             /* steps that are not copied yet; head and first row of the next */
} key_steps;

/* First and last are found by the whole block. */
F2BI_ON_DEVICE void find_steps(key_steps *x, const attention_view *w, const attention_tile *t)
{
    __shared__ int part[2][ATT_WARPS];
    const int from = w->q_start[t->s], rows = f2bi_rows_of(w, t->s, false);
    int first = rows, end = 0;
    for (int i = (int)threadIdx.x; i < rows; i += ATT_THREADS)
        if (w->limit[from + i] > t->at) first = first < i ? first : i, end = i + 1;
    first = -f2bi_warp_largest(-first), end = f2bi_warp_largest(end);
    if (f2bi_lane() == 0) part[0][f2bi_warp()] = first, part[1][f2bi_warp()] = end;
    __syncthreads();
    for (int i = 0; i < ATT_WARPS; i++) {
        first = part[0][i] < first ? part[0][i] : first;
        end = part[1][i] > end ? part[1][i] : end;
    }
    first -= first % K_ROWS;
    const int group = w->heads / w->kv_heads;
    x->from = x->t = from + first, x->to = from + end;
    x->left = end > first ? (end - first + K_ROWS - 1) / K_ROWS * group : 0;
    x->h = (int)(blockIdx.x % (unsigned)w->kv_heads) * group;
}

/* Begins the copy of the next step's rows, if there is one. */
F2BI_ON_DEVICE void copy_step(unsigned to, key_steps *x, const attention_gradients *g,
                              const attention_view *w, const int D)
{
    if (x->left == 0) return;
    const int64_t width = w->q_width, at = x->t * width + x->h * D + f2bi_part(width, D);
    const int rows = x->to - x->t < K_ROWS ? x->to - x->t : K_ROWS, r = (int)threadIdx.x % K_ROWS;
    f2bi_copy_tile(to, w->q + at, width, rows, K_ROWS, D);
    f2bi_copy_tile(to + K_ROWS * 2 * D, g->d_o + at, width, rows, K_ROWS, D);
    to += 2 * K_ROWS * 2 * D + 4 * (unsigned)r;
    const int64_t one = x->h * w->Tq + x->t + r;
    if (threadIdx.x < K_ROWS) {
        f2bi_copy_word_async(to + LSE, g->lse + one, r < rows);
        f2bi_copy_word_async(to + LIMIT, w->limit + x->t + r, r < rows);
    } else {
        f2bi_copy_word_async(to + DELTA, g->delta + one, r < rows);
    }
    x->left--, x->t += K_ROWS;
    if (x->t >= x->to) x->t = x->from, x->h++;
}

/* P^T and dS^T of this warp's 16 keys and query rows 16 k to 16 k + 15 of the step, whose numbers are
 * given; `key` is that of c[0]. A row that isn't there has limit 0. */
F2BI_ON_DEVICE void softmax_backward(attention_scores s, attention_scores dp, const char *numbers, int key,
                                     float scale, const int k)
{
#pragma unroll
    for (int j = 2 * k; j < 2 * k + 2; j++) {
        const int column = (8 * j + (int)f2bi_lane() % 4 * 2) * 4;
        const float *lse = (const float *)(numbers + LSE + column);
        const float *delta = (const float *)(numbers + DELTA + column);
        const int *limit = (const int *)(numbers + LIMIT + column);
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const bool seen = key + e / 2 * 8 < limit[e % 2];
            const float p = f2bi_exp2(s[j][e] * scale - lse[e % 2] * ATT_LOG2_E);
            s[j][e] = seen ? p : 0;
            dp[j][e] = s[j][e] * (dp[j][e] - delta[e % 2]);
        }
    }
}

F2BI_ON_DEVICE void write_keys(T *gradient, const attention_view *w, const attention_tile *t,
                               const attention_sums sums, float factor, const int D)
{
    const int key_head = (int)(blockIdx.x % (unsigned)w->kv_heads);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = (int)(f2bi_warp() * 16 + f2bi_lane() / 4) + half * 8;
        if (row >= t->rows) continue;
        T *y = gradient + (t->first + row) * w->k_width + key_head * D + f2bi_lane() % 4 * 2;
#pragma unroll
        for (int j = 0; j < D / 8; j++)
            add_pair(y + 8 * j, factor * sums[j][2 * half], factor * sums[j][2 * half + 1], false);
    }
}

F2BI_ON_DEVICE void key_gradients(const attention_gradients *g, const attention_view *w, const int D)
{
    F2BI_DYNAMIC_SHARED(char, space);
    const unsigned k = f2bi_shared_base(), v = k + KEYS * 2 * D, steps = v + KEYS * 2 * D;
    attention_tile t;
    key_steps x;
    if (!f2bi_find_tile(w, blockIdx.x / (unsigned)w->kv_heads, KEYS, true, &t)) return;
    find_steps(&x, w, &t);
    const int count = x.left;
    if (count == 0) return;                 /* nobody sees these keys */
    const int64_t at = t.first * w->k_width + (int)(blockIdx.x % (unsigned)w->kv_heads) * D
                       + f2bi_part(w->k_width, D);
    f2bi_copy_tile(k, w->k + at, w->k_width, t.rows, KEYS, D);
    f2bi_copy_tile(v, w->v + at, w->k_width, t.rows, KEYS, D);
    copy_step(steps, &x, g, w, D);

    const unsigned my_k = f2bi_corner(k + f2bi_warp() * 16 * 2 * D, D), my_v = my_k + (v - k);
    const unsigned rows = f2bi_corner(steps, D), columns = f2bi_corner_of_columns(steps, D);
    const int key = t.at + (int)(f2bi_warp() * 16 + f2bi_lane() / 4);
    attention_sums dk[1], dv[1];
    f2bi_clear(dk, 1, D);
    f2bi_clear(dv, 1, D);
    unsigned now = 0;                       /* where this step's rows are: 0 or step_bytes */
    for (int i = 0; i < count; i++, now = step_bytes(D) - now) {
        attention_scores s[1], dp[1];
        f2bi_copy_wait();
        __syncthreads();                    /* this step's are there, the ones before are read */
        copy_step(steps + step_bytes(D) - now, &x, g, w, D);
        f2bi_multiply_tiles(s, my_k, columns + now, 1, K_ROWS, D);
        f2bi_multiply_tiles(dp, my_v, columns + now + K_ROWS * 2 * D, 1, K_ROWS, D);
        const char *numbers = space + (2 * KEYS + 2 * K_ROWS) * 2 * D + now;
#pragma unroll
        for (int k16 = 0; k16 < K_ROWS / 16; k16++) {
            softmax_backward(s[0], dp[0], numbers, key, w->scale_2, k16);
            f2bi_add_step(dv, s, rows + now + K_ROWS * 2 * D, k16, 1, D);
            f2bi_add_step(dk, dp, rows + now, k16, 1, D);
        }
    }
    if (g->dk != NULL) write_keys(g->dk, w, &t, dk[0], w->scale, D);
    if (g->dv != NULL) write_keys(g->dv, w, &t, dv[0], 1, D);
}

/* ---- Launches ---- */

#define KERNELS_OF(D)                                                                             \
    static __global__ void __launch_bounds__(ATT_THREADS, ATT_BLOCKS_##D)                         \
        query_gradient_##D(const attention_gradients g, const attention_view w)                   \
    {                                                                                             \
        query_gradient(&g, &w, D);                                                                \
    }                                                                                             \
    static __global__ void __launch_bounds__(ATT_THREADS, 2)                                      \
        key_gradients_##D(const attention_gradients g, const attention_view w)                    \
    {                                                                                             \
        key_gradients(&g, &w, D);                                                                 \
    }
KERNELS_OF(64)
KERNELS_OF(128)

#define LAUNCH(kernel, blocks, bytes)                                                             \
    do {                                                                                          \
        f2bi_allow_shared((const void *)kernel, (bytes));                                         \
        F2B_LAUNCH(kernel, (blocks), ATT_THREADS, (bytes), stream, *g, *w);                       \
    } while (0)

void f2bi_attention_tensor_backward(const attention_view *w, const attention_gradients *g,
                                    cudaStream_t stream)
{
    const int64_t lanes = w->Tq * w->heads * (w->D / WIDE);
    const unsigned queries = f2bi_most_tiles(w->Tq, w->n, ATT_ROWS) * (unsigned)w->heads;
    const unsigned keys = f2bi_most_tiles(w->Tk, w->n, KEYS) * (unsigned)w->kv_heads;
    const bool dq = g->dq != NULL, dkv = g->dk != NULL || g->dv != NULL;
    F2B_LAUNCH(row_products, (unsigned)((lanes + ATT_THREADS - 1) / ATT_THREADS), ATT_THREADS, 0, stream, *g,
               *w);
    if (dq && w->D == 64) LAUNCH(query_gradient_64, queries, query_bytes(64));
    if (dq && w->D == 128) LAUNCH(query_gradient_128, queries, query_bytes(128));
    if (dkv && w->D == 64) LAUNCH(key_gradients_64, keys, key_bytes(64));
    if (dkv && w->D == 128) LAUNCH(key_gradients_128, keys, key_bytes(128));
}
#endif
