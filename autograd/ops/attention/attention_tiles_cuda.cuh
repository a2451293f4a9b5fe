/*
 * Tiles of bf16 rows in shared memory, and products of them on tensor cores. A row has D = 64 or 128
 * columns, in chunks of 16 bytes; chunk c of row r lies where chunk c ^ (r % 8) would, so that the
 * eight rows that ldmatrix reads at once are in different banks. Tiles begin at multiples of 256.
 *
 * D, M and N are constants wherever these functions are called; loops over them are unrolled, and
 * accumulators are registers.
 */
#ifndef F2B_AUTOGRAD_OPS_ATTENTION_TILES_CUDA_CUH
#define F2B_AUTOGRAD_OPS_ATTENTION_TILES_CUDA_CUH

#include <math.h>

#include "autograd/device/cuda/tensor_core.cuh"
#include "autograd/ops/attention/attention_cuda.cuh"

enum {
    ATT_THREADS = 128, ATT_WARPS = 4,           /* of a block */
    ATT_M = 2, ATT_ROWS = ATT_WARPS * ATT_M * 16    /* query rows of a block, where it has those */
};

/* Blocks that are to fit a multiprocessor, where more registers a thread would cost one of them: with
 * heads of 64 three, but for shared memory of 100 KiB. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 890
enum { ATT_BLOCKS_64 = 2, ATT_BLOCKS_128 = 1 };
#else
enum { ATT_BLOCKS_64 = 3, ATT_BLOCKS_128 = 2 };
#endif

/* Accumulators of 16 rows: a float4 of m16n8k16's c for 8 columns of scores, and of the head's D. */
typedef float attention_scores[8][4];
typedef float attention_sums[ATT_CUDA_MAX_D / 8][4];

/* More shared memory than a kernel has without asking (48 KiB). */
static inline void f2bi_allow_shared(const void *kernel, int bytes)
{
    (void)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}

F2BI_ON_DEVICE unsigned f2bi_lane(void) { return threadIdx.x % F2BI_WARP; }
F2BI_ON_DEVICE unsigned f2bi_warp(void) { return threadIdx.x / F2BI_WARP; }

F2BI_ON_DEVICE void f2bi_clear(attention_sums *c, const int M, const int D)
{
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int j = 0; j < D / 8; j++) c[i][j][0] = c[i][j][1] = c[i][j][2] = c[i][j][3] = 0;
}

/* Where this thread's part of a tile begins in rows `width` apart: a chunk of every 8th or 16th row. */
F2BI_ON_DEVICE int64_t f2bi_part(int64_t width, const int D)
{
    return (int)threadIdx.x / (D / 8) * width + (int)threadIdx.x % (D / 8) * 8;
}

/* Begins the copy of `rows` rows to a tile, from this thread's part of the first on; of those up to
 * `size` that are not there, zeros. */
F2BI_ON_DEVICE void f2bi_copy_tile(unsigned tile, const T *part, int64_t width, int rows, const int size,
                                   const int D)
{
    const int step = ATT_THREADS / (D / 8), r = (int)threadIdx.x / (D / 8);
    const unsigned to = tile + (unsigned)(r * 2 * D + (((int)threadIdx.x % (D / 8) ^ r % 8) << 4));
#pragma unroll
    for (int i = 0; i < size / step; i++)
        f2bi_copy_async(to + (unsigned)(i * step * 2 * D), part + i * step * width, i * step < rows - r);
}

/* Where this lane reads a tile's 16 rows and columns from the upper left corner on: as a of a product
 * or, turned, as b, its rows being those of b; and as b, the tile's rows being columns of b. */
F2BI_ON_DEVICE unsigned f2bi_corner(unsigned tile, const int D)
{
    const unsigned row = f2bi_lane() % 16, chunk = f2bi_lane() / 16;
    return tile + row * 2 * D + ((chunk ^ row % 8) << 4);
}
F2BI_ON_DEVICE unsigned f2bi_corner_of_columns(unsigned tile, const int D)
{
    const unsigned row = f2bi_lane() % 8 + f2bi_lane() / 16 * 8, chunk = f2bi_lane() / 8 % 2;
    return tile + row * 2 * D + ((chunk ^ row % 8) << 4);
}
/* The same for the 16 rows and columns number (i, k). */
F2BI_ON_DEVICE unsigned f2bi_at(unsigned corner, int i, int k, const int D)
{
    return (corner ^ (unsigned)(k * 32)) + (unsigned)(i * 16 * 2 * D);
}

/* c [16 M, N] = x y^T over D: x rows of the tile whose corner is given, y those of columns. */
F2BI_ON_DEVICE void f2bi_multiply_tiles(attention_scores *c, unsigned x, unsigned y, const int M,
                                        const int N, const int D)
{
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int j = 0; j < N / 8; j++) c[i][j][0] = c[i][j][1] = c[i][j][2] = c[i][j][3] = 0;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        unsigned a[2][4], b[4];
#pragma unroll
        for (int i = 0; i < M; i++) f2bi_load_matrices(a[i], f2bi_at(x, i, k, D));
