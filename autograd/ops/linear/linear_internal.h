/* What the constructor tells the kernels of linear. */
#ifndef F2B_AUTOGRAD_OPS_LINEAR_INTERNAL_H
#define F2B_AUTOGRAD_OPS_LINEAR_INTERNAL_H

#include "autograd/core/op.h"
#include "autograd/ops/linear/linear.h"

typedef struct linear_attr {
    int n;                      /* projections */
    double scale;
    bool has_dropout;
    f2b_dropout dropout;
} linear_attr;

/* Inputs of a node: x, then five slots a projection. */
enum { LINEAR_X = 0, LINEAR_WEIGHT = 1, LINEAR_BIAS = 2, LINEAR_A = 3, LINEAR_B = 4, LINEAR_RESIDUAL = 5,
       LINEAR_STEP = 5 };
/* Those of gated_linear: gate in x's place, the slots of one projection, up. */
enum { LINEAR_UP = 1 + LINEAR_STEP };
static inline int linear_slot(int projection, int what) { return projection * LINEAR_STEP + what; }

/* Of the LoRA of projection i, 0 where there is none; and of all together. */
static inline int64_t linear_rank(const f2b_node *n, int i)
{
    const f2b_tensor *a = n->in[linear_slot(i, LINEAR_A)];
    return a != NULL ? a->shape[0] : 0;
}
static inline int64_t linear_rank_sum(const f2b_node *n)
{
    int64_t R = 0;
    for (int i = 0; i < ((const linear_attr *)n->attr)->n; i++) R += linear_rank(n, i);
    return R;
}

/* Forward: products of all rows with each weight and each LoRA. Backward: those of the `back` rows whose
 * gradient is wanted, and the LoRAs' own gradients. (Trained weights count themselves.) */
static inline void linear_add_flops(f2b_node *n, bool forward, int64_t back)
{
    const double M = (double)f2b_rows(n->in[0]), I = (double)f2b_dim(n->in[0], -1), rows = (double)back;
    for (int i = 0; i < ((const linear_attr *)n->attr)->n; i++) {
        const double O = (double)f2b_dim(n->out[i], -1), r = (double)linear_rank(n, i);
        n->flops += forward ? 2 * M * (I * O + r * (I + O))
                            : 2 * rows * I * (O + r) + 2 * M * r * (2 * O + I);
    }
}

/* Parts [M,I] of gated_linear's room in backward, 0 or 1 of each; before the kernel takes a gradient. */
typedef struct gated_room {
    int64_t dropped, x, dx;
} gated_room;

static inline gated_room gated_room_of(const f2b_node *n)
{
    const uint32_t inputs = 1u << LINEAR_X | 1u << LINEAR_UP;
    const uint32_t reads_x = 1u << linear_slot(0, LINEAR_A) | 1u << linear_slot(0, LINEAR_WEIGHT);
    return (gated_room){ .dropped = ((const linear_attr *)n->attr)->has_dropout, .x = (n->wants & reads_x) != 0,
                         .dx = (n->wants & inputs) != 0 && (n->fresh & inputs) != inputs };
}

/* Bytes of gated_linear's own room, beside its products'. */
#define F2B_X(type)                                                                               \
    int64_t f2bi_gated_linear_room_##type(const f2b_node *n);                                     \
    int64_t f2bi_gated_linear_back_room_##type(const f2b_node *n);
F2B_X(f32) F2B_X(f64) F2B_X(bf16)
#undef F2B_X

#endif
