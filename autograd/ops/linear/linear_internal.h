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

/* Inputs of a node: x, then four slots a projection. */
enum { LINEAR_X = 0, LINEAR_WEIGHT = 1, LINEAR_BIAS = 2, LINEAR_A = 3, LINEAR_B = 4, LINEAR_STEP = 4 };
static inline int linear_slot(int projection, int what) { return projection * LINEAR_STEP + what; }

#endif
