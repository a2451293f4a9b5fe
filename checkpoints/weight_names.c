/* Three ways to name the tensors of LLaVA, made one (fact sheet section 4.2). */
#include <string.h>

#include "autograd/core/alloc.h"
#include "checkpoints/model_internal.h"

/* The first prefix that fits counts. */
static const struct { const char *from, *to; } prefixes[] = {
    { "language_model.",                   "language_model." },
    { "multi_modal_projector.",            "multi_modal_projector." },
    { "vision_tower.",                     "vision_tower." },
    { "model.language_model.",             "language_model.model." },           /* >= 4.52 */
    { "model.multi_modal_projector.",      "multi_modal_projector." },
    { "model.mm_projector.0.",             "multi_modal_projector.linear_1." }, /* haotian-liu */
    { "model.mm_projector.2.",             "multi_modal_projector.linear_2." },
    { "model.vision_tower.vision_tower.",  "vision_tower." },
    { "model.vision_tower.",               "vision_tower." },
    { "vision_model.",                     "vision_tower.vision_model." },      /* a CLIP folder */
    { "model.",                            "language_model.model." },           /* plain Llama */
    { "lm_head.",                          "language_model.lm_head." },
};

char *f2bi_weight_name(const char *stored)
{
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; ++i) {
        const size_t n = strlen(prefixes[i].from);
        if (strncmp(stored, prefixes[i].from, n) == 0)
            return f2b_sprintf(F2B_TAG_FILES, "%s%s", prefixes[i].to, stored + n);
    }
    return f2b_strdup(stored, F2B_TAG_FILES);
}

static bool ends_in(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

bool f2bi_weight_is_ignored(const char *stored)
{
    return ends_in(stored, ".inv_freq") || ends_in(stored, ".position_ids")
        || strncmp(stored, "text_model.", 11) == 0 || strcmp(stored, "logit_scale") == 0
        || strcmp(stored, "text_projection.weight") == 0
        || strcmp(stored, "visual_projection.weight") == 0;
}
