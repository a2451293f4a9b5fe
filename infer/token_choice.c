/* See token_choice.h. */
#include "infer/token_choice.h"

#include <inttypes.h>

#include "autograd/device/device.h"

static bool is_used(const f2b_token_choice *c, int64_t i)
{
    const bool inside = c->to == 0 || (i >= c->from && i < c->to);
    return inside && !(i >= c->mask_from && i < c->mask_to);
}

static f2b_status check_slice(const char *what, int64_t from, int64_t to, int64_t K)
{
    if (from == 0 && to == 0) return F2B_OK;
    if (from < 0 || from >= to)
        return f2b_fail(F2B_ERR_USAGE, "the tokens to %s, %" PRId64 ":%" PRId64 ", are none", what,
                        from, to);
    if (to > K)
        return f2b_fail(F2B_ERR_USAGE,
                        "the tokens to %s, %" PRId64 ":%" PRId64 ", go beyond the model's %" PRId64
                        " (the end is not included)",
                        what, from, to, K);
    return F2B_OK;
}

f2b_status f2b_token_choice_count(const f2b_token_choice *c, int64_t K, int64_t *used)
{
    F2B_TRY(check_slice("use", c->from, c->to, K));
    F2B_TRY(check_slice("leave out", c->mask_from, c->mask_to, K));
    *used = 0;
    for (int64_t i = 0; i < K; i++) *used += is_used(c, i);
    if (*used == 0) return f2b_fail(F2B_ERR_USAGE, "every token that is used is left out too");
    return F2B_OK;
}

/* The chosen rows of each group of K: a leaf of the caller. */
static f2b_tensor *chosen_rows(const f2b_tensor *tokens, const f2b_token_choice *c, int64_t K,
                               int64_t used)
{
    const int64_t n = tokens->shape[0] / K, d = tokens->shape[1];
    f2b_tensor *out = f2b_tensor_new(tokens->device, tokens->dtype, 2,
                                     (int64_t[]){ n * used, d }, F2B_TAG_ACTIVATIONS);
    if (out == NULL) return NULL;
    const size_t row = (size_t)d * f2b_dtype_size(tokens->dtype);
    char *to = out->data;
    f2b_status status = F2B_OK;
    for (int64_t i = 0; i < n * K && status == F2B_OK; i++)
        if (is_used(c, i % K)) {
            status = f2b_copy(to, out->device, (const char *)tokens->data + (size_t)i * row,
                              tokens->device, row);
            to += row;
        }
    if (status == F2B_OK) return out;
    f2b_tensor_free(out);
    return NULL;
}

/* Row `at` of out = mean over n rows, in the type of `out`. Sums are f64; `rows` is on the host. */
static f2b_status mean_of(const f2b_tensor *rows, int64_t first, int64_t n, f2b_tensor *out,
                          int64_t at)
{
    const int64_t d = rows->shape[1];
    double *sum = f2b_calloc((size_t)(2 * d), sizeof *sum, F2B_TAG_SCRATCH);
    if (sum == NULL) return f2b_last_status();
    const size_t row = (size_t)d * f2b_dtype_size(rows->dtype);
    for (int64_t i = first; i < first + n; i++) {
        f2b_convert(sum + d, F2B_F64, (const char *)rows->data + (size_t)i * row, rows->dtype,
                    (size_t)d);
        for (int64_t j = 0; j < d; j++) sum[j] += sum[d + j];
    }
    for (int64_t j = 0; j < d; j++) sum[j] /= (double)n;
    const f2b_status status = f2b_tensor_write_as(out, at * d, sum, F2B_F64, d);
    f2b_free(sum);
    return status;
}

f2b_status f2b_compressed_choose(f2b_compressed *result, const f2b_token_choice *c,
                                 const f2b_method *method)
{
    int64_t used = 0;
    if (f2b_token_choice_is_all(c)) return F2B_OK;
    F2B_TRY(f2b_token_choice_count(c, method->tokens, &used));
    if (result->embeddings != NULL && method->forward == F2B_FORWARD_SINGLE)
        return f2b_fail(F2B_ERR_CONFIG, "method.forward single: what retrieval compares is not a "
                                        "mean of tokens, so that none can be left out");
    f2b_tensor *rows = chosen_rows(result->tokens, c, method->tokens, used);
    if (rows == NULL) return f2b_last_status();
    f2b_tensor_free(result->tokens);
    result->tokens = rows;
    if (result->embeddings == NULL) return F2B_OK;
    f2b_tensor *here = f2b_tensor_on_host(rows);
    f2b_status status = here != NULL ? F2B_OK : f2b_last_status();
    for (int64_t i = 0; i < rows->shape[0] / used && status == F2B_OK; i++)
        status = mean_of(here, i * used, used, result->embeddings, i);
    f2b_tensor_free(here);
    return status;
}
