/*
 * The kernel behind rows_gather, rows_assemble and embedding: output row t is row r of source s.
 * Inputs of the node: the sources, then the index.
 */
#ifndef F2B_AUTOGRAD_OPS_ROWS_ROWS_INTERNAL_H
#define F2B_AUTOGRAD_OPS_ROWS_ROWS_INTERNAL_H

#include "autograd/core/op.h"

typedef struct f2bi_rows_attr {
    int n_sources;
    int stride;         /* 1: index[t] = r, the source is the only one; 2: index[2t] = s, then r */
} f2bi_rows_attr;

F2B_DECLARE_KERNELS(f2bi_rows_forward);
F2B_DECLARE_KERNELS(f2bi_rows_backward);

#endif
