/* Opening the model that a command line names. See model_choice.h. */
#include "cli/model_choice.h"

#include <string.h>

f2b_trained_model *f2b_model_choice_open(const f2b_model_choice *c, f2b_device device,
                                         f2b_state_notify *notify, void *user)
{
    int storage = F2B_STORAGE_OF_FILE;
    if (strcmp(c->weights, "f32") == 0) storage = F2B_F32;
    if (strcmp(c->weights, "bf16") == 0) storage = F2B_BF16;
    if (strcmp(c->weights, "f16") == 0) storage = F2B_F16;
    if (strcmp(c->weights, "int8") == 0) storage = F2B_INT8;
    if (strcmp(c->weights, "nf4") == 0) storage = F2B_NF4;
    const f2b_trained_model_options o = {
        .checkpoint = c->checkpoint,
        .model = c->model,
        .vision = c->vision,
        .device = device,
        .storage = storage,
        .text_only = c->text_only,
        .compute = strcmp(c->precision, "bf16") == 0 ? F2B_BF16 : F2B_F32,
        .notify = notify,
        .user = user,
    };
    return f2b_trained_model_open(&o);
}
