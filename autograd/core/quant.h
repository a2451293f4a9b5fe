/*
 * Small weights: matrices of int8, nf4 or fp8 that stay as they are. They are made once from a float
 * matrix and decoded a few elements at a time, where a product reads them; fp8 is multiplied as it is
 * where a device can.
 *
 *   int8   a scale per row (output channel), its largest magnitude / 127; value = code * scale
 *   nf4    blocks of 64 elements in row-major order; value = book[code] * largest magnitude, the 16
 *          values of the book being quantiles of a normal distribution (QLoRA, arXiv 2305.14314). The
 *          magnitudes are quantised again ("double quantisation"): less their mean, in blocks of 256,
 *          8 bits of the dynamic type. 4.127 bits an element.
 *   fp8    e4m3 (e4m3.h) with a scale per row, its largest magnitude / 448; value = code * scale. And
 *          the same matrix turned, quantised again with a scale per column: devices multiply 8-bit
 *          floats only along the rows of both operands, and the gradient of a linear layer's input
 *          sums over the other side. 16 bits an element together.
 *
 * Codes, books and rounding are those of bitsandbytes (functional.py: quantize_4bit with
 * compress_statistics, quantize_blockwise, create_dynamic_map), so that a model behaves as under QLoRA.
 *
 * A quantised matrix is one block of memory without pointers, head first: it can be copied to another
 * device as it is. A tensor of type F2B_INT8, F2B_NF4 or F2B_FP8 has it as its data.
 */
#ifndef F2B_AUTOGRAD_CORE_QUANT_H
#define F2B_AUTOGRAD_CORE_QUANT_H

#include <stdbool.h>

#include "autograd/core/dtype.h"
#include "autograd/core/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { F2B_NF4_BLOCK = 64, F2B_NF4_GROUP = 256, F2B_QUANT_ALIGN = 64 };

/** Head of a quantised matrix; offsets in bytes from the head's own address. */
typedef struct f2b_quant {
    int64_t rows, cols;
    int64_t codes;              /* int8, e4m3 [rows*cols]; nf4: two a byte, the first in the high half */
    int64_t scales;             /* int8, fp8: f32 [rows]; nf4: u8 [blocks] */
    int64_t groups;             /* nf4: f32 [groups of blocks] */
    double mean;                /* nf4: what was taken off the magnitudes */
    int64_t turned_codes;       /* fp8: e4m3 [cols*rows] */
    int64_t turned_scales;      /* fp8: f32 [cols] */
} f2b_quant;

/** Bytes of a quantised matrix; -1 if that overflows. type: one of the quantised. */
int64_t f2b_quant_bytes(f2b_dtype type, int64_t rows, int64_t cols);

/** The head of a matrix of that shape (mean 0): where its parts lie, for who cannot read it there. */
f2b_quant f2b_quant_head(f2b_dtype type, int64_t rows, int64_t cols);

/** Whether fp8 can hold a matrix: both sides multiples of 16, as products of 8-bit floats want them,
 *  and at most F2B_FP8_LONGEST, which the kernels hold in registers. */
enum { F2B_FP8_LONGEST = 32768 };
#define F2B_FP8_LEAST 0x1p-100f         /* a row or column below this is taken for zeros */
bool f2b_fp8_takes(int64_t rows, int64_t cols);

/**
 * Quantise src [rows, cols] (any float type) into dst, f2b_quant_bytes(...) bytes aligned to
 * F2B_QUANT_ALIGN, on all threads; the same bits whatever their number.
 * errors  F2B_ERR_NUMBERS if an element is infinite or no number, naming its row
 *         F2B_ERR_MEMORY.
 */
f2b_status f2b_quantise(f2b_dtype type, int64_t rows, int64_t cols, const void *src,
                        f2b_dtype src_type, void *dst) F2B_MUST_USE;

/** out[i] = element first + i in row-major order, i < n. */
void f2b_quant_decode(f2b_dtype type, const void *quantised, int64_t first, int64_t n, float *out);

/** The 16 values of nf4, and the 256 of the dynamic 8-bit type, ascending. */
extern const float f2b_nf4_book[16];
void f2b_dynamic_book(float book[256]);

#ifdef __cplusplus
}
#endif
#endif
