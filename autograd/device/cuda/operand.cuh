/*
 * Matrix products of a node: a call of one line for matmul.h, and tensors of any stored type as
 * operands. cuBLASLt multiplies operands of one type, that of the node's rows (T); a tensor of another
 * type, int8 and nf4 included, is decoded into scratch before the product, a whole matrix at a time.
 * (fp8 need not be: fp8.cuh.)
 */
#ifndef F2B_AUTOGRAD_DEVICE_CUDA_OPERAND_CUH
#define F2B_AUTOGRAD_DEVICE_CUDA_OPERAND_CUH

#include <string.h>

#include "autograd/core/e4m3.h"
#include "autograd/core/quant.h"
#include "autograd/device/cuda/kernel.cuh"
#include "autograd/device/cuda/matmul.h"

/* ---- Stored weights to rows' type: a thread makes WIDE elements ---- */

/* Tensors that one launch converts, each by a row of the grid. */
enum { F2BI_PIECES = 6 };
typedef struct f2bi_pieces {        /* no padding: a kernel's argument */
    int64_t n;
    struct { const void *from; T *to; int64_t type, count; } of[F2BI_PIECES];
} f2bi_pieces;

static __global__ void f2bi_convert_to_rows(const f2bi_pieces pieces)
{
    const int64_t first = f2bi_first(), n = pieces.of[blockIdx.y].count;
    if (first >= n) return;
    real v[WIDE];
    f2bi_read_as(v, pieces.of[blockIdx.y].from, (f2b_dtype)pieces.of[blockIdx.y].type, first, n);
    f2bi_write(pieces.of[blockIdx.y].to, first, n, v);
}

static inline void f2bi_add_piece(f2bi_pieces *p, const f2b_tensor *x, T *to)
{
    p->of[p->n].from = x->data, p->of[p->n].to = to;
    p->of[p->n].type = x->dtype, p->of[p->n].count = f2b_numel(x);
    p->n++;
}

static inline void f2bi_convert_pieces(const f2b_node *n, const f2bi_pieces *p)
{
    int64_t most = 0;
    for (int i = 0; i < p->n; i++) most = p->of[i].count > most ? p->of[i].count : most;
    if (most == 0) return;
    F2B_LAUNCH(f2bi_convert_to_rows, dim3(f2bi_blocks(most), (unsigned)p->n), F2BI_BLOCK, 0,
               f2bi_stream(n), *p);
}

/* The grid of what has a scale a row, int8 and fp8: rows by parts of a row. */
static inline dim3 f2bi_row_grid(const f2b_tensor *x)
{
    return dim3((unsigned)x->shape[0], f2bi_blocks(x->shape[1]));
}
F2BI_ON_DEVICE int64_t f2bi_first_of_row(void)
{
    return ((int64_t)blockIdx.y * F2BI_BLOCK + threadIdx.x) * WIDE;
}

typedef struct __align__(WIDE) f2bi_bytes { unsigned char v[WIDE]; } f2bi_bytes;

/* WIDE bytes of a row of n in one access where that is possible, 0 from n on. */
F2BI_ON_DEVICE f2bi_bytes f2bi_read_bytes(const unsigned char *row, int64_t first, int64_t n)
{
    if (first + WIDE <= n && (uintptr_t)(row + first) % WIDE == 0)
        return *(const f2bi_bytes *)(row + first);
    f2bi_bytes b;
    for (int i = 0; i < WIDE; i++) b.v[i] = first + i < n ? row[first + i] : 0;
    return b;
}

static __global__ void f2bi_decode_rows(T *out, const unsigned char *codes, const float *scales,
                                        bool fp8, int64_t cols)
{
    const int64_t row = blockIdx.x, first = f2bi_first_of_row();
    if (first >= cols) return;
    const f2bi_bytes b = f2bi_read_bytes(codes + row * cols, first, cols);
    const real scale = scales[row];
    real v[WIDE];
    for (int i = 0; i < WIDE; i++)
        v[i] = scale * (fp8 ? f2b_e4m3_to_f32(b.v[i]) : (real)(signed char)b.v[i]);
    f2bi_write(out + row * cols, first, cols, v);
}

typedef struct f2bi_books { float dynamic[256], nf4[16]; } f2bi_books;

/* A thread's WIDE elements are of one block of nf4, and start with the high half of a byte. The scales
 * of the few nf4 blocks that a block of threads decodes are made once. */
static __global__ void f2bi_decode_nf4(T *out, const f2b_quant *q, int64_t n, const f2bi_books books)
{
    enum { HERE = WIDE * F2BI_BLOCK / F2B_NF4_BLOCK };
    __shared__ float scale[HERE], book[16];
    const int64_t blocks = (n + F2B_NF4_BLOCK - 1) / F2B_NF4_BLOCK, mine = (int64_t)blockIdx.x * HERE;
    const int t = (int)threadIdx.x;
    if (t < HERE && mine + t < blocks) {
        const unsigned char code = ((const unsigned char *)q + q->scales)[mine + t];
        const float *groups = (const float *)((const char *)q + q->groups);
        scale[t] = books.dynamic[code] * groups[(mine + t) / F2B_NF4_GROUP] + (real)q->mean;
    }
    if (t < 16) book[t] = books.nf4[t];
    __syncthreads();
    const int64_t first = f2bi_first();
    if (first >= n) return;
    const unsigned char *codes = (const unsigned char *)q + q->codes + first / 2;
    const real factor = scale[t * WIDE / F2B_NF4_BLOCK];
    real v[WIDE];
    if (first + WIDE <= n) {
        unsigned pairs = 0;             /* the codes are aligned, and WIDE / 2 of them are 4 or 2 bytes */
        if (WIDE == 8) pairs = *(const unsigned *)codes;
        else pairs = *(const unsigned short *)codes;
        for (int i = 0; i < WIDE; i++) v[i] = book[pairs >> (i / 2 * 8 + (i % 2 ? 0 : 4)) & 15] * factor;
    } else {
        for (int i = 0; i < WIDE; i++) {
            const unsigned pair = first + i < n ? codes[i / 2] : 0;
            v[i] = book[i % 2 ? pair & 15 : pair >> 4] * factor;
        }
    }
    f2bi_write(out, first, n, v);
}

