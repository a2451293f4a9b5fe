/* How many rows' logits exist at a time on the CPU: for the kernels, and for what the plan counts. */
#ifndef F2B_AUTOGRAD_OPS_HEAD_CROSS_ENTROPY_HEAD_CROSS_ENTROPY_INTERNAL_H
#define F2B_AUTOGRAD_OPS_HEAD_CROSS_ENTROPY_HEAD_CROSS_ENTROPY_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

/**
 * Rows of a chunk of R rows with V logits of `size` bytes; at least one. It changes no value. Chunks are alike in
 * size; fewer rows a chunk pack the head more often, unless it is packed once (docs/benchmarks.md has both).
 */
static inline int64_t f2bi_head_chunk(int64_t R, int64_t V, int64_t size, bool packed)
{
    enum { FEWEST = 16 };
    const int64_t bytes = (int64_t)(packed ? 32 : 64) << 20, fit = bytes / size / (V > 0 ? V : 1);
    const int64_t most = fit > FEWEST ? fit : FEWEST, chunks = (R + most - 1) / most;
    return chunks > 0 ? (R + chunks - 1) / chunks : 1;
}

#endif
