#ifndef F2B_AUTOGRAD_OPS_SILU_MUL_SILU_MUL_H
#define F2B_AUTOGRAD_OPS_SILU_MUL_SILU_MUL_H

#include "autograd/core/tape.h"

/**
 * SwiGLU's gate: y = gate * sigmoid(gate) * up, rounded once.
 *
 * gate, up  same shape and type (f32, f64, bf16; computes in f32 or f64); borrowed.
 * return    same shape and type; borrowed from the tape. NULL on error, or if an input is NULL.
 * errors    F2B_ERR_SHAPE, F2B_ERR_DTYPE if gate and up differ.
 * saves     nothing; backward reads gate and up.
 * source    transformers' LlamaMLP: act_fn(gate_proj(x)) * up_proj(x).
 */
f2b_tensor *f2b_silu_mul(f2b_tape *tape, f2b_tensor *gate, f2b_tensor *up);

#endif
