/* See llama.h. A layer is one segment body, so that checkpointing is a setting of the pass. */
#include "nn/llama.h"

#include <math.h>
#include <stdio.h>

#include "autograd/ops/rms_norm/rms_norm.h"
#include "autograd/ops/rope/rope.h"
#include "autograd/ops/rows/rows.h"
#include "autograd/ops/rows_store/rows_store.h"

/* ---- Building ---- */

typedef struct builder {
    f2b_weight_builder *w;
    const f2b_llama_options *o;
    double std;
    f2b_status status;
} builder;

static f2b_tensor *tensor(builder *b, const char *name, int ndim, const int64_t *shape)
{
    if (b->status != F2B_OK) return NULL;
    const f2b_init init = ndim == 1 ? (f2b_init){ F2B_INIT_CONSTANT, 1.0 }
                                    : (f2b_init){ F2B_INIT_NORMAL, b->std };
    f2b_tensor *t = f2b_weights_get(b->w, name, ndim, shape, init, b->o->trained,
                                    F2B_GROUP_LANGUAGE_MODEL);
    if (t == NULL) b->status = f2b_last_status();
    return t;
}

static f2b_tensor *norm_weight(builder *b, int64_t layer, const char *name, int64_t d)
{
    char full[128];
    snprintf(full, sizeof full, "language_model.model.layers.%lld.%s.weight", (long long)layer, name);
    return tensor(b, full, 1, &d);
}

static void projection(builder *b, f2b_adapted_linear *l, int64_t layer, const char *block,
                       f2b_lora_target target, const char *name, int64_t out, int64_t in)
{
    char module[128], full[160];
    snprintf(module, sizeof module, "language_model.model.layers.%lld.%s.%s", (long long)layer,
             block, name);
    snprintf(full, sizeof full, "%s.weight", module);
    if (b->status != F2B_OK) return;
    l->weight = f2b_weights_matrix(b->w, full, out, in, (f2b_init){ F2B_INIT_NORMAL, b->std },
                                   b->o->trained, F2B_GROUP_LANGUAGE_MODEL);
    if (l->weight == NULL) b->status = f2b_last_status();
    if (b->status == F2B_OK && (b->o->targets >> target & 1))
        b->status = f2b_adapted_linear_add_lora(l, b->w, module, &b->o->lora);
}

static void build_layer(builder *b, f2b_llama_layer *l, int64_t i, const f2b_text_config *c)
{
    const int64_t d = c->hidden, q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    l->input_norm = norm_weight(b, i, "input_layernorm", d);
    l->post_norm = norm_weight(b, i, "post_attention_layernorm", d);
    projection(b, &l->q, i, "self_attn", F2B_LORA_Q, "q_proj", q, d);
    projection(b, &l->k, i, "self_attn", F2B_LORA_K, "k_proj", kv, d);
    projection(b, &l->v, i, "self_attn", F2B_LORA_V, "v_proj", kv, d);
    projection(b, &l->o, i, "self_attn", F2B_LORA_O, "o_proj", d, q);
    projection(b, &l->gate, i, "mlp", F2B_LORA_GATE, "gate_proj", c->intermediate, d);
    projection(b, &l->up, i, "mlp", F2B_LORA_UP, "up_proj", c->intermediate, d);
    projection(b, &l->down, i, "mlp", F2B_LORA_DOWN, "down_proj", d, c->intermediate);
}

