/*
 * Reading operands of the GEMM while they are packed: the one place that knows how an operand is
 * stored. A line is a run of an operand's memory along its contiguous side (a row of W [out, in]).
 * A new kind of storage is a case here and in no other place.
 */
#ifndef F2B_AUTOGRAD_DEVICE_CPU_GEMM_OPERAND_H
#define F2B_AUTOGRAD_DEVICE_CPU_GEMM_OPERAND_H

#include "autograd/core/dtype.h"
#include "autograd/core/quant.h"
#include "autograd/device/cpu/gemm_internal.h"

typedef struct f2bi_operand {
    const void *data;
    f2b_dtype type;
    int64_t stride;                 /* elements from line to line */
} f2bi_operand;

/* Elements [at, at + n) of a small weight. */
static inline const elem *f2bi_operand_decoded(const f2bi_operand *o, int64_t at, int64_t n,
                                               elem *restrict space)
{
#if defined(F2B_KERNEL_F32)
    f2b_quant_decode(o->type, o->data, at, n, space);
#else
    enum { PART = 128 };
    float part[PART];
    for (int64_t i = 0; i < n; i += PART) {
        const int64_t m = n - i < PART ? n - i : PART;
        f2b_quant_decode(o->type, o->data, at + i, m, part);
#if defined(F2B_KERNEL_BF16)
        for (int64_t j = 0; j < m; j++) space[i + j] = f2b_f32_to_bf16(part[j]);
#else
        for (int64_t j = 0; j < m; j++) space[i + j] = (elem)part[j];
#endif
    }
#endif
    return space;
}

/* Elements [first, first + n) of a line as the type of packed operands: where they lie if they are
 * stored so, else converted into `space` [n]. */
static inline const elem *f2bi_operand_line(const f2bi_operand *o, int64_t line, int64_t first,
                                            int64_t n, elem *restrict space)
{
    const int64_t at = line * o->stride + first;
    if (o->type == F2B_ELEM_DTYPE) return (const elem *)o->data + at;
    if (f2b_dtype_is_quantised(o->type)) return f2bi_operand_decoded(o, at, n, space);
#if defined(F2B_KERNEL_BF16)
    if (o->type == F2B_F32) {       /* the common case, in a loop that vectorises */
        const float *x = (const float *)o->data + at;
        for (int64_t i = 0; i < n; i++) space[i] = f2b_f32_to_bf16(x[i]);
        return space;
    }
#endif
    f2b_convert(space, F2B_ELEM_DTYPE, (const char *)o->data + (size_t)at * f2b_dtype_size(o->type),
                o->type, (size_t)n);
    return space;
}

/** The operands of a term. B's lines run along n where b_col is 1, along k where b_row is. */
static inline f2bi_operand f2bi_operand_a(const f2b_gemm_term *t)
{
    F2B_CHECK(t->a_col == 1 || t->a_row == 1);
    return (f2bi_operand){ t->a, t->a_type, t->a_col == 1 ? t->a_row : t->a_col };
}

static inline f2bi_operand f2bi_operand_b(const f2b_gemm_term *t)
{
    F2B_CHECK(t->b_col == 1 || t->b_row == 1);
    return (f2bi_operand){ t->b, t->b_type, t->b_col == 1 ? t->b_row : t->b_col };
}

#endif
