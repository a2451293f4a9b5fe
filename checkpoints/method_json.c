/* f2b_method as JSON. See method_json.h for the contract. The names are spelled only here. */
#include "checkpoints/method_json.h"

#include <string.h>

#include "autograd/core/alloc.h"
#include "checkpoints/json_internal.h"
#include "checkpoints/method_internal.h"

/* In the order of the enumerations in nn/method.h. */
static const char *const templates[] = { "vicuna_v1", "plain" };
static const char *const attentions[] = { "causal", "bidirectional" };
static const char *const hiddens[] = { "final_norm", "pre_norm" };
static const char *const forwards[] = { "double", "single", "base" };
static const char *const adapters[] = { "stage", "single" };
static const char *const language_models[] = { "lora", "full", "frozen" };
static const char *const aspects[] = { "pad", "crop" };
static const char *const targets[] = {
#define F2B_X(target, name) name,
    F2B_LORA_TARGET_LIST(F2B_X)
#undef F2B_X
};
#define COUNT(names) ((int)(sizeof(names) / sizeof(names)[0]))

const char *f2b_summary_template_name(f2b_summary_template value) { return templates[value]; }
const char *f2b_summary_attention_name(f2b_summary_attention value) { return attentions[value]; }
const char *f2b_summary_hidden_name(f2b_summary_hidden value) { return hiddens[value]; }
const char *f2b_forward_name(f2b_forward value) { return forwards[value]; }
const char *f2b_adapters_name(f2b_adapters value) { return adapters[value]; }
const char *f2b_language_model_name(f2b_language_model value) { return language_models[value]; }
const char *f2b_aspect_ratio_name(f2b_aspect_ratio value) { return aspects[value]; }
const char *f2b_lora_target_name(f2b_lora_target target) { return targets[target]; }

static json_t *lora_json(const f2b_lora_settings *lora)
{
    json_t *names = json_array();
    for (int i = 0; i < F2B_LORA_TARGETS; ++i)
        if (lora->targets & 1u << i) json_array_append_new(names, json_string(targets[i]));
    return json_pack("{s:I, s:f, s:f, s:o}", "r", (json_int_t)lora->r, "alpha", lora->alpha,
                     "dropout", lora->dropout, "targets", names);
}

json_t *f2bi_method_object(const f2b_method *m)
{
    json_t *temperature = m->temperature_learned ? json_string("learned")
                                                 : json_real(m->temperature);
    json_t *object = json_pack(
        "{s:I, s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:s, s:s, s:o}", "tokens", (json_int_t)m->tokens,
        "prompt", m->prompt, "template", templates[m->template_], "attention",
        attentions[m->attention], "hidden_state", hiddens[m->hidden_state], "forward",
        forwards[m->forward], "adapters", adapters[m->adapters], "temperature", temperature,
        "language_model", language_models[m->language_model], "image_aspect_ratio",
        aspects[m->image_aspect_ratio], "lora", lora_json(&m->lora));
    if (!object) (void)f2b_fail(F2B_ERR_INVALID, "the method's prompt is not UTF-8");
    return object;
}

char *f2b_method_to_json(const f2b_method *method)
{
    json_t *object = f2bi_method_object(method);
    if (!object) return NULL;
    char *text = f2bi_json_text(object, JSON_COMPACT);
    json_decref(object);
    return text;
}

