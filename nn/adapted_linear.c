/* See adapted_linear.h. */
#include "nn/adapted_linear.h"

#include <math.h>
#include <stdio.h>

static const char *const stage_names[F2B_STAGES] = { "compression", "generation" };

static f2b_status add_pair(f2b_adapted_linear *l, f2b_weight_builder *w, const char *module,
                           const char *adapter, int64_t r, f2b_stage stage)
{
    const int64_t out = l->weight->shape[0], in = l->weight->shape[1];
    char name[512];
    snprintf(name, sizeof name, "%s.%s.lora_A", module, adapter);
    l->lora[stage].a = f2b_weights_new(w, name, 2, (int64_t[]){ r, in },
                                       (f2b_init){ F2B_INIT_UNIFORM, 1.0 / sqrt((double)in) }, true,
                                       F2B_GROUP_LORA);
    snprintf(name, sizeof name, "%s.%s.lora_B", module, adapter);
    l->lora[stage].b = f2b_weights_new(w, name, 2, (int64_t[]){ out, r },
                                       (f2b_init){ F2B_INIT_CONSTANT, 0 }, true, F2B_GROUP_LORA);
    return l->lora[stage].a != NULL && l->lora[stage].b != NULL ? F2B_OK : f2b_last_status();
}

f2b_status f2b_adapted_linear_add_lora(f2b_adapted_linear *l, f2b_weight_builder *w, const char *module,
                                       const f2b_lora_plan *plan)
{
    if (plan->shared) {
        F2B_TRY(add_pair(l, w, module, "shared", plan->r, F2B_STAGE_COMPRESSION));
        l->lora[F2B_STAGE_GENERATION] = l->lora[F2B_STAGE_COMPRESSION];
        return F2B_OK;
    }
    for (f2b_stage s = 0; s < F2B_STAGES; s++)
        if (plan->stage[s]) F2B_TRY(add_pair(l, w, module, stage_names[s], plan->r, s));
    return F2B_OK;
}

f2b_projection f2b_adapted_linear_at(const f2b_adapted_linear *l, f2b_stage stage)
{
    f2b_projection p = { .weight = l->weight, .bias = l->bias };
    if (stage != F2B_STAGE_NONE) p.lora_a = l->lora[stage].a, p.lora_b = l->lora[stage].b;
    return p;
}
