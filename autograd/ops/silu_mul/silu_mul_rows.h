/* SwiGLU's gate, a stretch of elements at a time: for the CPU kernels of silu_mul and of ops that do it on the way.
 * Compiled as kernels are (kernel.h). An element's bits do not depend on its place in a stretch. */
#ifndef F2B_AUTOGRAD_OPS_SILU_MUL_ROWS_H
#define F2B_AUTOGRAD_OPS_SILU_MUL_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#include "autograd/device/cpu/kernel.h"

/* y = silu(gate) * up, n elements, y apart from both. */
void KERNEL(f2bi_silu_row)(int64_t n, const T *gate, const T *up, T *y);

/* What backward of a stretch reads and writes. */
typedef struct f2bi_silu_slopes {
    const T *gate, *up;
    T *dg, *du;                     /* NULL where not wanted */
    bool fresh_gate, fresh_up;      /* to write, else to add to */
    T *y;                           /* what forward wrote, for those who read it in backward; or NULL */
} f2bi_silu_slopes;

/* Backward of elements [at, at + n). dy may be dg where both gradients are wanted and fresh. */
void KERNEL(f2bi_silu_back)(const f2bi_silu_slopes *s, const T *dy, int64_t at, int64_t n);

#endif
