/* See dataset_options.h. */
#include "train/dataset_options.h"

#include <stdlib.h>

#include "autograd/core/alloc.h"

f2b_fault_policy f2b_config_fault_policy(const f2b_config *config, f2b_fault_listener listener,
                                         void *user)
{
    return (f2b_fault_policy){ .stop_at_first = config->data.bad_records == F2B_BAD_RECORDS_ERROR,
                               .max_fraction = config->data.max_bad_fraction,
                               .listener = listener, .user = user };
}

/* The configuration's list as the data room takes it: entries for f2b_free, texts borrowed. */
static f2b_status list_of(const f2b_config_sources *sources, f2b_data_list *list)
{
    f2b_data_entry *entries = f2b_calloc((size_t)sources->n + 1, sizeof *entries, F2B_TAG_DATA);
    if (entries == NULL) return F2B_ERR_MEMORY;
    for (int64_t i = 0; i < sources->n; i++)
        entries[i] = (f2b_data_entry){ sources->items[i].path, sources->items[i].images };
    *list = (f2b_data_list){ entries, (int)sources->n };
    return F2B_OK;
}

/* NULL where the environment names no home: then nothing is cached. */
static f2b_status cache_folder(char **folder)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    *folder = NULL;
    if (cache != NULL && cache[0] == '/') *folder = f2b_sprintf(F2B_TAG_DATA, "%s/fwd2bot", cache);
    else if (home != NULL && home[0] == '/')
        *folder = f2b_sprintf(F2B_TAG_DATA, "%s/.cache/fwd2bot", home);
    else return F2B_OK;
    return *folder != NULL ? F2B_OK : F2B_ERR_MEMORY;
}

static f2b_data_loss loss_of(f2b_loss loss)
{
    return loss == F2B_LOSS_BOTH             ? F2B_DATA_BOTH_LOSSES
         : loss == F2B_LOSS_AUTOREGRESSIVE   ? F2B_DATA_AUTOREGRESSIVE
                                             : F2B_DATA_CONTRASTIVE;
}

static f2b_status fill(const f2b_config *c, const f2b_model_config *model, f2b_dataset_options *o)
{
    const char *images = c->model.vision_path != NULL ? c->model.vision_path : c->model.path;
    const bool base = c->method.forward == F2B_FORWARD_BASE;
    o->tokenizer = c->model.path;
    o->loss = loss_of(c->method.loss);
    o->base = base;
    o->form = c->summary.template_ == F2B_SUMMARY_PLAIN ? F2B_TEMPLATE_PLAIN
                                                        : F2B_TEMPLATE_VICUNA_V1;
    o->prompt = c->summary.prompt;
    const bool double_ = c->method.forward == F2B_FORWARD_DOUBLE;
    const int64_t context = model->text.max_positions, length = c->data.max_length;
    o->limits = (f2b_prompt_limits){ base ? f2b_image_tokens(model) : c->summary.tokens,
                                     length < context ? length : context };
    o->compress = (f2b_compress_rows){ double_ ? f2b_image_tokens(model) : c->summary.tokens,
                                       double_ ? c->summary.tokens : 0, context };
    o->max_caption_length = c->data.max_caption_length;
    o->aspect = c->model.image_aspect_ratio == F2B_ASPECT_CROP ? F2B_IMAGE_CROP : F2B_IMAGE_PAD;
    o->conversation_batch = c->sampler.conversation_batch;
    o->contrastive_batch = c->sampler.contrastive_batch;
    o->ratio = c->sampler.ratio;
    o->group_images = c->sampler.group_images;
    o->seed = (uint64_t)c->train.seed;
    F2B_TRY(f2b_image_settings_load(images, &o->image));
    if (model->has_vision && o->image.size != model->vision.image_size)
        return f2b_fail(F2B_ERR_FORMAT, "%s: images of %d pixels, but the vision tower takes %lld",
                        images, o->image.size, (long long)model->vision.image_size);
    F2B_TRY(list_of(&c->data.conversations, &o->conversations));
    F2B_TRY(list_of(&c->data.captions, &o->captions));
    return list_of(&c->data.conversation_captions, &o->conversation_captions);
}

f2b_dataset *f2b_config_dataset(const f2b_config *config, const f2b_model_config *model,
                                f2b_fault_policy faults)
{
    f2b_dataset_options o = { .faults = faults };
    char *cache = NULL;
    f2b_status status = cache_folder(&cache);
    if (status == F2B_OK) status = fill(config, model, &o);
    o.cache = cache;
    f2b_dataset *dataset = status == F2B_OK ? f2b_dataset_open(&o) : NULL;
    f2b_free((void *)o.conversations.entries);
    f2b_free((void *)o.captions.entries);
    f2b_free((void *)o.conversation_captions.entries);
    f2b_free(cache);
    return dataset;
}
