/* Generation over slots of a key/value cache. See generate.h for the contract. */
#include "infer/generate.h"

#include <inttypes.h>
#include <string.h>

#include "autograd/ops/linear/linear.h"
#include "infer/generate_internal.h"
#include "nn/passes.h"

struct f2b_generator {
    const f2b_model *model;
    f2b_stage stage;
    f2b_tape *tape;
    f2b_kv_cache cache;
    int64_t *rows; /* [slots] that each holds */
};

static f2b_status allocate(f2b_generator *g)
{
    const f2b_text_config *c = &g->model->config.text;
    const int64_t shape[] = { g->cache.slots * g->cache.capacity, c->kv_heads * c->head_dim };
    g->tape = f2b_tape_new(g->model->device);
    g->rows = f2b_calloc((size_t)g->cache.slots, sizeof *g->rows, F2B_TAG_OTHER);
    g->cache.k = f2b_calloc((size_t)c->layers, sizeof *g->cache.k, F2B_TAG_OTHER);
    g->cache.v = f2b_calloc((size_t)c->layers, sizeof *g->cache.v, F2B_TAG_OTHER);
    if (!g->tape || !g->rows || !g->cache.k || !g->cache.v) return f2b_last_status();
    (void)f2b_tape_set_recording(g->tape, false);
    for (int64_t i = 0; i < c->layers; i++) {
        g->cache.k[i] =
            f2b_tensor_new(g->model->device, g->model->compute, 2, shape, F2B_TAG_CACHE);
        g->cache.v[i] =
            f2b_tensor_new(g->model->device, g->model->compute, 2, shape, F2B_TAG_CACHE);
        if (g->cache.k[i] == NULL || g->cache.v[i] == NULL) return f2b_last_status();
    }
    return F2B_OK;
}

f2b_generator *f2b_generator_new(const f2b_model *model, f2b_stage stage, int64_t slots,
                                 int64_t capacity)
{
    const f2b_text_config *c = &model->config.text;
    F2B_RETURN_NULL_IF(
        slots < 1 || capacity < 1 || capacity > c->max_positions || slots > INT32_MAX / capacity,
        F2B_ERR_INVALID,
        "generation: %" PRId64 " slots of %" PRId64 " rows; a slot has 1 to %" PRId64 " rows",
        slots, capacity, c->max_positions);
    f2b_generator *g = f2b_calloc(1, sizeof *g, F2B_TAG_OTHER);
    if (g == NULL) return NULL;
    g->model = model, g->stage = stage;
    g->cache = (f2b_kv_cache){ .layers = c->layers, .slots = slots, .capacity = capacity };
    if (allocate(g) == F2B_OK) return g;
    f2b_generator_free(g);
    return NULL;
}

void f2b_generator_free(f2b_generator *g)
{
    if (g == NULL) return;
    for (int64_t i = 0; i < g->cache.layers; i++) {
        if (g->cache.k != NULL) f2b_tensor_free(g->cache.k[i]);
        if (g->cache.v != NULL) f2b_tensor_free(g->cache.v[i]);
    }
    f2b_free(g->cache.k);
    f2b_free(g->cache.v);
    f2b_free(g->rows);
    f2b_tape_free(g->tape);
    f2b_free(g);
}

int64_t f2b_generator_rows(const f2b_generator *g, int64_t slot)
{
    F2B_CHECK(slot >= 0 && slot < g->cache.slots);
    return g->rows[slot];
}

void f2b_generator_rewind(f2b_generator *g, int64_t slot, int64_t rows)
{
    F2B_CHECK(slot >= 0 && slot < g->cache.slots && rows >= 0 && rows <= g->rows[slot]);
    g->rows[slot] = rows;
}

/* Where each sequence goes on in the cache; f2b_free. */
static f2b_pack_slot *places(const f2b_generator *g, const int64_t *slots, int64_t n)
{
    f2b_pack_slot *p = f2b_calloc((size_t)n, sizeof *p, F2B_TAG_DATA);
    for (int64_t s = 0; p != NULL && s < n; s++)
        p[s] = (f2b_pack_slot){ slots[s] * g->cache.capacity, g->rows[slots[s]] };
    return p;
}