#pragma unroll
        for (int j = 0; j < N / 16; j++) {
            f2bi_load_matrices(b, f2bi_at(y, j, k, D));
#pragma unroll
            for (int i = 0; i < M; i++) {
                f2bi_mma(c[i][2 * j], a[i], b);
                f2bi_mma(c[i][2 * j + 1], a[i], b + 2);
            }
        }
    }
}

/* c [16 M, D] += p y for 16 of the N: p [16 M, N] rounded to bf16, of which columns 16 k to 16 k + 15,
 * and those rows of y [N, D], the tile at the corner. */
F2BI_ON_DEVICE void f2bi_add_step(attention_sums *c, const attention_scores *p, unsigned y, const int k,
                                  const int M, const int D)
{
    unsigned a[2][4], b[4];
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float *s = p[i][2 * k + half];
            a[i][2 * half] = f2bi_pair(s[0], s[1]), a[i][2 * half + 1] = f2bi_pair(s[2], s[3]);
        }
#pragma unroll
    for (int j = 0; j < D / 16; j++) {
        f2bi_load_matrices_turned(b, f2bi_at(y, k, j, D));
#pragma unroll
        for (int i = 0; i < M; i++) {
            f2bi_mma(c[i][2 * j], a[i], b);
            f2bi_mma(c[i][2 * j + 1], a[i], b + 2);
        }
    }
}

/* c [16 M, D] += p y, all of the N. */
F2BI_ON_DEVICE void f2bi_add_product(attention_sums *c, const attention_scores *p, unsigned y, const int M,
                                     const int N, const int D)
{
#pragma unroll
    for (int k = 0; k < N / 16; k++) f2bi_add_step(c, p, y, k, M, D);
}

/* ---- A block of ATT_ROWS query rows ---- */

static const float ATT_LOG2_E = 1.4426950408889634f, ATT_LN_2 = 0.6931471805599453f;

/* What the block knows of its rows. In shared memory, because registers are full of sums. */
typedef struct attention_block {
    attention_tile t;
    int h;                                                      /* query head */
    int limit[ATT_ROWS];                                        /* keys that a row sees */
    struct { int most, least; } warp[ATT_WARPS];                /* of its rows */
} attention_block;

/* A lane has 2 ATT_M rows: those of c[0] and c[1], then of c[2] and c[3], of each 16. */
F2BI_ON_DEVICE int f2bi_row(int number)
{
    return (int)(f2bi_warp() * 16 * ATT_M + f2bi_lane() / 4) + number * 8;
}

F2BI_ON_DEVICE int f2bi_warp_largest(int x)
{
    for (int step = F2BI_WARP / 2; step > 0; step /= 2) {
        const int other = __shfl_xor_sync(0xFFFFFFFFu, x, step);
        x = other > x ? other : x;
    }
    return x;
}

/* Finds the block's tile and the limits of its rows, thread i that of row i; a row that isn't there
 * sees nothing, and hides nothing. The largest number of keys that a row sees; -1: there is no tile. */
F2BI_ON_DEVICE int f2bi_begin_rows(attention_block *b, const attention_view *w, f2bi_fault fault)
{
    const int row = (int)threadIdx.x;
    attention_tile t;
    if (!f2bi_find_tile(w, blockIdx.x / (unsigned)w->heads, ATT_ROWS, false, &t)) return -1;
    const int limit = row < t.rows ? f2bi_visible(w, t.s, t.first + row) : 0;
    if (row < t.rows && limit == 0 && fault.word != NULL) f2bi_report(fault, t.s);
    const int most = f2bi_warp_largest(limit);
    const int least = -f2bi_warp_largest(row < t.rows ? -limit : -most);
    if (row == 0) b->t = t, b->h = (int)(blockIdx.x % (unsigned)w->heads);
    b->limit[row] = limit;
    if (f2bi_lane() == 0) b->warp[f2bi_warp()].most = most, b->warp[f2bi_warp()].least = least;
    __syncthreads();
    int all = 0;
    for (int i = 0; i < ATT_WARPS; i++) all = b->warp[i].most > all ? b->warp[i].most : all;
    return all;
}

/* Of the N keys from key j0 on: whether the warp's rows see any, and whether all see all. */
F2BI_ON_DEVICE bool f2bi_any_seen(const attention_block *b, int j0)
{
    return __any_sync(0xFFFFFFFFu, j0 < b->warp[f2bi_warp()].most);
}
F2BI_ON_DEVICE bool f2bi_all_seen(const attention_block *b, int j0, int N)
{
    return __all_sync(0xFFFFFFFFu, j0 + N <= b->warp[f2bi_warp()].least);
}

/* Scores of keys that a row doesn't see become -infinity. */
F2BI_ON_DEVICE void f2bi_hide(attention_scores *s, const attention_block *b, int j0, const int N)
{
    if (f2bi_all_seen(b, j0, N)) return;
#pragma unroll
    for (int n = 0; n < 2 * ATT_M; n++) {
        const int limit = b->limit[f2bi_row(n)] - j0 - (int)f2bi_lane() % 4 * 2;
#pragma unroll
        for (int j = 0; j < N / 8; j++)
#pragma unroll
            for (int e = 0; e < 2; e++)
                if (8 * j + e >= limit) s[n / 2][j][n % 2 * 2 + e] = -INFINITY;
    }
}

#endif
