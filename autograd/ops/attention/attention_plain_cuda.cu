/*
 * CUDA kernels of attention in plain f32 arithmetic, any head_dim up to MAX_D: what every card runs,
 * and the twin that the kernels for tensor cores are compared with. Scores are held a tile at a time.
 * PARTS threads share a row of a tile.
 */
#include <math.h>

#include "autograd/ops/attention/attention_cuda.cuh"

enum {
    MAX_D = ATT_CUDA_MAX_D, THREADS = 128,
    TILE = 32, PARTS = THREADS / TILE,                  /* forward: rows of q and of k in a tile */
    TILE_BACK = 16, PARTS_BACK = THREADS / TILE_BACK    /* backward, which holds four tiles */
};

/* ---- Tiles in shared memory: rows of D + 1, so that rows lie in different banks ---- */

F2BI_ON_DEVICE void load_tile(real *to, const T *from, int64_t width, int rows, int size, int D)
{
    for (int e = (int)threadIdx.x; e < size * D; e += THREADS) {
        const int r = e / D, c = e % D;
        to[r * (D + 1) + c] = r < rows ? LOAD(from[r * width + c]) : 0;
    }
}

F2BI_ON_DEVICE real dot(const real *a, const real *b, int D)
{
    real sum = 0;
    for (int c = 0; c < D; c++) sum += a[c] * b[c];
    return sum;
}

/* Over the `parts` neighbours that share a row. */
F2BI_ON_DEVICE real sum_of_parts(real x, int parts)
{
    for (int step = parts / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, step);
    return x;
}
F2BI_ON_DEVICE real most_of_parts(real x, int parts)
{
    for (int step = parts / 2; step > 0; step /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, step));
    return x;
}

F2BI_ON_DEVICE int largest(const int *x, int n)
{
    int most = 0;
    for (int i = 0; i < n; i++) most = x[i] > most ? x[i] : most;
    return most;
}

/* ---- Forward: softmax as keys come, the sum so far shrunk when a larger score does ---- */

static inline size_t forward_bytes(int D)
{
    return (size_t)(2 * TILE * (D + 1) + TILE * (TILE + 1)) * sizeof(real);
}

static __global__ void forward(T *o, real *lse, const attention_view w, f2bi_fault fault)
{
    F2BI_DYNAMIC_SHARED(real, space);
    __shared__ int limits[TILE];
    const int D = w.D, pitch = D + 1, i = (int)threadIdx.x / PARTS, part = (int)threadIdx.x % PARTS;
    real *q = space, *kv = q + TILE * pitch, *p = kv + TILE * pitch + i * (TILE + 1);
    const int64_t h = blockIdx.y;
    attention_tile t;
    if (blockIdx.x == 0 && h == 0) f2bi_check_layout(&w, fault);
    if (!f2bi_find_tile(&w, blockIdx.x, TILE, false, &t)) return;

    const int limit = i < t.rows ? f2bi_visible(&w, t.s, t.first + i) : 0;
    if (part == 0) limits[i] = limit;
    if (part == 0 && i < t.rows && limit == 0) f2bi_report(fault, t.s);
    load_tile(q, w.q + t.first * w.q_width + h * D, w.q_width, t.rows, TILE, D);
    __syncthreads();
    const int most = largest(limits, TILE);
    const int64_t first = w.k_start[t.s] * w.k_width + h / (w.heads / w.kv_heads) * D;
    real sums[MAX_D / PARTS] = { 0 }, top = -INFINITY, sum = 0;
    for (int j0 = 0; j0 < most; j0 += TILE) {
        const int keys = most - j0 < TILE ? most - j0 : TILE;
        load_tile(kv, w.k + first + j0 * w.k_width, w.k_width, keys, TILE, D);
        __syncthreads();
        real s[TILE / PARTS], best = top, added = 0;
        for (int k = 0; k < TILE / PARTS; k++) {
            const int j = part + PARTS * k;
            s[k] = j0 + j < limit ? w.scale * dot(q + i * pitch, kv + j * pitch, D) : -INFINITY;
            best = fmaxf(best, s[k]);
        }
        best = most_of_parts(best, PARTS);
        const real shrink = top == -INFINITY ? 0 : expf(top - best);
        for (int k = 0; k < TILE / PARTS; k++) {
            const int j = part + PARTS * k;
            p[j] = j0 + j < limit ? expf(s[k] - best) : 0;
            added += p[j];
        }
        sum = sum * shrink + sum_of_parts(added, PARTS);
        top = best;
        __syncthreads();                    /* keys are read, p is written */
        load_tile(kv, w.v + first + j0 * w.k_width, w.k_width, keys, TILE, D);
        __syncthreads();
        for (int k = 0; k < MAX_D / PARTS; k++) {
            const int c = part + PARTS * k;
            if (c >= D) break;
            sums[k] *= shrink;
            for (int j = 0; j < keys; j++) sums[k] += p[j] * kv[j * pitch + c];
        }
        __syncthreads();                    /* before the next keys */
    }
    if (i >= t.rows) return;
    T *row = o + (t.first + i) * w.q_width + h * D;
    for (int k = 0; k < MAX_D / PARTS; k++) {
        const int c = part + PARTS * k;
        if (c < D) STORE(row[c], limit > 0 ? sums[k] / sum : 0);
    }
    if (lse != NULL && part == 0) lse[h * w.Tq + t.first + i] = limit > 0 ? top + logf(sum) : 0;
}