f2b_llama *f2b_llama_new(const f2b_text_config *config, f2b_weight_builder *weights,
                         const f2b_llama_options *options)
{
    f2b_llama *m = f2b_calloc(1, sizeof *m, F2B_TAG_OTHER);
    if (m == NULL) return NULL;
    m->config = *config;
    m->layers = f2b_calloc((size_t)config->layers, sizeof *m->layers, F2B_TAG_OTHER);
    builder b = { weights, options, config->initializer_range, m->layers ? F2B_OK : F2B_ERR_MEMORY };
    const int64_t table[] = { config->vocab, config->hidden };
    m->embed = tensor(&b, "language_model.model.embed_tokens.weight", 2, table);
    for (int64_t i = 0; i < config->layers && b.status == F2B_OK; i++)
        build_layer(&b, &m->layers[i], i, config);
    m->norm = tensor(&b, "language_model.model.norm.weight", 1, &config->hidden);
    m->head = config->tied_head ? m->embed : tensor(&b, "language_model.lm_head.weight", 2, table);
    if (b.status == F2B_OK)
        m->rope = f2b_rope_table(weights->device, weights->master, config->rope_theta,
                                 config->head_dim, config->max_positions);
    if (m->rope == NULL) {
        f2b_llama_free(m);
        return NULL;
    }
    return m;
}

void f2b_llama_free(f2b_llama *m)
{
    if (m == NULL) return;
    f2b_tensor_free(m->rope);
    f2b_free(m->layers);
    f2b_free(m);
}

/* ---- Running ---- */

typedef struct layer_context {
    const f2b_llama *model;
    const f2b_pass *pass;
    int64_t layer;
} layer_context;

static f2b_dropout dropout_of(const f2b_pass *pass, const f2b_row_set *rows, int64_t layer, f2b_dropout_group group)
{
    return (f2b_dropout){ pass->dropout.p, pass->dropout.seed, pass->dropout.step,
                          f2b_dropout_place(pass->place, layer, group), rows->row_keys };
}

/* `residual` is added to the last of n (NULL: nothing). */
static f2b_status project(f2b_tape *tape, f2b_tensor *x, const f2b_pass *pass,
                          const f2b_row_set *rows, int64_t layer, f2b_dropout_group group,
                          const f2b_adapted_linear *const *linears, int n, f2b_tensor *residual,
                          f2b_tensor **out)
{
    f2b_projection p[F2B_MAX_PROJECTIONS];
    for (int i = 0; i < n; i++) p[i] = f2b_adapted_linear_at(linears[i], pass->stage);
    p[n - 1].residual = residual;
    const f2b_dropout dropout = dropout_of(pass, rows, layer, group);
    return f2b_linear_group(tape, x, p, n, pass->lora_scale, &dropout, out);
}

static f2b_status into_cache(f2b_tape *tape, const f2b_pass *pass, int64_t layer, f2b_tensor **k,
                             f2b_tensor **v)
{
    if (pass->cache == NULL) return F2B_OK;
    F2B_TRY(f2b_rows_store(tape, pass->cache->k[layer], pass->cache_rows, *k));
    F2B_TRY(f2b_rows_store(tape, pass->cache->v[layer], pass->cache_rows, *v));
    *k = pass->cache->k[layer], *v = pass->cache->v[layer];
    return F2B_OK;
}

/* Attention block: x + o_proj(attention(norm(x))). In the last layer queries are only the wanted
 * rows; keys and values are always all rows. */
