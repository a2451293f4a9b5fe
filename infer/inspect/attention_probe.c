/* The attention of one layer, computed by the model itself: f2b_attention_probe. */
#include <math.h>

#include "autograd/core/alloc.h"
#include "autograd/ops/attention/attention.h"
#include "autograd/ops/rms_norm/rms_norm.h"
#include "autograd/ops/rope/rope.h"
#include "autograd/ops/rows/rows.h"
#include "infer/inspect/attention_map.h"
#include "nn/passes.h"

/* Queries and keys of the layer, for the input x of all rows. */
static f2b_status queries_and_keys(f2b_tape *tape, const f2b_model *m, f2b_stage stage,
                                   const f2b_pack *pack, int64_t layer, f2b_tensor *x,
                                   f2b_tensor **q, f2b_tensor **k)
{
    const f2b_llama_layer *l = &m->llama->layers[layer];
    const f2b_projection of_q = f2b_adapted_linear_at(&l->q, stage),
                         of_k = f2b_adapted_linear_at(&l->k, stage);
    const double scale = f2b_model_lora_scale(m);
    f2b_tensor *h = f2b_rms_norm(tape, x, l->input_norm, m->config.text.rms_eps);
    f2b_tensor *hq = pack->wanted.index != NULL ? f2b_rows_gather(tape, h, pack->wanted.index) : h;
    if (hq == NULL) return f2b_last_status();
    F2B_TRY(f2b_linear_group(tape, hq, &of_q, 1, scale, NULL, q));
    F2B_TRY(f2b_linear_group(tape, h, &of_k, 1, scale, NULL, k));
    *q = f2b_rope(tape, *q, m->llama->rope, pack->wanted.positions);
    *k = f2b_rope(tape, *k, m->llama->rope, pack->all.positions);
    return *q != NULL && *k != NULL ? F2B_OK : f2b_last_status();
}

/* Values [rows, kv width]: in every head row first + c is the c-th unit vector, others are 0. */
static f2b_tensor *unit_values(f2b_tape *tape, const f2b_model *m, int64_t rows, int64_t first)
{
    const f2b_text_config *c = &m->config.text;
    const int64_t width = c->kv_heads * c->head_dim;
    float *host = f2b_calloc((size_t)(rows * width), sizeof *host, F2B_TAG_SCRATCH);
    if (host == NULL) return NULL;
    for (int64_t i = 0; i < c->head_dim && first + i < rows; i++)
        for (int64_t g = 0; g < c->kv_heads; g++)
            host[(first + i) * width + g * c->head_dim + i] = 1;
    void *typed = f2b_calloc((size_t)(rows * width), f2b_dtype_size(m->compute), F2B_TAG_SCRATCH);
    f2b_tensor *v = NULL;
    if (typed != NULL) {
        f2b_convert(typed, m->compute, host, F2B_F32, (size_t)(rows * width));
        v = f2b_tape_tensor_from(tape, m->compute, 2, (int64_t[]){ rows, width }, typed);
    }
    f2b_free(typed);
    f2b_free(host);
    return v;
}

/* p[t, first + c] = mean over heads of a[t, head, c]. */
static void add_means(const f2b_text_config *c, const f2b_tensor *a, int64_t first,
                      f2b_attention_rows *out)
{
    const size_t size = f2b_dtype_size(a->dtype);
    for (int64_t t = 0; t < out->rows; t++)
        for (int64_t i = 0; i < c->head_dim && first + i < out->keys; i++) {
            double sum = 0, x;
            for (int64_t h = 0; h < c->heads; h++) {
                const int64_t at = (t * c->heads + h) * c->head_dim + i;
                f2b_convert(&x, F2B_F64, (const char *)a->data + (size_t)at * size, a->dtype, 1);
                sum += x;
            }
            out->p[t * out->keys + first + i] = (float)(sum / (double)c->heads);
        }
}

static f2b_status probe(f2b_tape *tape, const f2b_model *m, f2b_stage stage,
                        const f2b_pack_item *item, const f2b_pack_options *options,
                        f2b_tensor *images, int64_t layer, f2b_attention_rows *out)
{
    const f2b_text_config *c = &m->config.text;
    f2b_pack pack;
    F2B_TRY(f2b_pack_build(tape, item, 1, options, &pack));
    f2b_llama below = *m->llama; /* the layers below, all rows of each */
    below.config.layers = layer;
    const f2b_pass pass = { .stage = stage, .rows = &pack.all, .wanted = &pack.all,
                            .lora_scale = f2b_model_lora_scale(m) };
    f2b_tensor *x = f2b_llama_forward(tape, &below, f2b_pass_input(tape, m, &pack, images), &pass);
    f2b_tensor *q, *k;
    if (x == NULL) return f2b_last_status();
    F2B_TRY(queries_and_keys(tape, m, stage, &pack, layer, x, &q, &k));
    out->rows = pack.wanted.rows, out->keys = pack.rows;
    out->p = f2b_calloc((size_t)(out->rows * out->keys), sizeof *out->p, F2B_TAG_OTHER);
    if (out->p == NULL) return f2b_last_status();
    for (int64_t first = 0; first < out->keys; first += c->head_dim) {
        f2b_tensor *v = unit_values(tape, m, out->keys, first);
        f2b_tensor *a = f2b_attention(tape, q, k, v, &pack.wanted.layout, c->head_dim,
                                            1.0 / sqrt((double)c->head_dim));
        f2b_tensor *here = f2b_tensor_on_host(a);
        if (here == NULL) return f2b_last_status();
        add_means(c, here, first, out);
        f2b_tensor_free(here);
    }
    return F2B_OK;
}

f2b_status f2b_attention_probe(const f2b_model *m, f2b_stage stage, const f2b_pack_item *item,
                               const f2b_pack_options *options, f2b_tensor *images, int64_t layer,
                               f2b_attention_rows *out)
{
    if (layer < 0 || layer >= m->config.text.layers)
        return f2b_fail(F2B_ERR_USAGE, "there is no layer %lld: the language model's are 0 to %lld",
                        (long long)layer, (long long)m->config.text.layers - 1);
    f2b_tape *tape = f2b_tape_new(m->device);
    if (tape == NULL) return f2b_last_status();
    (void)f2b_tape_set_recording(tape, false);
    const f2b_status status = probe(tape, m, stage, item, options, images, layer, out);
    f2b_tape_free(tape);
    return status;
}