/** out [numel of x] = x, as rows are typed. */
static inline void f2bi_decode(const f2b_node *n, const f2b_tensor *x, T *out)
{
    const int64_t count = f2b_numel(x);
    const cudaStream_t stream = f2bi_stream(n);
    if (count == 0) return;
    if (x->dtype == F2B_INT8 || x->dtype == F2B_FP8) {
        const f2b_quant q = f2b_quant_head(x->dtype, x->shape[0], x->shape[1]);
        const char *base = (const char *)x->data;
        F2B_LAUNCH(f2bi_decode_rows, f2bi_row_grid(x), F2BI_BLOCK, 0, stream, out,
                   (const unsigned char *)base + q.codes, (const float *)(base + q.scales),
                   x->dtype == F2B_FP8, q.cols);
    } else if (x->dtype == F2B_NF4) {
        f2bi_books books;
        f2b_dynamic_book(books.dynamic);
        memcpy(books.nf4, f2b_nf4_book, sizeof books.nf4);
        F2B_LAUNCH(f2bi_decode_nf4, f2bi_blocks(count), F2BI_BLOCK, 0, stream, out,
                   (const f2b_quant *)x->data, count, books);
    } else {
        f2bi_pieces one;
        memset(&one, 0, sizeof one);
        f2bi_add_piece(&one, x, out);
        f2bi_convert_pieces(n, &one);
    }
}

/** x as an operand: its own memory where its type allows that, else *scratch, which the caller frees
 *  after the product (NULL where there is none). NULL if there is no memory. */
static inline const T *f2bi_operand(const f2b_node *n, const f2b_tensor *x, void **scratch)
{
    *scratch = NULL;
    if (x->dtype == F2B_KERNEL_DTYPE) return (const T *)x->data;
    *scratch = f2bi_scratch(n, (size_t)(f2b_numel(x) + 1) * sizeof(T));
    if (*scratch != NULL) f2bi_decode(n, x, (T *)*scratch);
    return (const T *)*scratch;
}

/* ---- Products ---- */

/** A matrix that is multiplied: as it lies, ld elements from a row to the next, or turned. */
typedef struct f2bi_matrix {
    const void *data;
    f2b_dtype type;
    int64_t ld;
    bool turned;
} f2bi_matrix;

static inline f2bi_matrix f2bi_plain(const T *data, int64_t ld)
{
    const f2bi_matrix m = { data, F2B_KERNEL_DTYPE, ld, false };
    return m;
}
static inline f2bi_matrix f2bi_turned(const T *data, int64_t ld)
{
    const f2bi_matrix m = { data, F2B_KERNEL_DTYPE, ld, true };
    return m;
}

static inline f2bi_matmul f2bi_call(int64_t M, int64_t N, int64_t K, f2bi_matrix a, f2bi_matrix b,
                                    double alpha, double beta, void *c, f2b_dtype c_type, int64_t ldc)
{
    f2bi_matmul m;
    memset(&m, 0, sizeof m);
    m.M = M, m.N = N, m.K = K, m.type = a.type;
    m.a = a.data, m.lda = a.ld, m.a_transposed = a.turned;
    m.b = b.data, m.ldb = b.ld, m.b_transposed = b.turned;
    m.c = c, m.ldc = ldc, m.c_type = c_type;
    m.alpha = (float)alpha, m.beta = (float)beta;
    return m;
}

/** C [M,N] of c_type = alpha * a [M,K] * b [K,N] + beta * C; both of one type. */
static inline f2b_status f2bi_product(const f2b_node *n, int64_t M, int64_t N, int64_t K,
                                      f2bi_matrix a, f2bi_matrix b, double alpha, double beta, void *c,
                                      f2b_dtype c_type, int64_t ldc)
{
    const f2bi_matmul m = f2bi_call(M, N, K, a, b, alpha, beta, c, c_type, ldc);
    return f2bi_cuda_matmul(f2b_tape_device(n->tape).index, &m);
}

/** C [M,N] = alpha * a [M,K] * b [K,N] + beta * from + bias; all of rows' type. from NULL: C; bias [N] or NULL. */
static inline f2b_status f2bi_full_product(const f2b_node *n, int64_t M, int64_t N, int64_t K,
                                           f2bi_matrix a, f2bi_matrix b, double alpha, double beta,
                                           const T *from, T *c, const T *bias)
{
    f2bi_matmul m = f2bi_call(M, N, K, a, b, alpha, beta, c, F2B_KERNEL_DTYPE, N);
    m.from = from, m.bias = bias;
    return f2bi_cuda_matmul(f2b_tape_device(n->tape).index, &m);
}

#endif
