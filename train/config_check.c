/*
 * What must hold between keys, and what may change between stop and resume.
 */
#include <stdlib.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "data/prompt/prompt.h"
#include "train/config_internal.h"

/* The place of the first of the named keys that was not left at its default: the one to be
 * blamed. */
static const f2bi_place *blame(const f2bi_place *places, const char *key, const char *other)
{
    const int a = f2bi_field_find(key), b = f2bi_field_find(other);
    F2B_CHECK(a >= 0 && b >= 0);
    if (places[a].layer != F2BI_DEFAULT || places[b].layer == F2BI_DEFAULT) return &places[a];
    return &places[b];
}

static f2b_status check_method(const f2b_config *c, const f2bi_place *places)
{
    if (c->method.forward == F2B_FORWARD_BASE) {
        if (c->method.loss != F2B_LOSS_AUTOREGRESSIVE)
            return f2bi_config_fail(
                blame(places, "method.forward", "method.loss"),
                "method.forward: base makes no compressed tokens, so it has the "
                "autoregressive loss alone; set method.loss: autoregressive");
        if (c->trainable.language_model == F2B_LANGUAGE_MODEL_FROZEN && !c->trainable.projector &&
            !c->trainable.vision_tower)
            return f2bi_config_fail(blame(places, "trainable.language_model", "method.forward"),
                                    "nothing is trained: with method.forward: base, set "
                                    "trainable.language_model, projector or vision_tower");
        return F2B_OK;
    }
    if (c->summary.tokens < 1)
        return f2bi_config_fail(blame(places, "summary.tokens", "method.forward"),
                                "summary.tokens is at least 1 unless method.forward is base");
    if (strstr(c->summary.prompt, F2B_IMAGE_MARK) != NULL)
        return f2bi_config_fail(blame(places, "summary.prompt", "summary.tokens"),
                                "summary.prompt has " F2B_IMAGE_MARK " in it; the image comes before "
                                "the prompt by itself: leave the mark out");
    if (c->summary.tokens >= c->data.max_length)
        return f2bi_config_fail(
            blame(places, "data.max_length", "summary.tokens"),
            "data.max_length (%lld) leaves no room for text after summary.tokens "
            "(%lld)",
            (long long)c->data.max_length, (long long)c->summary.tokens);
    if (c->method.forward != F2B_FORWARD_SINGLE) return F2B_OK;
    /* The compressed tokens of `single` come out of the vision tower: these mean nothing there. */
    if (c->summary.attention != F2B_SUMMARY_CAUSAL)
        return f2bi_config_fail(blame(places, "summary.attention", "method.forward"),
                                "summary.attention: bidirectional needs the compression pass of "
                                "method.forward: double");
    if (c->summary.hidden_state != F2B_SUMMARY_FINAL_NORM)
        return f2bi_config_fail(blame(places, "summary.hidden_state", "method.forward"),
                                "summary.hidden_state: pre_norm needs the compression pass of "
                                "method.forward: double");
    if (c->summary.init != F2B_SUMMARY_INIT_NORMAL)
        return f2bi_config_fail(
            blame(places, "summary.init", "method.forward"),
            "summary.init: vocabulary needs summary tokens of the language model's "
            "width, those of method.forward: double");
    return F2B_OK;
}

/* Each loss that is asked for has data, so that no run trains half of what it says. */
static f2b_status check_data(const f2b_config *c, const f2bi_place *places)
{
    const bool captions = c->data.captions.n > 0 || c->data.conversation_captions.n > 0;
    if (c->method.loss != F2B_LOSS_CONTRASTIVE && c->data.conversations.n == 0)
        return f2bi_config_fail(blame(places, "data.conversations", "method.loss"),
                                "the autoregressive loss needs data.conversations");
    if (c->method.loss != F2B_LOSS_AUTOREGRESSIVE && !captions)
        return f2bi_config_fail(
            blame(places, "data.captions", "method.loss"),
            "the contrastive loss needs data.captions or "
            "data.conversation_captions; without it, set method.loss: autoregressive");
    if (c->data.conversation_captions.n > 0 && c->data.conversations.n == 0)
        return f2bi_config_fail(blame(places, "data.conversation_captions", "data.conversations"),
                                "data.conversation_captions are joined to data.conversations, and "
                                "there are none");
    return F2B_OK;
}

void f2bi_config_drop_loss(f2b_config *c)
{
    const bool captions = c->data.captions.n > 0 || c->data.conversation_captions.n > 0;
    if (c->data.conversations.n > 0 && !captions) c->method.loss = F2B_LOSS_AUTOREGRESSIVE;
    if (c->data.conversations.n == 0 && captions) c->method.loss = F2B_LOSS_CONTRASTIVE;
}