static f2b_status check_items(const f2b_generator *g, const f2b_pack_item *items,
                              const int64_t *slots, int64_t n, const f2b_pack_options *o,
                              bool has_images)
{
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; !has_images && j < items[i].n; j++)
            if (items[i].ids[j] == F2B_ROW_IMAGE)
                return f2b_fail(F2B_ERR_DATA, "sequence %" PRId64 " has an image mark but no image",
                                i);
        F2B_CHECK(slots[i] >= 0 && slots[i] < g->cache.slots);
        const int64_t rows = f2b_pack_item_rows(&items[i], o), held = g->rows[slots[i]];
        if (rows > g->cache.capacity - held)
            return f2b_fail(F2B_ERR_DATA,
                            "sequence %" PRId64 ": %" PRId64 " rows behind %" PRId64
                            " do not fit the %" PRId64 " of its slot",
                            i, rows, held, g->cache.capacity);
    }
    return F2B_OK;
}

f2b_tensor *f2b_generator_feed(f2b_generator *g, const f2b_pack_item *items, const int64_t *slots,
                               int64_t n, f2b_tensor *images)
{
    const f2b_model *m = g->model;
    f2b_pack_options o = { .image_rows = f2b_model_image_rows(m), .last_row = true };
    f2b_pack pack;
    if (check_items(g, items, slots, n, &o, images != NULL) != F2B_OK) return NULL;
    f2b_tape_reset(g->tape);
    f2b_pack_slot *at = places(g, slots, n);
    if (at == NULL) return NULL;
    o.slots = at;
    const f2b_status status = f2b_pack_build(g->tape, items, n, &o, &pack);
    f2b_free(at);
    if (status != F2B_OK) return NULL;
    const f2b_pass pass = {
        .stage = g->stage,
        .rows = &pack.all,
        .wanted = &pack.wanted,
        .final_norm = true,
        .lora_scale = f2b_model_lora_scale(m),
        .cache = &g->cache,
        .cache_rows = pack.stored,
    };
    f2b_tensor *x = f2b_pass_input(g->tape, m, &pack, images);
    f2b_tensor *h = f2b_llama_forward(g->tape, m->llama, x, &pass);
    f2b_tensor *logits = f2b_linear(g->tape, h, m->llama->head, NULL);
    if (logits == NULL) return NULL;
    for (int64_t i = 0; i < n; i++) g->rows[slots[i]] += f2b_pack_item_rows(&items[i], &o);
    return logits;
}

/* ---- Answers ---- */

/* Sequences that still run: which prompt each belongs to (its slot too), and its newest id. */
typedef struct live_set {
    int64_t n;
    int64_t *prompt;
    uint64_t *key; /* of each prompt */
    int32_t *id;
    f2b_pack_item *items;
} live_set;

/* Take the next id of every live sequence; those that end leave the set. */
static f2b_status advance(live_set *live, const f2b_tensor *logits, const f2b_generator *g,
                          const f2b_generate_options *o, f2b_ids *out)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < live->n; i++) {
        const int64_t prompt = live->prompt[i];
        int32_t id;
        if (f2bi_choose_id(logits, i, &o->sampling, live->key[prompt], out[prompt].n, &id) != F2B_OK)
            return f2b_fail_context("prompt %" PRId64, prompt);
        if (o->token != NULL) F2B_TRY(o->token(o->context, prompt, id));
        if (id == o->eos_id) continue;
        F2B_TRY(f2b_ids_push(&out[prompt], id));
        if (out[prompt].n == o->max_new_tokens || g->rows[prompt] == g->cache.capacity) continue;
        live->prompt[kept] = prompt;
        live->id[kept++] = id;
    }
    live->n = kept;
    for (int64_t i = 0; i < kept; i++)
        live->items[i] = (f2b_pack_item){ .ids = &live->id[i], .n = 1 };
    return F2B_OK;
}

static f2b_status run(f2b_generator *g, live_set *live, const f2b_pack_item *prompts, int64_t n,
                      f2b_tensor *images, const f2b_generate_options *o, f2b_ids *out)
{
    for (int64_t i = 0; i < n; i++) live->prompt[i] = i, live->key[i] = prompts[i].key;
    live->n = n;
    const f2b_tensor *logits = f2b_generator_feed(g, prompts, live->prompt, n, images);
    while (logits != NULL) {
        f2b_tensor *here = f2b_tensor_on_host(logits);
        const f2b_status status = here != NULL ? advance(live, here, g, o, out) : f2b_last_status();
        f2b_tensor_free(here);
        if (status != F2B_OK || live->n == 0) return status;
        if (o->stop != NULL && o->stop(o->context))
            return f2b_fail(F2B_ERR_STOPPED, "stopped while answering");
        logits = f2b_generator_feed(g, live->items, live->prompt, live->n, NULL);
    }
    return f2b_last_status();
}

