/*
 * Products of 8-bit floats: a frozen weight stored as fp8 (core/quant.h) by rows that are made e4m3 for
 * the time of the product, with a scale per row. Gradients are e4m3 too: with a scale per row its range
 * of 2^17 below the row's largest loses nothing that a sum would show, and its rounding is half that of
 * e5m2 (docs/cuda.md has the figures).
 */
#ifndef F2B_AUTOGRAD_DEVICE_CUDA_FP8_CUH
#define F2B_AUTOGRAD_DEVICE_CUDA_FP8_CUH

#include <cuda_fp8.h>
#include <float.h>
#include <math.h>

#include "autograd/device/cuda/operand.cuh"

/** Whether products with the weight run in 8-bit floats: it is stored so, and rows are bf16. */
static inline bool f2bi_fp8_is_multiplied(const f2b_tensor *weight)
{
    return weight->dtype == F2B_FP8 && F2B_KERNEL_DTYPE == F2B_BF16;
}

/* ---- Rows ---- */

/* The factor that takes numbers up to `most` to e4m3, and the one that takes them back, as
 * core/quant_fp8.c has them; both 0 below any use. What is not finite counts as infinity: it becomes NaN,
 * and so does the scale. */
F2BI_ON_DEVICE real f2bi_fp8_size(real x) { return fabsf(x) <= FLT_MAX ? fabsf(x) : INFINITY; }
F2BI_ON_DEVICE real f2bi_fp8_inverse(real most)
{
    return most >= F2B_FP8_LEAST ? F2B_E4M3_MAX / most : 0;
}
F2BI_ON_DEVICE real f2bi_fp8_scale(real most)
{
    if (most > FLT_MAX) return NAN;
    return most >= F2B_FP8_LEAST ? most / F2B_E4M3_MAX : 0;
}

/* Packs of WIDE elements that a thread holds, so that a row is read once. */
enum { F2BI_HELD = 32 / WIDE, F2BI_HELD_THREADS = F2B_FP8_LONGEST / 32 };

typedef struct __align__(WIDE) f2bi_codes { __nv_fp8x2_storage_t v[WIDE / 2]; } f2bi_codes;

/* A block a row of x [rows, D], of any float type. D is a multiple of 16, codes are aligned to 16. */
static __global__ void __launch_bounds__(F2BI_HELD_THREADS)
f2bi_fp8_from_rows(unsigned char *codes, float *scales, const void *x, f2b_dtype type, int64_t D)
{
    const int64_t row = blockIdx.x;
    const char *from = (const char *)x + row * D * (type == F2B_F32 ? 4 : 2);
    real v[F2BI_HELD][WIDE], most = 0;
#pragma unroll
    for (int p = 0; p < F2BI_HELD; p++) {
        const int64_t first = ((int64_t)p * blockDim.x + threadIdx.x) * WIDE;
        if (first < D) {
            f2bi_read_as(v[p], from, type, first, D);
            for (int i = 0; i < WIDE; i++) most = fmaxf(most, f2bi_fp8_size(v[p][i]));
        }
    }
    most = f2bi_block_most(most);
    const real inverse = f2bi_fp8_inverse(most);
    if (threadIdx.x == 0) scales[row] = f2bi_fp8_scale(most);
#pragma unroll
    for (int p = 0; p < F2BI_HELD; p++) {
        const int64_t first = ((int64_t)p * blockDim.x + threadIdx.x) * WIDE;
        if (first < D) {
            f2bi_codes c;
            for (int i = 0; i < WIDE; i += 2)
                c.v[i / 2] = __nv_cvt_float2_to_fp8x2(
                    make_float2(v[p][i] * inverse, v[p][i + 1] * inverse), __NV_SATFINITE, __NV_E4M3);
            *(f2bi_codes *)(codes + row * D + first) = c;
        }
    }
}

static inline void f2bi_fp8_launch(cudaStream_t stream, unsigned char *codes, float *scales,
                                   const void *x, f2b_dtype type, int64_t rows, int64_t D)
{
    const unsigned threads = (unsigned)((D + 32 * F2BI_WARP - 1) / (32 * F2BI_WARP)) * F2BI_WARP;
    F2B_LAUNCH(f2bi_fp8_from_rows, (unsigned)rows, threads, 0, stream, codes, scales, x, type, D);
}

/** Rows as e4m3, in one block of scratch; free codes after the product. */
typedef struct f2bi_fp8_rows {
    unsigned char *codes;           /* [M,D] */
    float *scales;                  /* [M] */
} f2bi_fp8_rows;

static inline f2b_status f2bi_fp8_rows_of(const f2b_node *n, const T *x, int64_t M, int64_t D,
                                          f2bi_fp8_rows *rows)
{
    rows->codes = (unsigned char *)f2bi_scratch(n, (size_t)(M * D) + (size_t)M * sizeof(float));
    if (rows->codes == NULL) return F2B_ERR_MEMORY;
    rows->scales = (float *)(rows->codes + M * D);      /* D is a multiple of 16 */
    f2bi_fp8_launch(f2bi_stream(n), rows->codes, rows->scales, x, F2B_KERNEL_DTYPE, M, D);
    return F2B_OK;
}

/* ---- Products ---- */

static inline f2bi_matmul f2bi_fp8_call(const f2bi_fp8_rows *rows, int64_t M, int64_t N, int64_t K,
                                        const char *codes, const char *scales, double beta, T *c)
{
    f2bi_matmul m;
    memset(&m, 0, sizeof m);
    m.M = M, m.N = N, m.K = K, m.type = F2B_FP8;
    m.a = rows->codes, m.lda = K, m.a_scales = rows->scales;
    m.b = codes, m.ldb = K, m.b_transposed = true, m.b_scales = (const float *)scales;
    m.c = c, m.ldc = N, m.c_type = F2B_KERNEL_DTYPE;
    m.alpha = 1, m.beta = (float)beta;
    return m;
}

/** y [M,O] = x W^T + beta from + bias; x [M,I], W [O,I]; of rows' type: from, NULL is y, and bias, or NULL. */
static inline f2b_status f2bi_fp8_forward(const f2b_node *n, T *y, const f2bi_fp8_rows *x,
                                          const f2b_tensor *w, double beta, const T *from, const T *bias,
                                          int64_t M)
{
    const f2b_quant q = f2b_quant_head(F2B_FP8, w->shape[0], w->shape[1]);
    const char *base = (const char *)w->data;
    f2bi_matmul m = f2bi_fp8_call(x, M, q.rows, q.cols, base + q.codes, base + q.scales, beta, y);
    m.from = from, m.bias = bias, m.fast = true;
    return f2bi_cuda_matmul(f2b_tape_device(n->tape).index, &m);
}

/** dx [M,I] = dy W + beta dx; dy [M,O], W [O,I], of which the turned copy is read. */
static inline f2b_status f2bi_fp8_backward(const f2b_node *n, T *dx, const f2bi_fp8_rows *dy,
                                           const f2b_tensor *w, double beta, int64_t M)
{
    const f2b_quant q = f2b_quant_head(F2B_FP8, w->shape[0], w->shape[1]);
    const char *base = (const char *)w->data;
    const f2bi_matmul m = f2bi_fp8_call(dy, M, q.cols, q.rows, base + q.turned_codes,
                                        base + q.turned_scales, beta, dx);
    return f2bi_cuda_matmul(f2b_tape_device(n->tape).index, &m);
}

#endif