/* fp8 is a storage of its own: there is nothing to decode int8 or nf4 into. */
static f2b_status check_precision(const f2b_config *c, const f2bi_place *places)
{
    const bool small = c->model.weights == F2B_WEIGHTS_INT8 || c->model.weights == F2B_WEIGHTS_NF4;
    if (c->train.precision != F2B_PRECISION_FP8 || !small) return F2B_OK;
    return f2bi_config_fail(blame(places, "train.precision", "model.weights"),
                            "train.precision: fp8 stores the frozen matrices as 8-bit floats, and "
                            "model.weights the rest: set model.weights: bf16, or train.precision: bf16 "
                            "with weights that are smaller still");
}

/* What is trained changes from step to step: nothing of it can be kept. */
static f2b_status check_cache(const f2b_config *c, const f2bi_place *places)
{
    if (c->data.feature_cache == NULL) return F2B_OK;
    if (c->trainable.vision_tower)
        return f2bi_config_fail(blame(places, "data.feature_cache", "trainable.vision_tower"),
                                "data.feature_cache keeps what a frozen vision tower makes; with "
                                "trainable.vision_tower: true leave it out");
    if (c->method.forward == F2B_FORWARD_SINGLE)
        return f2bi_config_fail(blame(places, "data.feature_cache", "method.forward"),
                                "data.feature_cache keeps what a frozen vision tower makes; with "
                                "method.forward: single the tower compresses and is trained: leave "
                                "it out");
    return F2B_OK;
}

static f2b_status check_sources(const f2b_config *c, const f2bi_place *places)
{
    for (int i = 0; i < f2bi_n_fields; i++) {
        if (f2bi_fields[i].type != F2BI_SOURCES) continue;
        const f2b_config_sources *sources = f2bi_field_in(c, &f2bi_fields[i]);
        for (int64_t k = 0; k < sources->n; k++)
            if (sources->items[k].path == NULL)
                return f2bi_config_fail(&places[i], "%s[%lld] has no path", f2bi_fields[i].name,
                                        (long long)k);
    }
    return F2B_OK;
}

f2b_status f2bi_config_check(const f2b_config *config, const f2bi_place *places)
{
    F2B_TRY(check_sources(config, places));
    F2B_TRY(check_method(config, places));
    F2B_TRY(check_precision(config, places));
    F2B_TRY(check_cache(config, places));
    return check_data(config, places);
}

f2b_status f2b_config_check_resume(const f2b_config *saved, const f2b_config *now)
{
    char *text = NULL;
    size_t n = 0;
    FILE *memory = open_memstream(&text, &n);
    if (memory == NULL) return f2b_fail(F2B_ERR_MEMORY, "no memory to compare configurations");
    int differ = 0;
    for (int i = 0; i < f2bi_n_fields; i++) {
        const f2bi_field *field = &f2bi_fields[i];
        if (field->may_change || f2bi_field_equal(saved, now, field)) continue;
        fprintf(memory, "%s%s was ", differ > 0 ? "; " : "", field->name);
        f2bi_field_write(memory, saved, field);
        fputs(", is now ", memory);
        f2bi_field_write(memory, now, field);
        differ++;
    }
    f2b_status status = F2B_OK;
    if (fclose(memory) != 0)
        status = f2b_fail(F2B_ERR_MEMORY, "no memory to compare configurations");
    else if (differ > 0)
        status = f2b_fail(
            F2B_ERR_CONFIG,
            "the run cannot go on with other settings: %.1500s. Set %s back, or start a new "
            "run in another run.dir (trainable.start_from takes over what was trained)",
            text, differ == 1 ? "it" : "them");
    free(text);
    return status;
}

f2b_method f2b_config_method(const f2b_config *config)
{
    f2b_method m;
    memset(&m, 0, sizeof m); /* padding too: methods may be compared and hashed */
    m.tokens = config->summary.tokens;
    snprintf(m.prompt, sizeof m.prompt, "%s", config->summary.prompt);
    m.template_ = config->summary.template_;
    m.attention = config->summary.attention;
    m.hidden_state = config->summary.hidden_state;
    m.forward = config->method.forward;
    m.adapters = config->method.adapters;
    m.temperature_learned = !(config->method.temperature > 0);
    m.temperature = config->method.temperature;
    m.language_model = config->trainable.language_model;
    m.image_aspect_ratio = config->model.image_aspect_ratio;
    m.lora = (f2b_lora_settings){ .r = config->lora.r,
                                  .alpha = config->lora.alpha,
                                  .dropout = config->lora.dropout,
                                  .targets = config->lora.targets };
    return m;
}
