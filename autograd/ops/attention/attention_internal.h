/* What the constructor tells the kernels of attention. */
#ifndef F2B_AUTOGRAD_OPS_ATTENTION_INTERNAL_H
#define F2B_AUTOGRAD_OPS_ATTENTION_INTERNAL_H

#include "autograd/core/op.h"
#include "autograd/ops/attention/attention.h"

typedef struct attention_attr {
    int64_t head_dim, shared;
    double scale;
    double flops;               /* of the two products of forward; backward has five */
} attention_attr;

static inline double attention_flops(const f2b_node *n) { return ((const attention_attr *)n->attr)->flops; }

/* Bytes of work space that the CPU's kernels of a type take for this node. */
#define F2BI_ATTENTION_SPACE(type)                                                                \
    int64_t f2bi_attention_forward_space_##type(const f2b_node *n);                               \
    int64_t f2bi_attention_backward_space_##type(const f2b_node *n)
F2BI_ATTENTION_SPACE(f32);
F2BI_ATTENTION_SPACE(f64);
F2BI_ATTENTION_SPACE(bf16);

enum { ATT_Q, ATT_K, ATT_V, ATT_Q_START, ATT_K_START, ATT_K_COUNT, ATT_LIMIT, ATT_KEY_ROWS, ATT_INPUTS };

#endif
