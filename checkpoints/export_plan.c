/* Which tensors a method adds to a base model. See export_internal.h for the contract. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "checkpoints/export_internal.h"
#include "checkpoints/method_json.h"

static const char *const adapter_names[F2BI_ADAPTERS] = { "compression", "generation", "shared" };

const char *f2bi_adapter_name(f2bi_adapter adapter) { return adapter_names[adapter]; }

/* Room for one more, zeroed. NULL when out of memory. */
static f2bi_added *grow(f2bi_plan *plan)
{
    if (plan->n == plan->capacity) {
        const int64_t capacity = plan->capacity ? 2 * plan->capacity : 64;
        f2bi_added *items =
            f2b_realloc(plan->items, (size_t)capacity * sizeof *items, F2B_TAG_FILES);
        if (!items) return NULL;
        plan->items = items;
        plan->capacity = capacity;
    }
    f2bi_added *item = &plan->items[plan->n++];
    *item = (f2bi_added){ 0 };
    return item;
}

static f2b_status add_one(f2bi_plan *plan, const char *module, f2bi_adapter adapter, bool is_b,
                          int64_t rows, int64_t columns)
{
    f2bi_added *item = grow(plan);
    if (!item) return f2b_last_status();
    item->module = f2b_strdup(module, F2B_TAG_FILES);
    item->name = f2b_sprintf(F2B_TAG_FILES, "%s.%s.lora_%c", module, adapter_names[adapter],
                             is_b ? 'B' : 'A');
    item->is_b = is_b;
    item->adapter = adapter;
    item->ndim = 2;
    item->shape[0] = rows;
    item->shape[1] = columns;
    plan->has[adapter] = true;
    return item->module && item->name ? F2B_OK : f2b_last_status();
}

/* A [r,in] and B [out,r] for a linear layer. */
static f2b_status add_pair(f2bi_plan *plan, const char *prefix, int64_t layer, const char *leaf,
                           f2bi_adapter adapter, int64_t out, int64_t in, int64_t r)
{
    char module[256];
    snprintf(module, sizeof module, "%s.layers.%" PRId64 ".%s", prefix, layer, leaf);
    F2B_TRY(add_one(plan, module, adapter, false, r, in));
    return add_one(plan, module, adapter, true, out, r);
}

static f2b_status add_language(f2bi_plan *plan, const f2b_method *m, const f2b_text_config *t,
                               f2bi_adapter adapter)
{
    const int64_t d = t->hidden, q = t->heads * t->head_dim, kv = t->kv_heads * t->head_dim;
    const struct { f2b_lora_target target; const char *block; int64_t out, in; } linears[] = {
        { F2B_LORA_Q, "self_attn", q, d },  { F2B_LORA_K, "self_attn", kv, d },
        { F2B_LORA_V, "self_attn", kv, d }, { F2B_LORA_O, "self_attn", d, q },
        { F2B_LORA_GATE, "mlp", t->intermediate, d }, { F2B_LORA_UP, "mlp", t->intermediate, d },
        { F2B_LORA_DOWN, "mlp", d, t->intermediate },
    };
    for (int64_t layer = 0; layer < t->layers; ++layer)
        for (size_t i = 0; i < sizeof linears / sizeof linears[0]; ++i) {
            if (!(m->lora.targets & 1u << linears[i].target)) continue;
            char leaf[64];
            snprintf(leaf, sizeof leaf, "%s.%s", linears[i].block,
                     f2b_lora_target_name(linears[i].target));
            F2B_TRY(add_pair(plan, "language_model.model", layer, leaf, adapter, linears[i].out,
                             linears[i].in, m->lora.r));
        }
    return F2B_OK;
}

