#ifndef F2B_AUTOGRAD_OPS_ATTENTION_H
#define F2B_AUTOGRAD_OPS_ATTENTION_H

#include "autograd/core/tape.h"

/**
 * Which rows belong together. Rows of q lie sequence after sequence; the keys of sequence s are the
 * k_count[s] rows of k from k_start[s] on (end to end in training, slots of a cache in generation).
 * Query row t sees the first limit[t] of its sequence's keys: position + 1 for causal attention,
 * all of them for bidirectional.
 *
 * Where sequences begin with the same rows, k has these once and `key_rows` says which row each key is:
 * k_start and k_count then count its entries, and k may have fewer rows than there are keys. A sequence's
 * first `shared` keys are rows 0, 1, ... of k, its others are one after another, not before those of the
 * sequence before it.
 *
 * All are i32 tensors on the tape's device, borrowed until backward.
 */
typedef struct f2b_attention_layout {
    f2b_tensor *q_start;        /* [n + 1], from 0 to the rows of q, not falling */
    f2b_tensor *k_start;        /* [n] */
    f2b_tensor *k_count;        /* [n] */
    f2b_tensor *limit;          /* [rows of q], each 1 <= limit <= k_count of its sequence */
    f2b_tensor *key_rows;       /* [keys] rows of k, or NULL: keys are the rows */
    int64_t shared;             /* with key_rows: keys at the start of each sequence that are in common */
    double pairs;               /* sum of limit, for the profile; 0: not counted */
} f2b_attention_layout;

/**
 * Multi-head attention over packed sequences, per query row t and head h:
 *
 *     o[t,h] = sum_j softmax_j(scale * q[t,h] . k[j,g]) v[j,g],   g = h / (heads / kv_heads)
 *
 * The scores of a batch never exist at once: the kernels hold one block of query rows of one head.
 *
 * q        [Tq, heads * head_dim];  k, v  [Tk, kv_heads * head_dim]: one type; borrowed.
 * head_dim divides both widths; kv_heads divides heads (grouped keys and values).
 * return   [Tq, heads * head_dim]; borrowed from the tape. NULL on error or if q, k or v is NULL.
 * errors   F2B_ERR_SHAPE, F2B_ERR_DTYPE; F2B_ERR_INVALID for a layout that leaves its rows.
 * saves    log of the softmax sums [heads, Tq]; reads q, k, v and the output in backward.
 * source   Dao et al. 2022, arXiv:2205.14135 (the backward from output and log sums).
 */
f2b_tensor *f2b_attention(f2b_tape *tape, f2b_tensor *q, f2b_tensor *k, f2b_tensor *v,
                          const f2b_attention_layout *layout, int64_t head_dim, double scale);

#endif
