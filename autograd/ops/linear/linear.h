#ifndef F2B_AUTOGRAD_OPS_LINEAR_H
#define F2B_AUTOGRAD_OPS_LINEAR_H

#include "autograd/core/tape.h"
#include "autograd/ops/dropout/dropout.h"

enum { F2B_MAX_PROJECTIONS = 3 };

/** One projection of a group: a weight, perhaps a bias, a LoRA pair (both or none), and what is added. */
typedef struct f2b_projection {
    f2b_tensor *weight;     /* [out, in]  any float type */
    f2b_tensor *bias;       /* [out]      or NULL */
    f2b_tensor *lora_a;     /* [r, in]    or NULL */
    f2b_tensor *lora_b;     /* [out, r] */
    f2b_tensor *residual;   /* [..., out] in x's type, or NULL */
} f2b_projection;

/**
 * Linear projections of the same rows, each with an optional LoRA:
 *
 *     y_i = x W_i^T + bias_i + scale * (dropout(x) A_i^T) B_i^T + residual_i
 *
 * The A_i of a group are applied as one skinny product, and one dropout mask serves the group.
 * A frozen weight gets no gradient and costs none. A residual is added by the product that makes y, and its
 * gradient is that of y, which the tape hands on (op.h).
 *
 * x        [..., in]  compute type; borrowed.
 * p        [n], n <= F2B_MAX_PROJECTIONS; weights may be stored in any float type, frozen ones
 *          as int8 or nf4 too; trained ones in the type of arithmetic (f32, or f64 with f64 rows).
 * scale    alpha / r of the LoRA (used where lora_a is given).
 * dropout  on the LoRA's input only, or NULL; its row keys are borrowed until backward.
 * out      [n] tensors [..., out_i] in x's type; borrowed from the tape.
 * errors   F2B_ERR_SHAPE, F2B_ERR_DTYPE naming the projection.
 * saves    dropout(x) A^T [rows, sum of r] (on the CPU times scale); reads x in backward only if a
 *          weight or an A is trained. Of x's gradient only the wanted rows are computed (tape.h).
 * source   LoRA: Hu et al. 2021, arXiv:2106.09685; peft tuners/lora/layer.py (but for the shared mask).
 */
f2b_status f2b_linear_group(f2b_tape *tape, f2b_tensor *x, const f2b_projection *p, int n,
                            double scale, const f2b_dropout *dropout, f2b_tensor **out) F2B_MUST_USE;

/**
 * One projection of x = silu(gate) * up, as f2b_silu_mul and f2b_linear_group of it would compute it: x is rounded
 * once. On the host x is never there as a whole: rows of it are made where they are multiplied, and again in backward
 * if a weight or an A is trained. (Another device runs the two ops.)
 *
 * gate, up  [..., in]  of one type; borrowed; backward reads both.
 * p         one projection from `in`, as above; scale, dropout (on x), errors and saves as above.
 * return    [..., out] in gate's type; borrowed from the tape. NULL on error, or if an input is NULL.
 * source    transformers' LlamaMLP: down_proj(act_fn(gate_proj(x)) * up_proj(x)).
 */
f2b_tensor *f2b_gated_linear(f2b_tape *tape, f2b_tensor *gate, f2b_tensor *up, const f2b_projection *p,
                             double scale, const f2b_dropout *dropout);

/** One projection without LoRA; bias may be NULL. NULL on error or if x is NULL. */
f2b_tensor *f2b_linear(f2b_tape *tape, f2b_tensor *x, f2b_tensor *weight, f2b_tensor *bias);

#endif