void KERNEL(f2bi_attention_plain_forward)(const attention_view *w, T *o, real *lse, f2bi_fault fault,
                                          cudaStream_t stream)
{
    const dim3 grid(f2bi_most_tiles(w->Tq, w->n, TILE), (unsigned)w->heads);
    F2B_LAUNCH(forward, grid, THREADS, forward_bytes(w->D), stream, o, lse, *w, fault);
}

/* ---- Backward ---- */

/* A warp for a row and head. */
static __global__ void sum_rows(const attention_gradients g, const attention_view w)
{
    const int64_t at = (int64_t)blockIdx.x * (THREADS / F2BI_WARP) + threadIdx.x / F2BI_WARP;
    const int64_t t = at / w.heads, h = at % w.heads;
    real sum = 0;
    for (int c = (int)threadIdx.x % F2BI_WARP; t < w.Tq && c < w.D; c += F2BI_WARP)
        sum += LOAD(g.o[t * w.q_width + h * w.D + c]) * LOAD(g.d_o[t * w.q_width + h * w.D + c]);
    sum = f2bi_warp_sum(sum);
    if (t < w.Tq && threadIdx.x % F2BI_WARP == 0) g.delta[h * w.Tq + t] = sum;
}

/* Four tiles and the two square ones of P and dS, and the numbers of query rows. */
static inline size_t backward_bytes(int D)
{
    return (size_t)(4 * TILE_BACK * (D + 1) + 2 * TILE_BACK * (TILE_BACK + 1)) * sizeof(real);
}
typedef struct back_space {
    real *q, *d_o, *k, *v, *p, *ds;
    int pitch;
} back_space;
F2BI_ON_DEVICE back_space space_at(real *x, int D)
{
    back_space s;
    s.pitch = D + 1;
    s.q = x, s.d_o = s.q + TILE_BACK * s.pitch, s.k = s.d_o + TILE_BACK * s.pitch;
    s.v = s.k + TILE_BACK * s.pitch, s.p = s.v + TILE_BACK * s.pitch;
    s.ds = s.p + TILE_BACK * (TILE_BACK + 1);
    return s;
}

/* P and dS of query row i of the tile by all keys of it, which begin at key j0 of the sequence. */
F2BI_ON_DEVICE void softmax_backward(const back_space *x, const attention_view *w, int i, int part, int j0,
                                     int limit, real lse, real delta)
{
    for (int j = part; j < TILE_BACK; j += PARTS_BACK) {
        real p = 0, ds = 0;
        if (j0 + j < limit) {
            p = expf(w->scale * dot(x->q + i * x->pitch, x->k + j * x->pitch, w->D) - lse);
            ds = p * (dot(x->d_o + i * x->pitch, x->v + j * x->pitch, w->D) - delta);
        }
        x->p[i * (TILE_BACK + 1) + j] = p;
        x->ds[i * (TILE_BACK + 1) + j] = ds;
    }
}

static __global__ void query_gradient(const attention_gradients g, const attention_view w)
{
    F2BI_DYNAMIC_SHARED(real, space);
    __shared__ int limits[TILE_BACK];
    const int D = w.D, i = (int)threadIdx.x / PARTS_BACK, part = (int)threadIdx.x % PARTS_BACK;
    const back_space x = space_at(space, D);
    const int64_t h = blockIdx.y;
    attention_tile t;
    if (!f2bi_find_tile(&w, blockIdx.x, TILE_BACK, false, &t)) return;

    const int limit = i < t.rows ? f2bi_visible(&w, t.s, t.first + i) : 0;
    const real lse = i < t.rows ? g.lse[h * w.Tq + t.first + i] : 0;
    const real delta = i < t.rows ? g.delta[h * w.Tq + t.first + i] : 0;
    const int64_t at = t.first * w.q_width + h * D;
    if (part == 0) limits[i] = limit;
    load_tile(x.q, w.q + at, w.q_width, t.rows, TILE_BACK, D);
    load_tile(x.d_o, g.d_o + at, w.q_width, t.rows, TILE_BACK, D);
    __syncthreads();
    const int most = largest(limits, TILE_BACK);
    const int64_t first = w.k_start[t.s] * w.k_width + h / (w.heads / w.kv_heads) * D;
    real sums[MAX_D / PARTS_BACK] = { 0 };
    for (int j0 = 0; j0 < most; j0 += TILE_BACK) {
        const int keys = most - j0 < TILE_BACK ? most - j0 : TILE_BACK;
        load_tile(x.k, w.k + first + j0 * w.k_width, w.k_width, keys, TILE_BACK, D);
        load_tile(x.v, w.v + first + j0 * w.k_width, w.k_width, keys, TILE_BACK, D);
        __syncthreads();
        softmax_backward(&x, &w, i, part, j0, limit, lse, delta);
        __syncthreads();
        for (int k = 0; k < MAX_D / PARTS_BACK; k++) {
            const int c = part + PARTS_BACK * k;
            if (c >= D) break;
            for (int j = 0; j < keys; j++)
                sums[k] += x.ds[i * (TILE_BACK + 1) + j] * x.k[j * x.pitch + c];
        }
        __syncthreads();                    /* before the next keys */
    }
    T *row = g.dq + at + i * w.q_width;
    for (int k = 0; k < MAX_D / PARTS_BACK && i < t.rows; k++) {
        const int c = part + PARTS_BACK * k;
        if (c < D) STORE(row[c], (g.fresh_q ? 0 : LOAD(row[c])) + w.scale * sums[k]);
    }
}

