/*
 * Matrix products of a node: a call of one line for matmul.h, and tensors of any stored type as
 * operands. cuBLASLt multiplies operands of one type, that of the node's rows (T); a tensor of another
 * type, int8 and nf4 included, is decoded into scratch before the product, a whole matrix at a time.
 */
#ifndef F2B_AUTOGRAD_DEVICE_CUDA_OPERAND_CUH
#define F2B_AUTOGRAD_DEVICE_CUDA_OPERAND_CUH

#include <string.h>

#include "autograd/core/quant.h"
#include "autograd/device/cuda/kernel.cuh"
#include "autograd/device/cuda/matmul.h"

/* ---- Operands ---- */

static __global__ void f2bi_convert_to_rows(T *out, const void *x, f2b_dtype type, int64_t n)
{
    const int64_t first = f2bi_first();
    if (first >= n) return;
    real v[WIDE];
    for (int i = 0; i < WIDE; i++) v[i] = first + i < n ? f2bi_get(x, type, first + i) : 0;
    f2bi_write(out, first, n, v);
}

static __global__ void f2bi_decode_int8(T *out, const f2b_quant *q, int64_t n)
{
    const int64_t first = f2bi_first();
    if (first >= n) return;
    const signed char *codes = (const signed char *)q + q->codes;
    const float *scales = (const float *)((const char *)q + q->scales);
    int64_t row = first / q->cols, col = first % q->cols;
    real v[WIDE] = { 0 };
    for (int i = 0; i < WIDE && first + i < n; i++) {
        v[i] = (real)codes[first + i] * scales[row];
        if (++col == q->cols) col = 0, row++;
    }
    f2bi_write(out, first, n, v);
}

typedef struct f2bi_books { float dynamic[256], nf4[16]; } f2bi_books;

/* A thread's WIDE elements are of one block, and start with the high half of a byte. */
static __global__ void f2bi_decode_nf4(T *out, const f2b_quant *q, int64_t n, const f2bi_books books)
{
    __shared__ float dynamic[256], book[16];
    for (int i = (int)threadIdx.x; i < 256; i += F2BI_BLOCK) dynamic[i] = books.dynamic[i];
    if (threadIdx.x < 16) book[threadIdx.x] = books.nf4[threadIdx.x];
    __syncthreads();
    const int64_t first = f2bi_first(), block = first / F2B_NF4_BLOCK;
    if (first >= n) return;
    const unsigned char *codes = (const unsigned char *)q + q->codes;
    const unsigned char *scales = (const unsigned char *)q + q->scales;
    const float *groups = (const float *)((const char *)q + q->groups);
    const real scale = dynamic[scales[block]] * groups[block / F2B_NF4_GROUP] + (real)q->mean;
    real v[WIDE] = { 0 };
    for (int i = 0; i < WIDE && first + i < n; i++) {
        const unsigned pair = codes[(first + i) / 2];
        v[i] = book[i % 2 ? pair & 15 : pair >> 4] * scale;
    }
    f2bi_write(out, first, n, v);
}

/** out [numel of x] = x, as rows are typed. */
static inline void f2bi_decode(const f2b_node *n, const f2b_tensor *x, T *out)
{
    const int64_t count = f2b_numel(x);
    const unsigned blocks = f2bi_blocks(count);
    const cudaStream_t stream = f2bi_stream(n);
    if (count == 0) return;
    if (x->dtype == F2B_INT8) {
        F2B_LAUNCH(f2bi_decode_int8, blocks, F2BI_BLOCK, 0, stream, out, (const f2b_quant *)x->data,
                   count);
    } else if (x->dtype == F2B_NF4) {
        f2bi_books books;
        f2b_dynamic_book(books.dynamic);
        memcpy(books.nf4, f2b_nf4_book, sizeof books.nf4);
        F2B_LAUNCH(f2bi_decode_nf4, blocks, F2BI_BLOCK, 0, stream, out, (const f2b_quant *)x->data,
                   count, books);
    } else {
        F2B_LAUNCH(f2bi_convert_to_rows, blocks, F2BI_BLOCK, 0, stream, out, (const void *)x->data,
                   x->dtype, count);
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

/** C [M,N] of c_type = alpha * a [M,K] * b [K,N] + beta * C; both of one type. */
static inline f2b_status f2bi_product(const f2b_node *n, int64_t M, int64_t N, int64_t K,
                                      f2bi_matrix a, f2bi_matrix b, double alpha, double beta, void *c,
                                      f2b_dtype c_type, int64_t ldc)
{
    f2bi_matmul m;
    memset(&m, 0, sizeof m);
    m.M = M, m.N = N, m.K = K, m.type = a.type;
    m.a = a.data, m.lda = a.ld, m.a_transposed = a.turned;
    m.b = b.data, m.ldb = b.ld, m.b_transposed = b.turned;
    m.c = c, m.ldc = ldc, m.c_type = c_type;
    m.alpha = (float)alpha, m.beta = (float)beta;
    return f2bi_cuda_matmul(f2b_tape_device(n->tape).index, &m);
}

#endif
