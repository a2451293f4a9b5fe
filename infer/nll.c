/* Likelihood of plain text. See nll.h for the contract. */
#include "infer/nll.h"

#include <inttypes.h>
#include <math.h>

#include "autograd/core/alloc.h"
#include "autograd/ops/linear/linear.h"
#include "autograd/ops/rows/rows.h"
#include "nn/passes.h"

enum { BLOCK = 128 }; /* rows whose logits are there at a time */

static int64_t chunk_ids(const f2b_model *model)
{
    const int64_t n = model->config.text.max_positions - 1;
    return n > 0 ? n : 1;
}

int64_t f2b_nll_rows(const f2b_model *model, int64_t n)
{
    const int64_t size = chunk_ids(model);
    return n + (n + size - 1) / size;
}

typedef struct nll_run {
    const f2b_model *model;
    f2b_tape *tape;
    f2b_status (*logits)(void *context, const float *values, int64_t rows);
    void *context;
    double sum;
} nll_run;

/* -log softmax(z)[label], summed in f64. */
static double loss_of(const float *z, int64_t V, int32_t label)
{
    float top = z[0];
    for (int64_t v = 1; v < V; v++) top = z[v] > top ? z[v] : top;
    double sum = 0;
    for (int64_t v = 0; v < V; v++) sum += exp((double)z[v] - (double)top);
    return log(sum) + (double)top - (double)z[label];
}

/* Rows [first, first + rows) of the hidden states: logits out, losses added. ids [n] are the
 * chunk's, start token first: row r predicts ids[r + 1]. */
static f2b_status block(nll_run *r, f2b_tensor *hidden, const int32_t *ids, int64_t n,
                        int64_t first, int64_t rows)
{
    const int64_t V = r->model->config.text.vocab;
    int32_t at[BLOCK];
    for (int64_t i = 0; i < rows; i++) at[i] = (int32_t)(first + i);
    const f2b_mark mark = f2b_tape_mark(r->tape);
    f2b_tensor *index = f2b_tape_tensor_from(r->tape, F2B_I32, 1, &rows, at);
    f2b_tensor *x = f2b_rows_gather(r->tape, hidden, index);
    f2b_tensor *z = f2b_linear(r->tape, x, r->model->llama->head, NULL);
    if (z == NULL) return f2b_last_status();
    f2b_tensor *here = f2b_tensor_on_host(z);
    float *values = here != NULL
                        ? f2b_alloc_host((size_t)(rows * V) * sizeof *values, F2B_TAG_SCRATCH) : NULL;
    if (values != NULL) f2b_convert(values, F2B_F32, here->data, z->dtype, (size_t)(rows * V));
    f2b_tensor_free(here);
    if (values == NULL) return f2b_last_status();
    for (int64_t i = 0; i < rows && first + i + 1 < n; i++)
        r->sum += loss_of(values + i * V, V, ids[first + i + 1]);
    const f2b_status status = r->logits != NULL ? r->logits(r->context, values, rows) : F2B_OK;
    f2b_free(values);
    f2b_tape_release_since(r->tape, mark, NULL, 0);
    return status;
}

static f2b_status chunk(nll_run *r, const int32_t *ids, int64_t n)
{
    const f2b_pack_item item = { .ids = ids, .n = n };
    const f2b_pass_settings settings = { 0 };
    f2b_pass_frame frame;
    f2b_tensor *hidden = f2b_pass_hidden(r->tape, r->model, &item, 1, NULL, &settings, &frame);
    if (hidden == NULL) return f2b_last_status();
    for (int64_t first = 0; first < n; first += BLOCK)
        F2B_TRY(block(r, hidden, ids, n, first, n - first < BLOCK ? n - first : BLOCK));
    f2b_tape_reset(r->tape);
    return F2B_OK;
}

static f2b_status run(nll_run *r, int32_t start, const int32_t *ids, int64_t n, int32_t *buffer)
{
    const int64_t size = chunk_ids(r->model);
    for (int64_t first = 0; first < n; first += size) {
        const int64_t here = n - first < size ? n - first : size;
        buffer[0] = start;
        memcpy(buffer + 1, ids + first, (size_t)here * sizeof *buffer);
        F2B_TRY(chunk(r, buffer, here + 1));
    }
    return F2B_OK;
}

f2b_status f2b_nll(const f2b_model *model, int32_t start, const int32_t *ids, int64_t n,
                   f2b_status (*logits)(void *context, const float *values, int64_t rows),
                   void *context, f2b_nll_result *result)
{
    const int64_t V = model->config.text.vocab, size = chunk_ids(model);
    if (n < 1) return f2b_fail(F2B_ERR_DATA, "the text has no tokens");
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= V)
            return f2b_fail(F2B_ERR_DATA, "token %d is outside the model's %" PRId64, ids[i], V);
    nll_run r = {
        .model = model, .tape = f2b_tape_new(model->device), .logits = logits, .context = context
    };
    int32_t *buffer =
        f2b_alloc_host((size_t)(1 + (n < size ? n : size)) * sizeof *buffer, F2B_TAG_DATA);
    if (r.tape != NULL) (void)f2b_tape_set_recording(r.tape, false);
    f2b_status status =
        r.tape != NULL && buffer != NULL ? run(&r, start, ids, n, buffer) : f2b_last_status();
    f2b_free(buffer);
    f2b_tape_free(r.tape);
    if (status == F2B_OK && !isfinite(r.sum))
        status = f2b_fail(F2B_ERR_NUMBERS, "the likelihood of the text is not finite");
    if (status != F2B_OK) return status;
    *result = (f2b_nll_result){ .tokens = n,
                                .chunks = f2b_nll_rows(model, n) - n,
                                .mean = r.sum / (double)n };
    return F2B_OK;
}
