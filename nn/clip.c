/* See clip.h. */
#include "nn/clip.h"

#include <math.h>
#include <stdio.h>

#include "autograd/ops/gelu/gelu.h"
#include "autograd/ops/layer_norm/layer_norm.h"
#include "autograd/ops/patch_embedding/patch_embedding.h"
#include "autograd/ops/quick_gelu/quick_gelu.h"
#include "autograd/ops/rows/rows.h"
#include "autograd/ops/vision_embed/vision_embed.h"

/* ---- Building ---- */

typedef struct builder {
    f2b_weight_builder *w;
    bool trained;
    const f2b_lora_plan *lora;
    f2b_status status;
} builder;

static const f2b_init normal = { F2B_INIT_NORMAL, 0.02 };
static const f2b_init one = { F2B_INIT_CONSTANT, 1 }, zero = { F2B_INIT_CONSTANT, 0 };

static f2b_tensor *tensor(builder *b, const char *name, int ndim, const int64_t *shape, f2b_init init)
{
    if (b->status != F2B_OK) return NULL;
    char full[320];
    snprintf(full, sizeof full, "vision_tower.vision_model.%s", name);
    f2b_tensor *t = f2b_weights_get(b->w, full, ndim, shape, init, b->trained, F2B_GROUP_VISION_TOWER);
    if (t == NULL) b->status = f2b_last_status();
    return t;
}

static void norm(builder *b, int64_t layer, const char *name, int64_t d, f2b_tensor **w, f2b_tensor **bias)
{
    char full[160];
    snprintf(full, sizeof full, "encoder.layers.%lld.%s.weight", (long long)layer, name);
    *w = tensor(b, full, 1, &d, one);
    snprintf(full, sizeof full, "encoder.layers.%lld.%s.bias", (long long)layer, name);
    *bias = tensor(b, full, 1, &d, zero);
}

static void linear(builder *b, f2b_adapted_linear *l, int64_t layer, const char *name, int64_t out,
                   int64_t in)
{
    char full[288], module[256];
    if (b->status != F2B_OK) return;
    snprintf(module, sizeof module, "vision_tower.vision_model.encoder.layers.%lld.%s",
             (long long)layer, name);
    snprintf(full, sizeof full, "%s.weight", module);
    l->weight = f2b_weights_matrix(b->w, full, out, in, normal, b->trained, F2B_GROUP_VISION_TOWER);
    if (l->weight == NULL) b->status = f2b_last_status();
    snprintf(full, sizeof full, "encoder.layers.%lld.%s.bias", (long long)layer, name);
    l->bias = tensor(b, full, 1, &out, zero);
    if (b->status == F2B_OK && b->lora != NULL)
        b->status = f2b_adapted_linear_add_lora(l, b->w, module, b->lora);
}

static void build_layer(builder *b, f2b_clip_layer *l, int64_t i, const f2b_vision_config *c)
{
    const int64_t d = c->hidden;
    norm(b, i, "layer_norm1", d, &l->norm1_w, &l->norm1_b);
    norm(b, i, "layer_norm2", d, &l->norm2_w, &l->norm2_b);
    linear(b, &l->q, i, "self_attn.q_proj", d, d);
    linear(b, &l->k, i, "self_attn.k_proj", d, d);
    linear(b, &l->v, i, "self_attn.v_proj", d, d);
    linear(b, &l->out, i, "self_attn.out_proj", d, d);
    linear(b, &l->fc1, i, "mlp.fc1", c->intermediate, d);
    linear(b, &l->fc2, i, "mlp.fc2", d, c->intermediate);
}