/* Adds to a row of dk or dv what its threads have summed. */
F2BI_ON_DEVICE void add_row(T *row, const real *sums, real factor, int part, int D)
{
    for (int k = 0; k < MAX_D / PARTS_BACK; k++) {
        const int c = part + PARTS_BACK * k;
        if (c < D) STORE(row[c], LOAD(row[c]) + factor * sums[k]);
    }
}

/* Row j of the tile is a key here; the query heads of its group come one after the other. */
static __global__ void key_gradients(const attention_gradients g, const attention_view w)
{
    F2BI_DYNAMIC_SHARED(real, space);
    __shared__ int limits[TILE_BACK];
    const int D = w.D, j = (int)threadIdx.x / PARTS_BACK, part = (int)threadIdx.x % PARTS_BACK;
    const back_space x = space_at(space, D);
    const int64_t group = w.heads / w.kv_heads, key_head = blockIdx.y;
    attention_tile t;
    if (!f2bi_find_tile(&w, blockIdx.x, TILE_BACK, true, &t)) return;

    const int64_t at = t.first * w.k_width + key_head * D, from = w.q_start[t.s], to = w.q_start[t.s + 1];
    load_tile(x.k, w.k + at, w.k_width, t.rows, TILE_BACK, D);
    load_tile(x.v, w.v + at, w.k_width, t.rows, TILE_BACK, D);
    real dk[MAX_D / PARTS_BACK] = { 0 }, dv[MAX_D / PARTS_BACK] = { 0 };
    for (int64_t h = key_head * group; h < (key_head + 1) * group; h++)
        for (int64_t t0 = from; t0 < to; t0 += TILE_BACK) {
            const int rows = to - t0 < TILE_BACK ? (int)(to - t0) : TILE_BACK;
            const int limit = j < rows ? f2bi_visible(&w, t.s, t0 + j) : 0;
            __syncthreads();                /* the tile before is read */
            if (part == 0) limits[j] = limit;
            __syncthreads();
            if (largest(limits, TILE_BACK) <= t.at) continue;       /* none sees these keys */
            load_tile(x.q, w.q + t0 * w.q_width + h * D, w.q_width, rows, TILE_BACK, D);
            load_tile(x.d_o, g.d_o + t0 * w.q_width + h * D, w.q_width, rows, TILE_BACK, D);
            __syncthreads();
            softmax_backward(&x, &w, j, part, t.at, limit, j < rows ? g.lse[h * w.Tq + t0 + j] : 0,
                             j < rows ? g.delta[h * w.Tq + t0 + j] : 0);
            __syncthreads();
            for (int k = 0; k < MAX_D / PARTS_BACK; k++) {
                const int c = part + PARTS_BACK * k;
                if (c >= D) break;
                for (int i = 0; i < rows; i++) {
                    dv[k] += x.p[i * (TILE_BACK + 1) + j] * x.d_o[i * x.pitch + c];
                    dk[k] += x.ds[i * (TILE_BACK + 1) + j] * x.q[i * x.pitch + c];
                }
            }
        }
    if (j >= t.rows) return;
    if (g.dk != NULL) add_row(g.dk + at + j * w.k_width, dk, w.scale, part, D);
    if (g.dv != NULL) add_row(g.dv + at + j * w.k_width, dv, 1, part, D);
}

void KERNEL(f2bi_attention_plain_backward)(const attention_view *w, const attention_gradients *g,
                                           cudaStream_t stream)
{
    const int64_t warps = THREADS / F2BI_WARP;
    F2B_LAUNCH(sum_rows, (unsigned)((w->Tq * w->heads + warps - 1) / warps), THREADS, 0, stream, *g, *w);
    const dim3 queries(f2bi_most_tiles(w->Tq, w->n, TILE_BACK), (unsigned)w->heads);
    const dim3 keys(f2bi_most_tiles(w->Tk, w->n, TILE_BACK), (unsigned)w->kv_heads);
    if (g->dq != NULL)
        F2B_LAUNCH(query_gradient, queries, THREADS, backward_bytes(w->D), stream, *g, *w);
    if (g->dk != NULL || g->dv != NULL)
        F2B_LAUNCH(key_gradients, keys, THREADS, backward_bytes(w->D), stream, *g, *w);
}
