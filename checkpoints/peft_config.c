/*
 * adapter_config.json and the keys of adapter_model.safetensors as huggingface/peft reads them
 * (src/peft/tuners/lora/config.py, src/peft/utils/save_and_load.py).
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "checkpoints/export_internal.h"
#include "checkpoints/json_internal.h"
#include "checkpoints/method_json.h"
#include "checkpoints/model_internal.h"

#define KEY_PREFIX "base_model.model."
enum { MAX_CONFIG_BYTES = 1 << 20, MAX_REGEX = 1 << 15 };

static const char *leaf_of(const char *module) { return strrchr(module, '.') + 1; }

/* Each leaf name once, in the order of its first appearance: q_proj, k_proj, ... */
static json_t *leaf_names(const f2bi_plan *plan, f2bi_adapter adapter, const char *part)
{
    json_t *names = json_array();
    for (int64_t i = 0; i < plan->n; ++i) {
        const f2bi_added *a = &plan->items[i];
        if (!a->module || a->adapter != adapter || strncmp(a->module, part, strlen(part)) != 0)
            continue;
        bool known = false;
        for (size_t j = 0; j < json_array_size(names); ++j)
            known = known ||
                    strcmp(json_string_value(json_array_get(names, j)), leaf_of(a->module)) == 0;
        if (!known) json_array_append_new(names, json_string(leaf_of(a->module)));
    }
    return names;
}

/* Text at the end of another; false where there is no room. */
static bool append(char *text, int *n, const char *format, ...) F2B_PRINTF(3, 4);
static bool append(char *text, int *n, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const int more = vsnprintf(text + *n, (size_t)(MAX_REGEX - *n), format, arguments);
    va_end(arguments);
    if (more < 0 || more >= MAX_REGEX - *n) return false;
    *n += more;
    return true;
}

/* The beginning of the expression: everything before the leaf names. */
static bool append_modules(char *text, int *n, bool tower, const f2b_model_config *model,
                           f2b_export_names names)
{
    if (!tower)
        return append(text, n, "%s", names == F2B_EXPORT_NAMES_LLAMA
                                         ? "model\\.layers\\.[0-9]+\\.(self_attn|mlp)\\.("
                                         : ".*language_model.*\\.(");
    bool ok = append(text, n, ".*vision_tower.*\\.layers\\.(");
    for (int64_t i = 0; ok && i < model->feature_layer; ++i)
        ok = append(text, n, "%s%lld", i ? "|" : "", (long long)i);
    return ok && append(text, n, ")\\..*\\.(");
}

/*
 * A list entry would match any module whose name ends in it, in the vision tower too (q_proj is in
 * both), so a LLaVA base gets a regular expression over the full name. The tower's also names the
 * layers, as the last ones have no adapter.
 */
static json_t *target_regex(const f2bi_plan *plan, f2bi_adapter adapter,
                            const f2b_model_config *model, f2b_export_names names)
{
    json_t *leaves = leaf_names(plan, adapter, "language_model.");
    const bool tower = json_array_size(leaves) == 0;
    if (tower) {
        json_decref(leaves);
        leaves = leaf_names(plan, adapter, "vision_tower.");
    }
    char *text = f2b_alloc_host(MAX_REGEX, F2B_TAG_FILES);
    if (!text) {
        json_decref(leaves);
        return NULL;
    }
    int n = 0;
    bool ok = append_modules(text, &n, tower, model, names);
    for (size_t i = 0; ok && i < json_array_size(leaves); ++i)
        ok = append(text, &n, "%s%s", i ? "|" : "", json_string_value(json_array_get(leaves, i)));
    json_t *regex = ok && append(text, &n, ")") ? json_string(text) : NULL;
    if (!regex)
        (void)f2b_fail(F2B_ERR_INVALID, "the vision tower has too many layers for an export");
    f2b_free(text);
    json_decref(leaves);
    return regex;
}

json_t *f2bi_adapter_config(const f2bi_plan *plan, f2bi_adapter adapter,
                            const f2b_export_info *info, const f2b_model_config *model,
                            f2b_export_names names)
{
    const f2b_lora_settings *lora = &info->method.lora;
    json_t *targets = model->has_vision ? target_regex(plan, adapter, model, names)
                                        : leaf_names(plan, adapter, "language_model.");
    if (!targets) return NULL;
    const bool whole = lora->alpha == floor(lora->alpha);
    json_t *config = json_pack(
        "{s:s, s:s, s:s, s:I, s:o, s:f, s:o, s:s, s:b, s:n, s:b, s:n, s:n, s:{}, s:{}, s:b, s:b, "
        "s:b, "
        "s:n, s:n, s:n, s:b}",
        "peft_type", "LORA", "task_type", "CAUSAL_LM", "base_model_name_or_path", info->base_path,
        "r", (json_int_t)lora->r, "lora_alpha",
        whole ? json_integer((json_int_t)lora->alpha) : json_real(lora->alpha), "lora_dropout",
        lora->dropout, "target_modules", targets, "bias", "none", "fan_in_fan_out", 0,
        "modules_to_save", "init_lora_weights", 1, "layers_to_transform", "layers_pattern",
        "rank_pattern", "alpha_pattern", "use_rslora", 0, "use_dora", 0, "lora_bias", 0,
        "exclude_modules", "auto_mapping", "revision", "inference_mode", 1);
    if (!config) (void)f2b_fail(F2B_ERR_INVALID, "the base model's path is not UTF-8");
    return config;
}

