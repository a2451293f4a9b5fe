/* What the constructor tells the kernels of attention. */
#ifndef F2B_AUTOGRAD_OPS_ATTENTION_INTERNAL_H
#define F2B_AUTOGRAD_OPS_ATTENTION_INTERNAL_H

#include "autograd/core/op.h"
#include "autograd/ops/attention/attention.h"

typedef struct attention_attr {
    int64_t head_dim;
    double scale;
    double flops;               /* of the two products of forward; backward has five */
} attention_attr;

static inline double attention_flops(const f2b_node *n) { return ((const attention_attr *)n->attr)->flops; }

enum { ATT_Q, ATT_K, ATT_V, ATT_Q_START, ATT_K_START, ATT_K_COUNT, ATT_LIMIT, ATT_INPUTS };

#endif
