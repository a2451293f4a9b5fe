/* See packed_weights.h. */
#include "nn/packed_weights.h"

#include "autograd/device/cpu/packed_weight.h"

enum { OF_A_LAYER = 7 };

/* Of all layers, one after the other; then the head; then NULL. */
static f2b_tensor *matrix(const f2b_model *model, int64_t i)
{
    const f2b_llama *m = model->llama;
    const int64_t layers = m->config.layers;
    if (i >= layers * OF_A_LAYER) return i == layers * OF_A_LAYER ? m->head : NULL;
    const f2b_llama_layer *l = &m->layers[i / OF_A_LAYER];
    const f2b_adapted_linear *const of[OF_A_LAYER] = { &l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down };
    return of[i % OF_A_LAYER]->weight;
}

int64_t f2b_model_packed_weight_bytes(const f2b_model *model)
{
    int64_t bytes = 0;
    f2b_tensor *w;
    for (int64_t i = 0; (w = matrix(model, i)) != NULL; i++) bytes += f2b_packed_weight_bytes(w, model->compute);
    return bytes;
}

static f2b_status each(f2b_model *model, f2b_status (*act)(f2b_tensor *w, f2b_dtype compute))
{
    f2b_status status = F2B_OK;
    f2b_tensor *w;
    for (int64_t i = 0; status == F2B_OK && (w = matrix(model, i)) != NULL; i++) status = act(w, model->compute);
    if (status != F2B_OK) f2b_model_unpack_weights(model);
    return status;
}

f2b_status f2b_model_pack_weights(f2b_model *model) { return each(model, f2b_packed_weight_make); }
f2b_status f2b_model_plan_packed_weights(f2b_model *model) { return each(model, f2b_packed_weight_plan); }

void f2b_model_unpack_weights(f2b_model *model)
{
    f2b_tensor *w;
    for (int64_t i = 0; (w = matrix(model, i)) != NULL; i++) f2b_packed_weight_free(w);
}