static void refuse_unless_empty(f2bi_json_reader *r, const json_t *config, const char *key)
{
    const json_t *value = f2bi_json_get(config, key);
    if (value && !json_is_false(value) && json_object_size(value) + json_array_size(value) == 0
        && (json_is_object(value) || json_is_array(value))) return;
    if (value && !json_is_false(value)) f2bi_json_fail(r, "%s is set, which is not supported", key);
}

f2b_status f2bi_adapter_config_check(const char *path, const f2b_method *method)
{
    static const char *const unsupported[] = {
        "fan_in_fan_out",
        "modules_to_save",
        "layers_to_transform",
        "rank_pattern",
        "alpha_pattern",
        "use_rslora",
        "use_dora",
        "lora_bias",
        "megatron_config",
        "layer_replication",
        "trainable_token_indices",
    };
    json_t *config = f2bi_json_load(path, MAX_CONFIG_BYTES);
    if (!config) return f2b_last_status();
    f2bi_json_reader r = { path, F2B_OK };
    if (strcmp(f2bi_json_string(&r, config, "peft_type", ""), "LORA") != 0)
        f2bi_json_fail(&r, "peft_type is not LORA");
    if (strcmp(f2bi_json_string(&r, config, "bias", "none"), "none") != 0)
        f2bi_json_fail(&r, "bias is not none, which is not supported");
    for (size_t i = 0; i < sizeof unsupported / sizeof unsupported[0]; ++i)
        refuse_unless_empty(&r, config, unsupported[i]);
    const int64_t rank = f2bi_json_integer(&r, config, "r", 8, 1, INT32_MAX);
    if (rank != method->lora.r)
        f2bi_json_fail(&r, "r is %lld, but f2b.json says %lld", (long long)rank,
                       (long long)method->lora.r);
    if (f2bi_json_number(&r, config, "lora_alpha", 8, 0, 1e9) != method->lora.alpha)
        f2bi_json_fail(&r, "lora_alpha is not the %g of f2b.json", method->lora.alpha);
    json_decref(config);
    return r.status;
}

f2b_status f2bi_export_names(f2b_export_names *names, const f2b_model_config *model)
{
    if (*names == F2B_EXPORT_NAMES_OF_BASE)
        *names = model->has_vision ? F2B_EXPORT_NAMES_LLAVA : F2B_EXPORT_NAMES_LLAMA;
    if (model->has_vision || *names == F2B_EXPORT_NAMES_LLAMA) return F2B_OK;
    return f2b_fail(F2B_ERR_INVALID, "the base is a plain Llama: its modules have no names of a "
                                     "LLaVA");
}

char *f2bi_adapter_key(const f2bi_added *added, f2b_export_names names)
{
    /* The registry's names are those of LLAVA; the first prefix that fits is replaced. */
    static const struct { f2b_export_names names; const char *from, *to; } prefixes[] = {
        { F2B_EXPORT_NAMES_LLAVA_4_52, "language_model.model.", "model.language_model." },
        { F2B_EXPORT_NAMES_LLAVA_4_52, "vision_tower.", "model.vision_tower." },
        { F2B_EXPORT_NAMES_LLAMA, "language_model.model.", "model." },
        { F2B_EXPORT_NAMES_LLAMA, "vision_tower.", "model.vision_tower.vision_tower." },
    };
    const char *module = added->module, *prefix = "";
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; ++i) {
        const size_t n = strlen(prefixes[i].from);
        if (prefixes[i].names != names || strncmp(module, prefixes[i].from, n) != 0) continue;
        prefix = prefixes[i].to, module += n;
        break;
    }
    return f2b_sprintf(F2B_TAG_FILES, KEY_PREFIX "%s%s.lora_%c.weight", prefix, module,
                       added->is_b ? 'B' : 'A');
}

char *f2bi_adapter_key_name(const char *key, f2bi_adapter adapter, const char *path)
{
    static const char *const ends[2] = { ".lora_A.weight", ".lora_B.weight" };
    const size_t n = strlen(key), end = strlen(ends[0]), start = strlen(KEY_PREFIX);
    for (int b = 0; b < 2; ++b) {
        if (n <= start + end || strncmp(key, KEY_PREFIX, start) != 0
            || strcmp(key + n - end, ends[b]) != 0) continue;
        char *module = f2b_sprintf(F2B_TAG_FILES, "%.*s", (int)(n - end - start), key + start);
        char *stored = module ? f2bi_weight_name(module) : NULL;
        char *name = stored ? f2b_sprintf(F2B_TAG_FILES, "%s.%s.lora_%c", stored,
                                          f2bi_adapter_name(adapter), b ? 'B' : 'A') : NULL;
        f2b_free(stored);
        f2b_free(module);
        return name;
    }
    (void)f2b_fail(F2B_ERR_FORMAT, "%s: %s is no key of a LoRA tensor (" KEY_PREFIX
                   "MODULE.lora_A.weight)", path, key);
    return NULL;
}
