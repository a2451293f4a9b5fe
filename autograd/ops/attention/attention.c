/* Checks and descriptor of attention. */
#include "autograd/ops/attention/attention_internal.h"
#include "autograd/ops/rows/rows.h"

F2B_DECLARE_KERNELS(f2bi_attention_forward);
F2B_DECLARE_KERNELS(f2bi_attention_backward);

static const f2b_op op_attention = {
    .name = "attention", .backward_reads_in = (1u << ATT_INPUTS) - 1, .backward_reads_out = 1,
    .forward = { F2B_KERNELS(f2bi_attention_forward) },
    .backward = { F2B_KERNELS(f2bi_attention_backward) },
};

static f2b_status check_shapes(const f2b_tensor *q, const f2b_tensor *k, const f2b_tensor *v,
                               int64_t head_dim)
{
    if (q->ndim != 2 || k->ndim != 2 || !f2b_same_shape(k, v) || head_dim < 1 ||
        q->shape[1] % head_dim != 0 || k->shape[1] % head_dim != 0 || k->shape[1] == 0 ||
        q->shape[1] % k->shape[1] != 0)
        return f2b_fail(F2B_ERR_SHAPE, "attention: q %s, k %s and v %s do not fit heads of %lld",
                        f2b_tensor_describe(q), f2b_tensor_describe(k), f2b_tensor_describe(v),
                        (long long)head_dim);
    if (q->dtype != k->dtype || q->dtype != v->dtype)
        return f2b_fail(F2B_ERR_DTYPE, "attention: q %s, k %s and v %s differ in type",
                        f2b_tensor_describe(q), f2b_tensor_describe(k), f2b_tensor_describe(v));
    return F2B_OK;
}

/* Rows that sequences share are those before all others; the others ascend, each sequence's in one piece. */
static f2b_status check_key_rows(const f2b_attention_layout *l, int64_t Tk)
{
    const int32_t *row = l->key_rows->data, *ks = l->k_start->data, *kc = l->k_count->data;
    const int64_t n = f2b_numel(l->k_start), keys = f2b_numel(l->key_rows);
    int64_t next = l->shared;
    for (int64_t s = 0; s < n; s++) {
        bool good = ks[s] >= 0 && kc[s] >= l->shared && (int64_t)ks[s] + kc[s] <= keys;
        for (int64_t j = 0; good && j < kc[s]; j++) {
            const int64_t at = row[ks[s] + j];
            good = j < l->shared ? at == j : j == l->shared ? at >= next && at < Tk : at == next && at < Tk;
            if (j >= l->shared) next = at + 1;
        }
        if (!good)
            return f2b_fail(F2B_ERR_INVALID, "attention: key_rows of sequence %lld are not %lld shared rows "
                            "and then rows of its own", (long long)s, (long long)l->shared);
    }
    return l->shared <= Tk ? F2B_OK : f2b_fail(F2B_ERR_INVALID, "attention: more shared keys than rows");
}

/* The layout decides which memory the kernels touch. */
static f2b_status check_layout(const f2b_attention_layout *l, int64_t Tq, int64_t Tk)
{
    if (l->key_rows != NULL) {
        if (l->key_rows->dtype != F2B_I32 || l->shared < 0)
            return f2b_fail(F2B_ERR_SHAPE, "attention: key_rows is %s with %lld shared, not i32",
                            f2b_tensor_describe(l->key_rows), (long long)l->shared);
    }
    const f2b_tensor *all[] = { l->q_start, l->k_start, l->k_count, l->limit };
    const int64_t n = f2b_numel(l->k_start);
    const int64_t sizes[] = { n + 1, n, n, Tq };
    for (int i = 0; i < 4; i++)
        if (all[i]->dtype != F2B_I32 || f2b_numel(all[i]) != sizes[i])
            return f2b_fail(F2B_ERR_SHAPE, "attention: layout tensor %d is %s, not [%lld] i32", i,
                            f2b_tensor_describe(all[i]), (long long)sizes[i]);
    if (l->limit->device.kind != F2B_CPU) return F2B_OK;
    if (l->key_rows != NULL) {
        F2B_TRY(check_key_rows(l, Tk));
        Tk = f2b_numel(l->key_rows);
    }
    const int32_t *qs = l->q_start->data, *ks = l->k_start->data, *kc = l->k_count->data;
    const int32_t *limit = l->limit->data;
    bool good = qs[0] == 0 && qs[n] == Tq;
    for (int64_t s = 0; s < n && good; s++) {
        good = qs[s] <= qs[s + 1] && ks[s] >= 0 && kc[s] >= 0 && (int64_t)ks[s] + kc[s] <= Tk;
        for (int64_t t = qs[s]; t < qs[s + 1] && good; t++)
            good = limit[t] >= 1 && limit[t] <= kc[s];
        if (!good)
            return f2b_fail(F2B_ERR_INVALID, "attention: sequence %lld of the layout leaves its rows",
                            (long long)s);
    }
    return good ? F2B_OK : f2b_fail(F2B_ERR_INVALID, "attention: q_start does not cover q");
}

/* Counted here where nobody has, and the host can read the layout. */
static double flops_of(const f2b_tensor *q, const f2b_attention_layout *l)
{
    double pairs = l->pairs;
    for (int64_t t = 0; l->pairs == 0 && l->limit->device.kind == F2B_CPU && t < q->shape[0]; t++)
        pairs += ((const int32_t *)l->limit->data)[t];
    return 4.0 * pairs * (double)q->shape[1];
}

f2b_tensor *f2b_attention(f2b_tape *tape, f2b_tensor *q, f2b_tensor *k, f2b_tensor *v,
                          const f2b_attention_layout *layout, int64_t head_dim, double scale)
{
    if (q == NULL || k == NULL || v == NULL) return NULL;
    if (check_shapes(q, k, v, head_dim) != F2B_OK ||
        check_layout(layout, q->shape[0], k->shape[0]) != F2B_OK)
        return NULL;
    f2b_tensor *key_rows = layout->key_rows;
    if (key_rows != NULL && k->device.kind != F2B_CPU) {    /* kernels of devices take keys as they lie */
        k = f2b_rows_gather(tape, k, key_rows);
        v = f2b_rows_gather(tape, v, key_rows);
        if (k == NULL || v == NULL) return NULL;
        key_rows = NULL;
    }
    const attention_attr attr = { .head_dim = head_dim, .shared = key_rows != NULL ? layout->shared : 0,
                                  .scale = scale, .flops = flops_of(q, layout) };
    f2b_tensor *in[ATT_INPUTS] = { q, k, v, layout->q_start, layout->k_start, layout->k_count,
                                   layout->limit, key_rows };
    f2b_node *n = f2b_node_new(tape, &op_attention, q->dtype, in, ATT_INPUTS, &attr, sizeof attr);
    f2b_tensor *o = f2b_node_out(n, q->dtype, 2, q->shape);
    return f2b_node_run(n) == F2B_OK ? o : NULL;
}
