/*
 * CPU kernels of rows_gather, rows_assemble and embedding. Backward goes by source row: a counting
 * sort lists the uses of each, and their gradients are added in order of use, in f32 or f64.
 */
#include "autograd/device/cpu/row_math.h"
#include "autograd/ops/rows/rows_internal.h"

f2b_kernel KERNEL(f2bi_rows_forward), KERNEL(f2bi_rows_backward);

static inline int64_t source_of(const f2bi_rows_attr *a, const int32_t *index, int64_t t)
{
    return a->stride == 1 ? 0 : index[2 * t];
}

static inline int64_t row_of(const f2bi_rows_attr *a, const int32_t *index, int64_t t)
{
    return index[a->stride * t + a->stride - 1];
}

static f2b_status check(const f2b_node *n, const int32_t *index, int64_t count)
{
    const f2bi_rows_attr *a = n->attr;
    for (int64_t t = 0; t < count; t++) {
        const int64_t s = source_of(a, index, t), r = row_of(a, index, t);
        if (s < 0 || s >= a->n_sources)
            return f2b_fail(F2B_ERR_DATA, "%s: row %lld comes from source %lld, but there are %d",
                            n->op->name, (long long)t, (long long)s, a->n_sources);
        if (r < 0 || r >= f2b_dim(n->in[s], 0))
            return f2b_fail(F2B_ERR_DATA, "%s: entry %lld is %lld, outside [0, %lld)", n->op->name,
                            (long long)t, (long long)r, (long long)f2b_dim(n->in[s], 0));
    }
    return F2B_OK;
}

/* y[c] = row of any float type, through a block of the compute type. */
static void copy_row(T *y, const f2b_tensor *x, int64_t row, int64_t D)
{
    if (x->dtype == F2B_KERNEL_DTYPE) {
        memcpy(y, (const T *)x->data + row * D, (size_t)D * sizeof(T));
        return;
    }
    real block[F2BI_COLUMN_BLOCK];
    for (int64_t c = 0; c < D; c += F2BI_COLUMN_BLOCK) {
        const int64_t m = D - c < F2BI_COLUMN_BLOCK ? D - c : F2BI_COLUMN_BLOCK;
        f2bi_read_row(block, x->data, x->dtype, row * D + c, m);
        for (int64_t i = 0; i < m; i++) STORE(y[c + i], block[i]);
    }
}

f2b_status KERNEL(f2bi_rows_forward)(f2b_node *n)
{
    const f2bi_rows_attr *a = n->attr;
    const int32_t *index = n->in[n->n_in - 1]->data;
    const int64_t count = f2b_dim(n->out[0], 0), D = f2b_dim(n->out[0], 1);
    F2B_TRY(check(n, index, count));
    T *y = n->out[0]->data;
#pragma omp parallel for schedule(static) if (count * D > F2BI_PARALLEL_FROM)
    for (int64_t t = 0; t < count; t++)
        copy_row(y + t * D, n->in[source_of(a, index, t)], row_of(a, index, t), D);
    return F2B_OK;
}

/* uses[starts[r] .. starts[r + 1]) are the output rows made from row r of source s, ascending. */
static void list_uses(const f2bi_rows_attr *a, const int32_t *index, int64_t count, int64_t s,
                      int64_t R, int64_t *starts, int64_t *uses)
{
    memset(starts, 0, (size_t)(R + 2) * sizeof *starts);
    int64_t *next = starts + 1;     /* while filling, next[r] is where row r's next use goes */
    for (int64_t t = 0; t < count; t++)
        if (source_of(a, index, t) == s) next[row_of(a, index, t) + 1]++;
    for (int64_t r = 0; r < R; r++) next[r + 1] += next[r];
    for (int64_t t = 0; t < count; t++)
        if (source_of(a, index, t) == s) uses[next[row_of(a, index, t)]++] = t;
}

/* dx[row, :] (+)= sum of dy over the row's uses. */
static void add_uses(const f2b_tensor *x, int64_t row, int64_t D, bool fresh, const T *dy,
                     const int64_t *uses, int64_t n_uses)
{
    real sum[F2BI_COLUMN_BLOCK];
    for (int64_t c = 0; c < D; c += F2BI_COLUMN_BLOCK) {
        const int64_t m = D - c < F2BI_COLUMN_BLOCK ? D - c : F2BI_COLUMN_BLOCK;
        if (fresh) memset(sum, 0, sizeof sum);
        else f2bi_read_row(sum, x->grad, x->dtype, row * D + c, m);
        for (int64_t u = 0; u < n_uses; u++)
            for (int64_t i = 0; i < m; i++) sum[i] += LOAD(dy[uses[u] * D + c + i]);
        f2bi_write_row(x->grad, x->dtype, row * D + c, m, sum);
    }
}

f2b_status KERNEL(f2bi_rows_backward)(f2b_node *n)
{
    const f2bi_rows_attr *a = n->attr;
    const int32_t *index = n->in[n->n_in - 1]->data;
    const int64_t count = f2b_dim(n->out[0], 0), D = f2b_dim(n->out[0], 1);
    const T *dy = n->out[0]->grad;
    int64_t most = 0;
    for (int s = 0; s < a->n_sources; s++)
        if (f2b_dim(n->in[s], 0) > most) most = f2b_dim(n->in[s], 0);
    int64_t *starts = f2b_alloc_host((size_t)(most + 2 + count) * sizeof *starts, F2B_TAG_SCRATCH);
    if (starts == NULL) return F2B_ERR_MEMORY;
    int64_t *uses = starts + most + 2;
    for (int s = 0; s < a->n_sources; s++) {
        bool fresh;
        if (f2b_node_grad(n, s, &fresh) == NULL) continue;
        const int64_t R = f2b_dim(n->in[s], 0);
        list_uses(a, index, count, s, R, starts, uses);
#pragma omp parallel for schedule(static) if (count * D > F2BI_PARALLEL_FROM)
        for (int64_t r = 0; r < R; r++)
            if (fresh || starts[r + 1] > starts[r])
                add_uses(n->in[s], r, D, fresh, dy, uses + starts[r], starts[r + 1] - starts[r]);
    }
    f2b_free(starts);
    return F2B_OK;
}
