/* Checks and descriptors of gathering and assembling rows. */
#include "autograd/ops/rows/rows.h"

#include "autograd/ops/checks.h"
#include "autograd/ops/rows/rows_internal.h"

static const f2b_op op_gather = {
    .name = "rows_gather", .backward_reads_in = 1u << 1,
    .forward = { F2B_KERNELS(f2bi_rows_forward) },
    .backward = { F2B_KERNELS(f2bi_rows_backward) },
};

/* The index is always the last input, so that one bit names it for any number of sources. */
static const f2b_op op_assemble = {
    .name = "rows_assemble", .backward_reads_in = 1u << F2B_ROWS_MAX_SOURCES,
    .forward = { F2B_KERNELS(f2bi_rows_forward) },
    .backward = { F2B_KERNELS(f2bi_rows_backward) },
};

f2b_tensor *f2b_rows_gather(f2b_tape *tape, f2b_tensor *x, f2b_tensor *index)
{
    if (x == NULL || index == NULL) return NULL;
    if (!f2bi_check_activation("rows_gather", "x", x)
        || !f2bi_check_shape("rows_gather", "x", x, 2, (int64_t[]){ -1, -1 })
        || !f2bi_check_index("rows_gather", "index", index)
        || !f2bi_check_shape("rows_gather", "index", index, 1, (int64_t[]){ -1 }))
        return NULL;
    const f2bi_rows_attr attr = { .n_sources = 1, .stride = 1 };
    f2b_node *n = f2b_node_new(tape, &op_gather, x->dtype, (f2b_tensor *[]){ x, index }, 2, &attr,
                               sizeof attr);
    f2b_tensor *y = f2b_node_out(n, x->dtype, 2, (int64_t[]){ f2b_dim(index, 0), f2b_dim(x, 1) });
    return f2b_node_run(n) == F2B_OK ? y : NULL;
}

f2b_tensor *f2b_rows_assemble(f2b_tape *tape, f2b_dtype dtype, f2b_tensor *const *sources,
                              int n_sources, f2b_tensor *from)
{
    F2B_RETURN_NULL_IF(n_sources < 1 || n_sources > F2B_ROWS_MAX_SOURCES, F2B_ERR_INVALID,
                       "rows_assemble: %d sources, but 1 to %d are possible", n_sources,
                       F2B_ROWS_MAX_SOURCES);
    if (from == NULL) return NULL;
    f2b_tensor *in[F2B_MAX_IN] = { 0 };
    for (int s = 0; s < n_sources; s++) {
        if (sources[s] == NULL) return NULL;
        const int64_t shape[] = { -1, sources[0]->ndim > 1 ? sources[0]->shape[1] : -1 };
        if (!f2bi_check_parameter("rows_assemble", "a source", sources[s])
            || !f2bi_check_shape("rows_assemble", "a source", sources[s], 2, shape))
            return NULL;
        in[s] = sources[s];
    }
    if (!f2bi_check_index("rows_assemble", "from", from)
        || !f2bi_check_shape("rows_assemble", "from", from, 2, (int64_t[]){ -1, 2 }))
        return NULL;
    in[F2B_ROWS_MAX_SOURCES] = from;
    const f2bi_rows_attr attr = { .n_sources = n_sources, .stride = 2 };
    f2b_node *n = f2b_node_new(tape, &op_assemble, dtype, in, F2B_MAX_IN, &attr, sizeof attr);
    f2b_tensor *y = f2b_node_out(n, dtype, 2,
                                 (int64_t[]){ f2b_dim(from, 0), f2b_dim(sources[0], 1) });
    return f2b_node_run(n) == F2B_OK ? y : NULL;
}