f2b_clip *f2b_clip_new(const f2b_model_config *config, f2b_weight_builder *weights, bool trained,
                       const f2b_lora_plan *lora)
{
    const f2b_vision_config *c = &config->vision;
    const int64_t d = c->hidden, positions = f2b_vision_patches(c) + 1;
    f2b_clip *m = f2b_calloc(1, sizeof *m, F2B_TAG_OTHER);
    if (m == NULL) return NULL;
    m->config = *c;
    m->feature_layers = config->feature_layer;
    m->keep_cls = config->keep_cls;
    m->layers = f2b_calloc((size_t)m->feature_layers + 1, sizeof *m->layers, F2B_TAG_OTHER);
    builder b = { weights, trained, lora, m->layers ? F2B_OK : F2B_ERR_MEMORY };
    m->class_embedding = tensor(&b, "embeddings.class_embedding", 1, &d, normal);
    m->patch_weight = tensor(&b, "embeddings.patch_embedding.weight", 4,
                             (int64_t[]){ d, 3, c->patch, c->patch }, normal);
    m->positions = tensor(&b, "embeddings.position_embedding.weight", 2,
                          (int64_t[]){ positions, d }, normal);
    m->pre_norm_w = tensor(&b, "pre_layrnorm.weight", 1, &d, one);
    m->pre_norm_b = tensor(&b, "pre_layrnorm.bias", 1, &d, zero);
    for (int64_t i = 0; i < m->feature_layers && b.status == F2B_OK; i++)
        build_layer(&b, &m->layers[i], i, c);
    if (b.status != F2B_OK) {
        f2b_clip_free(m);
        return NULL;
    }
    return m;
}

void f2b_clip_free(f2b_clip *m)
{
    if (m == NULL) return;
    f2b_free(m->layers);
    f2b_free(m);
}

/* ---- Running ---- */

typedef struct clip_run {
    const f2b_clip *model;
    const f2b_clip_pass *pass;
    f2b_attention_layout layout;
    const uint64_t *row_keys;
    int64_t layer;
} clip_run;

/* `residual` is added to the last of n (NULL: nothing). */
static f2b_status project(f2b_tape *tape, const clip_run *r, f2b_dropout_group group, f2b_tensor *x,
                          const f2b_adapted_linear *const *l, int n, f2b_tensor *residual, f2b_tensor **out)
{
    f2b_projection p[F2B_MAX_PROJECTIONS];
    /* The tower's adapters are there for the summary rows: without them it is the base's tower. */
    const f2b_stage stage = r->pass->summary != NULL ? F2B_STAGE_COMPRESSION : F2B_STAGE_NONE;
    for (int i = 0; i < n; i++) p[i] = f2b_adapted_linear_at(l[i], stage);
    p[n - 1].residual = residual;
    const f2b_dropout dropout = { r->pass->dropout.p, r->pass->dropout.seed, r->pass->dropout.step,
                                  f2b_dropout_place(F2B_DROPOUT_TOWER, r->layer, group),
                                  r->row_keys };
    return f2b_linear_group(tape, x, p, n, r->pass->lora_scale, &dropout, out);
}

static f2b_tensor *activate(f2b_tape *tape, f2b_activation a, f2b_tensor *x)
{
    return a == F2B_ACTIVATION_QUICK_GELU ? f2b_quick_gelu(tape, x) : f2b_gelu(tape, x);
}

static f2b_status layer_body(f2b_tape *tape, const void *context, f2b_tensor *const *in,
                             f2b_tensor **out)
{
    const clip_run *r = context;
    const f2b_clip_layer *l = &r->model->layers[r->layer];
    const f2b_vision_config *c = &r->model->config;
    const int64_t head_dim = c->hidden / c->heads;
    const f2b_mark mark = f2b_tape_mark(tape);
    f2b_tensor *qkv[3], *y, *h;
    f2b_tensor *x = f2b_layer_norm(tape, in[0], l->norm1_w, l->norm1_b, c->layer_norm_eps);
    F2B_TRY(project(tape, r, F2B_DROPOUT_QKV, x, (const f2b_adapted_linear *[]){ &l->q, &l->k, &l->v }, 3,
                    NULL, qkv));
    f2b_tensor *a = f2b_attention(tape, qkv[0], qkv[1], qkv[2], &r->layout, head_dim,
                                  1.0 / sqrt((double)head_dim));
    F2B_TRY(project(tape, r, F2B_DROPOUT_O, a, (const f2b_adapted_linear *[]){ &l->out }, 1, in[0], &y));
    x = f2b_layer_norm(tape, y, l->norm2_w, l->norm2_b, c->layer_norm_eps);
    F2B_TRY(project(tape, r, F2B_DROPOUT_GATE_UP, x, (const f2b_adapted_linear *[]){ &l->fc1 }, 1, NULL, &h));
    h = activate(tape, c->activation, h);
    F2B_TRY(project(tape, r, F2B_DROPOUT_DOWN, h, (const f2b_adapted_linear *[]){ &l->fc2 }, 1, y, out));
    f2b_tape_release_since(tape, mark, out, 1);
    return F2B_OK;
}

