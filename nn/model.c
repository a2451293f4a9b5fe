/* See model.h. */
#include "nn/model.h"

#include <math.h>

#include "autograd/core/rng.h"
#include "autograd/device/device.h"

/* Which stages of the language model and of the tower have adapters under this method. */
static void plan_lora(const f2b_method *m, f2b_lora_plan *llm, f2b_lora_plan *tower)
{
    *llm = *tower = (f2b_lora_plan){ .r = m->lora.r };
    if (m->language_model != F2B_LANGUAGE_MODEL_LORA) return;
    llm->stage[F2B_STAGE_GENERATION] = true;
    if (m->forward == F2B_FORWARD_DOUBLE) {
        llm->stage[F2B_STAGE_COMPRESSION] = true;
        llm->shared = m->adapters == F2B_ADAPTERS_SINGLE;
    }
    if (m->forward == F2B_FORWARD_SINGLE) tower->stage[F2B_STAGE_COMPRESSION] = true;
}

/* Rows of the embedding table, which may be on a device, by way of the host. */
static f2b_status copy_rows(f2b_model *m, const f2b_model_options *o, char *row)
{
    f2b_rng r = f2b_rng_new(o->seed, F2B_RNG_INIT, f2b_hash_text("summary_tokens.rows"), 0, 0);
    const f2b_tensor *embed = m->llama->embed;
    const int64_t d = embed->shape[1];
    const size_t bytes = (size_t)d * f2b_dtype_size(embed->dtype);
    for (int64_t k = 0; k < m->summary_tokens->shape[0]; k++) {
        const int32_t id = o->init_ids[f2b_rng_below(&r, (uint64_t)o->n_init_ids)];
        if (id < 0 || id >= embed->shape[0])
            return f2b_fail(F2B_ERR_FORMAT, "the tokenizer's piece %d is outside the model's %lld "
                            "embedding rows", id, (long long)embed->shape[0]);
        F2B_TRY(f2b_copy(row, F2B_HOST, (const char *)embed->data + (size_t)id * bytes, embed->device,
                         bytes));
        F2B_TRY(f2b_tensor_write_as(m->summary_tokens, k * d, row, embed->dtype, d));
    }
    return F2B_OK;
}

static f2b_status start_from_vocabulary(f2b_model *m, const f2b_model_options *o)
{
    const f2b_tensor *embed = m->llama->embed;
    if (m->method.forward == F2B_FORWARD_SINGLE)
        return f2b_fail(F2B_ERR_CONFIG, "summary.init: vocabulary is not for method.forward: single, "
                        "whose summary tokens live in the vision tower; use normal");
    char *row = f2b_alloc_host((size_t)embed->shape[1] * f2b_dtype_size(embed->dtype), F2B_TAG_SCRATCH);
    const f2b_status status = row != NULL ? copy_rows(m, o, row) : F2B_ERR_MEMORY;
    f2b_free(row);
    return status;
}

static f2b_status build_additions(f2b_model *m, const f2b_model_options *o)
{
    const bool single = m->method.forward == F2B_FORWARD_SINGLE;
    if (m->method.forward == F2B_FORWARD_BASE) return F2B_OK;
    const int64_t shape[] = { m->method.tokens,
                              single ? m->config.vision.hidden : m->config.text.hidden };
    m->summary_tokens = f2b_weights_new(&m->weights, "summary_tokens", 2, shape,
                                        (f2b_init){ F2B_INIT_NORMAL, 0.02 }, false,
                                        F2B_GROUP_SUMMARY);
    if (m->summary_tokens == NULL) return f2b_last_status();
    if (o->n_init_ids > 0) F2B_TRY(start_from_vocabulary(m, o));
    if (!m->method.temperature_learned) return F2B_OK;
    m->log_temperature = f2b_weights_new(&m->weights, "log_temperature", 1, (int64_t[]){ 1 },
                                         (f2b_init){ F2B_INIT_CONSTANT, log(0.07) }, false,
                                         F2B_GROUP_TEMPERATURE);
    return m->log_temperature != NULL ? F2B_OK : f2b_last_status();
}

static f2b_status build(f2b_model *m, const f2b_model_options *o)
{
    f2b_lora_plan llm, tower;
    plan_lora(&m->method, &llm, &tower);
    const f2b_llama_options options = {
        .trained = m->method.language_model == F2B_LANGUAGE_MODEL_FULL && !o->frozen,
        .lora = llm, .targets = m->method.lora.targets,
    };
    m->llama = f2b_llama_new(&m->config.text, &m->weights, &options);
    if (m->llama == NULL) return f2b_last_status();
    if (m->config.has_vision) {
        m->clip = f2b_clip_new(&m->config, &m->weights, m->train_vision,
                               tower.stage[F2B_STAGE_COMPRESSION] ? &tower : NULL);
        if (m->clip == NULL) return f2b_last_status();
        F2B_TRY(f2b_projector_build(&m->projector, &m->config, &m->weights, m->train_projector));
    }
    return build_additions(m, o);
}

f2b_model *f2b_model_new(const f2b_model_options *o)
{
    f2b_model *m = f2b_calloc(1, sizeof *m, F2B_TAG_OTHER);
    if (m == NULL) return NULL;
    m->config = o->config, m->method = o->method, m->device = o->device, m->compute = o->compute;
    m->train_projector = o->train_projector && !o->frozen;
    m->train_vision = o->train_vision && !o->frozen;
    m->weights = (f2b_weight_builder){ .file = o->file, .device = o->device, .storage = o->storage,
                                .master = o->compute == F2B_F64 ? F2B_F64 : F2B_F32,
                                .fp8 = o->fp8, .seed = o->seed, .parameters = &m->parameters };
    if (build(m, o) != F2B_OK) {
        f2b_model_free(m);
        return NULL;
    }
    m->weights.file = NULL;
    for (int64_t i = 0; o->frozen && i < m->parameters.n; i++)
        m->parameters.items[i].tensor->requires_grad = false;
    return m;
}

void f2b_model_free(f2b_model *m)
{
    if (m == NULL) return;
    f2b_llama_free(m->llama);
    f2b_clip_free(m->clip);
    f2b_parameters_clear(&m->parameters);
    f2b_weights_clear(&m->weights);
    f2b_free(m);
}

int64_t f2b_model_image_rows(const f2b_model *m)
{
    return m->method.forward == F2B_FORWARD_BASE ? f2b_image_tokens(&m->config) : m->method.tokens;
}

double f2b_model_lora_scale(const f2b_model *m)
{
    return m->method.language_model == F2B_LANGUAGE_MODEL_LORA
           ? m->method.lora.alpha / (double)m->method.lora.r : 0;
}

bool f2b_model_trains_images(const f2b_model *m)
{
    return m->train_projector || m->train_vision || m->method.forward == F2B_FORWARD_SINGLE;
}