static f2b_tensor *attention_block(f2b_tape *tape, const f2b_llama *m, const f2b_pass *pass,
                                   int64_t i, f2b_tensor *x, const f2b_row_set *queries)
{
    const f2b_llama_layer *l = &m->layers[i];
    const double scale = 1.0 / sqrt((double)m->config.head_dim);
    f2b_tensor *h = f2b_rms_norm(tape, x, l->input_norm, m->config.rms_eps);
    f2b_tensor *qkv[3], *y;
    if (queries->index == NULL) {
        if (project(tape, h, pass, pass->rows, i, F2B_DROPOUT_QKV,
                    (const f2b_adapted_linear *[]){ &l->q, &l->k, &l->v }, 3, NULL, qkv) != F2B_OK)
            return NULL;
    } else {
        f2b_tensor *hq = f2b_rows_gather(tape, h, queries->index);
        x = f2b_rows_gather(tape, x, queries->index);
        if (x == NULL ||                        /* would be no residual */
            project(tape, hq, pass, queries, i, F2B_DROPOUT_QKV,
                    (const f2b_adapted_linear *[]){ &l->q }, 1, NULL, qkv) != F2B_OK ||
            project(tape, h, pass, pass->rows, i, F2B_DROPOUT_QKV,
                    (const f2b_adapted_linear *[]){ &l->k, &l->v }, 2, NULL, qkv + 1) != F2B_OK)
            return NULL;
    }
    f2b_tensor *q = f2b_rope(tape, qkv[0], m->rope, queries->positions);
    f2b_tensor *k = f2b_rope(tape, qkv[1], m->rope, pass->rows->positions), *v = qkv[2];
    if (k == NULL || into_cache(tape, pass, i, &k, &v) != F2B_OK) return NULL;
    f2b_tensor *a = f2b_attention(tape, q, k, v, &queries->layout, m->config.head_dim, scale);
    return project(tape, a, pass, queries, i, F2B_DROPOUT_O, (const f2b_adapted_linear *[]){ &l->o }, 1, x,
                   &y) == F2B_OK ? y : NULL;
}

/* x + down_proj(silu(gate) * up) */
static f2b_tensor *mlp_block(f2b_tape *tape, const f2b_llama *m, const f2b_pass *pass, int64_t i,
                             f2b_tensor *x, const f2b_row_set *rows)
{
    const f2b_llama_layer *l = &m->layers[i];
    f2b_tensor *h = f2b_rms_norm(tape, x, l->post_norm, m->config.rms_eps);
    f2b_tensor *gate_up[2];
    if (project(tape, h, pass, rows, i, F2B_DROPOUT_GATE_UP,
                (const f2b_adapted_linear *[]){ &l->gate, &l->up }, 2, NULL, gate_up) != F2B_OK)
        return NULL;
    f2b_projection down = f2b_adapted_linear_at(&l->down, pass->stage);
    down.residual = x;
    const f2b_dropout dropout = dropout_of(pass, rows, i, F2B_DROPOUT_DOWN);
    return f2b_gated_linear(tape, gate_up[0], gate_up[1], &down, pass->lora_scale, &dropout);
}

static f2b_status layer_body(f2b_tape *tape, const void *context, f2b_tensor *const *in,
                             f2b_tensor **out)
{
    const layer_context *c = context;
    const bool last = c->layer + 1 == c->model->config.layers;
    const f2b_row_set *rows = last ? c->pass->wanted : c->pass->rows;
    const f2b_mark mark = f2b_tape_mark(tape);
    f2b_tensor *x = attention_block(tape, c->model, c->pass, c->layer, in[0], rows);
    if (x == NULL) return f2b_last_status();
    out[0] = mlp_block(tape, c->model, c->pass, c->layer, x, rows);
    if (out[0] == NULL) return f2b_last_status();
    f2b_tape_release_since(tape, mark, out, 1);
    return F2B_OK;
}

f2b_tensor *f2b_llama_forward(f2b_tape *tape, const f2b_llama *m, f2b_tensor *x, const f2b_pass *pass)
{
    if (x == NULL) return NULL;
    for (int64_t i = 0; i < m->config.layers; i++) {
        const layer_context context = { m, pass, i };
        f2b_tensor *y = NULL;
        if (pass->watch.tell != NULL) pass->watch.tell(pass->watch.user, i, m->config.layers);
        const f2b_status status = i < pass->checkpoint
            ? f2b_tape_segment(tape, layer_body, &context, sizeof context, &x, 1, &y, 1)
            : layer_body(tape, &context, &x, &y);
        if (status != F2B_OK) return NULL;
        f2b_tape_release(x);
        x = y;
    }
    if (!pass->final_norm) return x;
    f2b_tensor *y = f2b_rms_norm(tape, x, m->norm, m->config.rms_eps);
    f2b_tape_release(x);
    return y;
}