/* Rows of n images of the tower, bidirectional, `rows` each; which rows come out; which go in. */
typedef struct clip_rows {
    f2b_attention_layout layout;
    f2b_tensor *from, *out, *keys;
} clip_rows;

/* The same as the host fills it, and the sizes. */
typedef struct clip_tables {
    int64_t n, rows, base, first, outs;     /* a row from `base` on is a summary token's */
    int32_t *q_start, *k_start, *k_count, *limit, *from, *out;
    uint64_t *keys;
} clip_tables;

static void fill(clip_tables *t, const uint64_t *image_keys)
{
    for (int64_t i = 0; i < t->n; i++) {
        t->q_start[i + 1] = (int32_t)((i + 1) * t->rows);
        t->k_start[i] = (int32_t)(i * t->rows);
        t->k_count[i] = (int32_t)t->rows;
        for (int64_t j = 0; j < t->rows; j++) {
            const int64_t row = i * t->rows + j;
            t->limit[row] = (int32_t)t->rows;
            t->from[2 * row] = j >= t->base;
            t->from[2 * row + 1] = (int32_t)(j >= t->base ? j - t->base : i * t->base + j);
            t->keys[row] = f2b_dropout_row_key(image_keys != NULL ? image_keys[i] : 0, j);
            if (j >= t->first) t->out[i * t->outs + j - t->first] = (int32_t)row;
        }
    }
}

static bool copy(f2b_tape *tape, const clip_tables *t, clip_rows *r)
{
    const int64_t n = t->n, all = n * t->rows;
#define TABLE(values, ...) f2b_tape_table(tape, F2B_I32, __VA_ARGS__, values)
    r->layout = (f2b_attention_layout){
        .q_start = TABLE(t->q_start, 1, (int64_t[]){ n + 1 }), .k_start = TABLE(t->k_start, 1, (int64_t[]){ n }),
        .k_count = TABLE(t->k_count, 1, (int64_t[]){ n }), .limit = TABLE(t->limit, 1, (int64_t[]){ all }),
        .pairs = (double)all * (double)t->rows,
    };
    r->from = TABLE(t->from, 2, ((int64_t[]){ all, 2 }));
    r->out = TABLE(t->out, 1, (int64_t[]){ n * t->outs });
#undef TABLE
    r->keys = f2b_tape_table(tape, F2B_U8, 1, (int64_t[]){ all * (int64_t)sizeof *t->keys }, t->keys);
    return r->layout.q_start && r->layout.k_start && r->layout.k_count && r->layout.limit &&
           r->from && r->out && r->keys;
}

static f2b_status lay_out(f2b_tape *tape, const f2b_clip *m, int64_t n, int64_t K,
                          const uint64_t *image_keys, clip_rows *r)
{
    const int64_t base = f2b_vision_patches(&m->config) + 1, rows = base + K;
    const int64_t first = K > 0 ? base : m->keep_cls ? 0 : 1;
    clip_tables t = { .n = n, .rows = rows, .base = base, .first = first, .outs = rows - first };
    int32_t *ints = f2b_calloc((size_t)(3 * n + 1 + n * (3 * rows + t.outs)), sizeof *ints, F2B_TAG_DATA);
    t.keys = f2b_calloc((size_t)(n * rows), sizeof *t.keys, F2B_TAG_DATA);
    t.q_start = ints, t.k_start = ints + n + 1, t.k_count = t.k_start + n, t.limit = t.k_count + n;
    t.from = t.limit + n * rows, t.out = t.from + 2 * n * rows;
    f2b_status status = F2B_ERR_MEMORY;
    if (ints != NULL && t.keys != NULL) {
        fill(&t, image_keys);
        status = copy(tape, &t, r) ? F2B_OK : f2b_last_status();
    }
    f2b_free(ints);
    f2b_free(t.keys);
    return status;
}