/* Only the layers that run; those past the feature layer have no adapter. */
static f2b_status add_tower(f2bi_plan *plan, const f2b_method *m, const f2b_model_config *model)
{
    const int64_t d = model->vision.hidden, wide = model->vision.intermediate;
    const struct { const char *leaf; int64_t out, in; } linears[] = {
        { "self_attn.q_proj", d, d },   { "self_attn.k_proj", d, d }, { "self_attn.v_proj", d, d },
        { "self_attn.out_proj", d, d }, { "mlp.fc1", wide, d },       { "mlp.fc2", d, wide },
    };
    for (int64_t layer = 0; layer < model->feature_layer; ++layer)
        for (size_t i = 0; i < sizeof linears / sizeof linears[0]; ++i)
            F2B_TRY(add_pair(plan, "vision_tower.vision_model.encoder", layer, linears[i].leaf,
                             F2BI_ADAPTER_COMPRESSION, linears[i].out, linears[i].in, m->lora.r));
    return F2B_OK;
}

static f2b_status add_summary(f2bi_plan *plan, int64_t rows, int64_t columns)
{
    f2bi_added *item = grow(plan);
    if (!item) return f2b_last_status();
    item->name = f2b_strdup("summary_tokens", F2B_TAG_FILES);
    item->ndim = 2;
    item->shape[0] = rows;
    item->shape[1] = columns;
    return item->name ? F2B_OK : f2b_last_status();
}

/* Without a model only which adapters there are is known. */
static void fill_adapters(f2bi_plan *plan, const f2b_method *m)
{
    const bool shared = m->forward == F2B_FORWARD_DOUBLE && m->adapters == F2B_ADAPTERS_SINGLE;
    if (m->language_model != F2B_LANGUAGE_MODEL_LORA) return;
    plan->has[F2BI_ADAPTER_SHARED] = shared;
    plan->has[F2BI_ADAPTER_GENERATION] = !shared;
    plan->has[F2BI_ADAPTER_COMPRESSION] = !shared && m->forward != F2B_FORWARD_BASE;
}

static f2b_status fill(f2bi_plan *plan, const f2b_method *m, const f2b_model_config *model)
{
    const bool single = m->forward == F2B_FORWARD_SINGLE;
    if (model == NULL) {
        fill_adapters(plan, m);
        return F2B_OK;
    }
    if (single && !model->has_vision)
        return f2b_fail(F2B_ERR_INVALID, "forward: single needs a model with a vision tower");
    if (m->forward != F2B_FORWARD_BASE)
        F2B_TRY(add_summary(plan, m->tokens, single ? model->vision.hidden : model->text.hidden));
    if (m->language_model != F2B_LANGUAGE_MODEL_LORA) return F2B_OK;
    if (m->forward == F2B_FORWARD_DOUBLE && m->adapters == F2B_ADAPTERS_SINGLE)
        return add_language(plan, m, &model->text, F2BI_ADAPTER_SHARED);
    F2B_TRY(add_language(plan, m, &model->text, F2BI_ADAPTER_GENERATION));
    if (m->forward == F2B_FORWARD_DOUBLE)
        return add_language(plan, m, &model->text, F2BI_ADAPTER_COMPRESSION);
    return single ? add_tower(plan, m, model) : F2B_OK;
}

static int compare_added(const void *a, const void *b)
{
    const f2bi_added *x = a, *y = b;
    return strcmp(x->name, y->name);
}

f2b_status f2bi_plan_new(f2bi_plan *plan, const f2b_method *method, const f2b_model_config *model)
{
    *plan = (f2bi_plan){ 0 };
    const f2b_status status = fill(plan, method, model);
    if (status != F2B_OK) {
        f2bi_plan_free(plan);
        return status;
    }
    if (plan->n) qsort(plan->items, (size_t)plan->n, sizeof *plan->items, compare_added);
    return F2B_OK;
}

void f2bi_plan_free(f2bi_plan *plan)
{
    for (int64_t i = 0; i < plan->n; ++i) {
        f2b_free(plan->items[i].name);
        f2b_free(plan->items[i].module);
    }
    f2b_free(plan->items);
    *plan = (f2bi_plan){ 0 };
}

const f2bi_added *f2bi_plan_find(const f2bi_plan *plan, const char *name)
{
    const f2bi_added key = { .name = (char *)name };
    return plan->n ? bsearch(&key, plan->items, (size_t)plan->n, sizeof key, compare_added) : NULL;
}