f2b_status f2b_generate_check(const f2b_model *m, const f2b_pack_item *prompt)
{
    const f2b_pack_options o = { .image_rows = f2b_model_image_rows(m) };
    const int64_t rows = f2b_pack_item_rows(prompt, &o), context = m->config.text.max_positions;
    if (rows <= context) return F2B_OK;
    return f2b_fail(F2B_ERR_DATA,
                    "a prompt of %" PRId64 " rows does not fit the model's context of %" PRId64
                    " (max_position_embeddings); shorten the question, or what was said before it",
                    rows, context);
}

/* Rows of the longest prompt and its answer, within the model's context. */
static f2b_status slot_capacity(const f2b_model *m, const f2b_pack_item *prompts, int64_t n,
                                int64_t max_new_tokens, int64_t *capacity)
{
    const f2b_pack_options o = { .image_rows = f2b_model_image_rows(m) };
    const int64_t context = m->config.text.max_positions;
    int64_t longest = 0;
    for (int64_t i = 0; i < n; i++) {
        if (f2b_generate_check(m, &prompts[i]) != F2B_OK)
            return f2b_fail_context("prompt %" PRId64, i);
        const int64_t rows = f2b_pack_item_rows(&prompts[i], &o);
        if (rows > longest) longest = rows;
    }
    *capacity = max_new_tokens - 1 > context - longest ? context : longest + max_new_tokens - 1;
    return F2B_OK;
}

static f2b_status check_options(const f2b_generate_options *o)
{
    const f2b_sampling *s = &o->sampling;
    if (o->max_new_tokens < 1)
        return f2b_fail(F2B_ERR_INVALID, "max_new_tokens %" PRId64 " is not positive",
                        o->max_new_tokens);
    if (!(s->temperature >= 0) || !(s->top_p >= 0 && s->top_p <= 1))
        return f2b_fail(F2B_ERR_INVALID, "sampling with temperature %g and top_p %g",
                        s->temperature, s->top_p);
    return F2B_OK;
}

f2b_status f2b_generator_answer(f2b_generator *g, const f2b_pack_item *prompts, int64_t n,
                                f2b_tensor *images, const f2b_generate_options *o, f2b_ids *out)
{
    F2B_CHECK(n <= g->cache.slots);
    F2B_TRY(check_options(o));
    if (n == 0) return F2B_OK;
    live_set live = {
        .prompt = f2b_calloc((size_t)n, sizeof *live.prompt, F2B_TAG_OTHER),
        .key = f2b_calloc((size_t)n, sizeof *live.key, F2B_TAG_OTHER),
        .id = f2b_calloc((size_t)n, sizeof *live.id, F2B_TAG_OTHER),
        .items = f2b_calloc((size_t)n, sizeof *live.items, F2B_TAG_OTHER),
    };
    const f2b_status status = live.prompt && live.key && live.id && live.items
                                  ? run(g, &live, prompts, n, images, o, out)
                                  : f2b_last_status();
    f2b_free(live.prompt);
    f2b_free(live.key);
    f2b_free(live.id);
    f2b_free(live.items);
    return status;
}

f2b_status f2b_generate(const f2b_model *m, const f2b_pack_item *prompts, int64_t n,
                        f2b_tensor *images, const f2b_generate_options *o, f2b_ids *out)
{
    F2B_TRY(check_options(o));
    if (n == 0) return F2B_OK;
    int64_t capacity = 0;
    F2B_TRY(slot_capacity(m, prompts, n, o->max_new_tokens, &capacity));
    f2b_generator *g = f2b_generator_new(m, o->stage, n, capacity);
    const f2b_status status =
        g != NULL ? f2b_generator_answer(g, prompts, n, images, o, out) : f2b_last_status();
    f2b_generator_free(g);
    return status;
}