f2b_tensor *f2b_clip_forward(f2b_tape *tape, const f2b_clip *m, f2b_tensor *images,
                             const f2b_clip_pass *pass)
{
    if (images == NULL) return NULL;
    const f2b_vision_config *c = &m->config;
    clip_rows rows;
    const int64_t K = pass->summary != NULL ? pass->summary->shape[0] : 0;
    if (lay_out(tape, m, images->shape[0], K, pass->image_keys, &rows) != F2B_OK) return NULL;
    const f2b_mark mark = f2b_tape_mark(tape);
    f2b_tensor *x = f2b_patch_embedding(tape, images, m->patch_weight, pass->act);
    x = f2b_vision_embed(tape, x, m->class_embedding, m->positions);
    if (K > 0 && x != NULL)
        x = f2b_rows_assemble(tape, pass->act, (f2b_tensor *[]){ x, pass->summary }, 2, rows.from);
    x = f2b_layer_norm(tape, x, m->pre_norm_w, m->pre_norm_b, c->layer_norm_eps);
    clip_run run = { m, pass, rows.layout, rows.keys->data, 0 };
    if (x == NULL) return NULL;
    f2b_tape_release_since(tape, mark, &x, 1);
    for (; run.layer < m->feature_layers; run.layer++) {
        f2b_tensor *y = NULL;
        if (pass->watch.tell != NULL)
            pass->watch.tell(pass->watch.user, run.layer, m->feature_layers);
        const f2b_status status = run.layer < pass->checkpoint
            ? f2b_tape_segment(tape, layer_body, &run, sizeof run, &x, 1, &y, 1)
            : layer_body(tape, &run, &x, &y);
        if (status != F2B_OK) return NULL;
        f2b_tape_release(x);
        x = y;
    }
    f2b_tensor *y = f2b_rows_gather(tape, x, rows.out);
    f2b_tape_release(x);
    return y;
}

/* ---- Projector ---- */

f2b_status f2b_projector_build(f2b_projector *p, const f2b_model_config *config,
                               f2b_weight_builder *w, bool trained)
{
    const int64_t in = config->vision.hidden, d = config->text.hidden;
    const f2b_init init = { F2B_INIT_NORMAL, config->text.initializer_range };
    const f2b_parameter_group group = F2B_GROUP_PROJECTOR;
    p->activation = config->projector_activation;
    p->w1 = f2b_weights_matrix(w, "multi_modal_projector.linear_1.weight", d, in, init, trained, group);
    p->b1 = p->w1 ? f2b_weights_get(w, "multi_modal_projector.linear_1.bias", 1, &d, zero, trained,
                                    group) : NULL;
    p->w2 = p->b1 ? f2b_weights_matrix(w, "multi_modal_projector.linear_2.weight", d, d, init, trained,
                                       group) : NULL;
    p->b2 = p->w2 ? f2b_weights_get(w, "multi_modal_projector.linear_2.bias", 1, &d, zero, trained,
                                    group) : NULL;
    return p->b2 != NULL ? F2B_OK : f2b_last_status();
}

f2b_tensor *f2b_projector_forward(f2b_tape *tape, const f2b_projector *p, f2b_tensor *x)
{
    f2b_tensor *h = f2b_linear(tape, x, p->w1, p->b1);
    return f2b_linear(tape, activate(tape, p->activation, h), p->w2, p->b2);
}