static void read_lora(f2bi_json_reader *r, const json_t *object, f2b_lora_settings *lora)
{
    static const char *const keys[] = { "r", "alpha", "dropout", "targets" };
    if (!json_is_object(object)) f2bi_json_fail(r, "lora must be an object");
    f2bi_json_known_keys(r, object, keys, COUNT(keys));
    lora->r = f2bi_json_integer(r, object, "r", 0, 1, 1 << 16);
    lora->alpha = f2bi_json_number(r, object, "alpha", -1, 0, 1e9);
    lora->dropout = f2bi_json_number(r, object, "dropout", -1, 0, 1);
    if (lora->r < 1 || lora->alpha < 0 || lora->dropout < 0)
        f2bi_json_fail(r, "lora needs r, alpha and dropout");
    const json_t *names = f2bi_json_get(object, "targets");
    if (!json_is_array(names)) f2bi_json_fail(r, "lora.targets must be a list");
    lora->targets = 0;
    for (size_t i = 0; i < json_array_size(names); ++i) {
        const char *name = json_string_value(json_array_get(names, i));
        int found = -1;
        for (int j = 0; j < F2B_LORA_TARGETS; ++j)
            if (name && strcmp(name, targets[j]) == 0) found = j;
        if (found < 0 || lora->targets & 1u << found)
            f2bi_json_fail(r, "lora.targets: \"%.60s\" is unknown or there twice",
                           name ? name : "");
        else lora->targets |= 1u << found;
    }
}

static void read_temperature(f2bi_json_reader *r, const json_t *object, f2b_method *m)
{
    const json_t *value = f2bi_json_get(object, "temperature");
    m->temperature_learned = json_is_string(value)
                          && strcmp(json_string_value(value), "learned") == 0;
    if (m->temperature_learned) return;
    m->temperature = json_number_value(value);
    if (!json_is_number(value) || !(m->temperature > 0 && m->temperature <= 1e6))
        f2bi_json_fail(r, "temperature must be a positive number or \"learned\"");
}

f2b_status f2bi_method_read(f2b_method *m, const json_t *object, const char *where)
{
    static const char *const keys[] = {
        "tokens", "prompt", "template", "attention", "hidden_state", "forward", "adapters",
        "temperature", "language_model", "image_aspect_ratio", "lora",
    };
    f2bi_json_reader r = { where, F2B_OK };
    *m = (f2b_method){ 0 };
    f2bi_json_known_keys(&r, object, keys, COUNT(keys));
    m->tokens = f2bi_json_integer(&r, object, "tokens", 0, 1, 1 << 20);
    if (m->tokens < 1) f2bi_json_fail(&r, "tokens is missing");
    const char *prompt = f2bi_json_string(&r, object, "prompt", NULL);
    if (!prompt || strlen(prompt) >= sizeof m->prompt)
        f2bi_json_fail(&r, "prompt is missing, or longer than %d bytes",
                       F2B_METHOD_PROMPT_BYTES - 1);
    else strcpy(m->prompt, prompt);
    m->template_ = (f2b_summary_template)f2bi_json_choice(&r, object, "template", templates,
                                                          COUNT(templates));
    m->attention = (f2b_summary_attention)f2bi_json_choice(&r, object, "attention", attentions,
                                                           COUNT(attentions));
    m->hidden_state = (f2b_summary_hidden)f2bi_json_choice(&r, object, "hidden_state", hiddens,
                                                           COUNT(hiddens));
    m->forward = (f2b_forward)f2bi_json_choice(&r, object, "forward", forwards, COUNT(forwards));
    m->adapters = (f2b_adapters)f2bi_json_choice(&r, object, "adapters", adapters, COUNT(adapters));
    read_temperature(&r, object, m);
    m->language_model = (f2b_language_model)f2bi_json_choice(
        &r, object, "language_model", language_models, COUNT(language_models));
    m->image_aspect_ratio = (f2b_aspect_ratio)f2bi_json_choice(&r, object, "image_aspect_ratio",
                                                               aspects, COUNT(aspects));
    read_lora(&r, f2bi_json_get(object, "lora"), &m->lora);
    return r.status;
}

f2b_status f2b_method_from_json(f2b_method *method, const char *json, const char *where)
{
    json_t *object = f2bi_json_parse(json, where);
    if (!object) return f2b_last_status();
    const f2b_status status = f2bi_method_read(method, object, where);
    json_decref(object);
    return status;
}
