/* Checks and descriptor of embedding; its kernel is that of rows. */
#include "autograd/ops/embedding/embedding.h"

#include "autograd/ops/checks.h"
#include "autograd/ops/rows/rows_internal.h"

static const f2b_op op_embedding = {
    .name = "embedding", .backward_reads_in = 1u << 1,
    .forward = { F2B_KERNELS(f2bi_rows_forward) },
    .backward = { F2B_KERNELS(f2bi_rows_backward) },
};

f2b_tensor *f2b_embedding(f2b_tape *tape, f2b_tensor *ids, f2b_tensor *table, f2b_dtype dtype)
{
    if (ids == NULL || table == NULL) return NULL;
    if (!f2bi_check_index("embedding", "ids", ids)
        || !f2bi_check_shape("embedding", "ids", ids, 1, (int64_t[]){ -1 })
        || !f2bi_check_parameter("embedding", "table", table)
        || !f2bi_check_shape("embedding", "table", table, 2, (int64_t[]){ -1, -1 }))
        return NULL;
    const f2bi_rows_attr attr = { .n_sources = 1, .stride = 1 };
    f2b_node *n = f2b_node_new(tape, &op_embedding, dtype, (f2b_tensor *[]){ table, ids }, 2, &attr,
                               sizeof attr);
    f2b_tensor *y = f2b_node_out(n, dtype, 2, (int64_t[]){ f2b_dim(ids, 0), f2b_dim(table, 1) });
    return f2b_node_run(n) == F2B_OK ? y : NULL;
}
