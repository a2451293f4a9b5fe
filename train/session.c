/* Opening what a configuration names, and one step on a batch. See trainer.h. */
#include <string.h>

#include "autograd/core/quant.h"
#include "checkpoints/trained_tensors.h"
#include "train/dataset_options.h"
#include "train/step_input.h"
#include "train/trainer.h"

static f2b_status open_parts(f2b_session *s, f2b_device device)
{
    f2b_config *c = s->config;
    s->folder = f2b_model_folder_open(c->model.path, c->model.vision_path);
    if (s->folder == NULL) return f2b_last_status();
    s->dataset = f2b_config_dataset(c, f2b_model_folder_config(s->folder),
                                    f2b_config_fault_policy(c, f2b_fault_list_listen, s->bad));
    if (s->dataset == NULL) return f2b_last_status();
    s->model = f2b_model_setup(c, s->folder, device, f2b_dataset_tokenizer(s->dataset));
    if (s->model == NULL) return f2b_last_status();
    if (s->model->parameters.n == 0)
        return f2b_fail(F2B_ERR_CONFIG, "this configuration trains nothing; see trainable.*");
    s->steps = c->train.steps > 0 ? c->train.steps
               : f2b_sampler_steps(f2b_dataset_sampler(s->dataset), c->train.epochs);
    c->train.steps = s->steps, c->train.epochs = 0;
    return f2b_memory_plan_make(s->model, s->dataset, c, s->steps, &s->memory);
}

/* A projector that was lost on the way is not to be trained anew unnoticed. */
static f2b_status tell_of_projector(const f2b_session *s,
                                    void (*note)(void *user, const char *text), void *user)
{
    if (!f2b_model_folder_has_weights(s->folder) || f2b_model_folder_has_projector(s->folder))
        return F2B_OK;
    char *text = f2b_sprintf(F2B_TAG_OTHER,
                             "note: %s has no projector; this run starts with a new one",
                             s->config->model.path);
    if (text == NULL) return F2B_ERR_MEMORY;
    note(user, text);
    f2b_free(text);
    return F2B_OK;
}

/* How much of the model train.precision: fp8 could take. */
static f2b_status tell_of_fp8(const f2b_session *s, void (*note)(void *user, const char *text),
                              void *user)
{
    const f2b_weight_builder *w = &s->model->weights;
    if (!w->fp8) return F2B_OK;
    char *text = f2b_sprintf(F2B_TAG_OTHER, "fp8: %lld of %lld frozen linear layers are 8-bit floats",
                             (long long)w->n_fp8, (long long)(w->n_fp8 + w->n_not_fp8));
    if (text != NULL && w->n_not_fp8 > 0) {
        char *more = f2b_sprintf(F2B_TAG_OTHER, "%s; %lld stay %s, because fp8 takes sides that are "
                                 "multiples of 16 and at most %d: %s %s%s", text,
                                 (long long)w->n_not_fp8, f2b_dtype_name(w->storage), F2B_FP8_LONGEST,
                                 w->first_not_fp8->name, f2b_tensor_describe(w->first_not_fp8),
                                 w->n_not_fp8 > 1 ? " and others" : "");
        f2b_free(text);
        text = more;
    }
    if (text == NULL) return F2B_ERR_MEMORY;
    note(user, text);
    f2b_free(text);
    return F2B_OK;
}

static f2b_status open_features(f2b_session *s, void (*note)(void *user, const char *text),
                                void *user)
{
    const f2b_config *c = s->config;
    if (c->data.feature_cache == NULL) return F2B_OK;
    const f2b_dataset_options *data = f2b_dataset_settings(s->dataset);
    const f2b_feature_cache_options o = { c->data.feature_cache, s->model, &data->image,
                                          data->aspect, note, user };
    s->features = f2b_feature_cache_open(&o);
    if (s->features == NULL) return f2b_fail_context("data.feature_cache");
    f2b_dataset_set_known(s->dataset, f2b_feature_cache_knows, s->features);
    return F2B_OK;
}

f2b_session *f2b_session_open(f2b_config *config, f2b_device device,
                              void (*note)(void *user, const char *text), void *user)
{
    f2b_session *s = f2b_calloc(1, sizeof *s, F2B_TAG_OTHER);
    if (s == NULL) {
        f2b_config_free(config);
        return NULL;
    }
    s->config = config;
    s->bad = f2b_fault_list_new(note, user);
    if (s->bad != NULL && open_parts(s, device) == F2B_OK &&
        tell_of_projector(s, note, user) == F2B_OK && tell_of_fp8(s, note, user) == F2B_OK &&
        open_features(s, note, user) == F2B_OK)
        return s;
    f2b_session_close(s);
    return NULL;
}

void f2b_session_close(f2b_session *s)
{
    if (s == NULL) return;
    f2b_model_free(s->model);
    f2b_dataset_free(s->dataset);
    f2b_feature_cache_close(s->features);
    f2b_fault_list_free(s->bad);
    f2b_model_folder_close(s->folder);
    f2b_config_free(s->config);
    f2b_free(s);
}

/* Values that fit in shape may still be those of another model's adapters. */
static f2b_status compare_base(const f2b_session *s, const f2b_trained *start,
                               void (*note)(void *user, const char *text), void *user)
{
    const char *base = f2b_model_folder_fingerprint(s->folder);
    if (base == NULL) return f2b_last_status();
    if (strcmp(base, f2b_trained_base_fingerprint(start)) == 0) return F2B_OK;
    const char *path = f2b_trained_base_path(start);
    char *text = f2b_sprintf(F2B_TAG_OTHER,
                             "warning: trainable.start_from %s was trained on another "
                             "base model (%s) than %s",
                             s->config->trainable.start_from, path != NULL ? path : "unknown",
                             s->config->model.path);
    if (text == NULL) return F2B_ERR_MEMORY;
    note(user, text);
    f2b_free(text);
    return F2B_OK;
}

f2b_status f2b_session_start_from(f2b_session *s, void (*note)(void *user, const char *text),
                                  void *user)
{
    if (s->config->trainable.start_from == NULL) return F2B_OK;
    f2b_trained *start = f2b_trained_open(s->config->trainable.start_from,
                                          f2b_model_folder_config(s->folder), note, user);
    if (start == NULL) return f2b_fail_context("trainable.start_from");
    f2b_status status = compare_base(s, start, note, user);
    if (status == F2B_OK) status = f2b_trained_load(start, &s->model->parameters, false);
    if (status == F2B_OK) status = f2b_trained_check_used(start);
    f2b_trained_close(start);
    return status;
}

/* What the step's callbacks see. */
typedef struct batch_view {
    const f2b_batch *batch;
    const f2b_image_settings *image;
    f2b_feature_cache *features;
    const f2b_step_events *events;
} batch_view;

static f2b_status load_image(void *context, int64_t sample, float *pixels)
{
    const batch_view *v = context;
    const f2b_sample *s = &v->batch->samples[sample];
    if (s->pixels == NULL)
        return f2b_fail(F2B_ERR_DATA, "%s: its image was in the feature cache and is not any more: "
                        "data.feature_cache is not to be changed while it is used; start again",
                        s->id);
    f2b_image_normalise(s->pixels, v->image->size, v->image->mean,
                        v->image->std, pixels);
    return F2B_OK;
}

static f2b_status load_features(void *context, int64_t sample, void *rows, bool *found)
{
    const batch_view *v = context;
    *found = f2b_feature_cache_load(v->features, v->batch->samples[sample].image_hash, rows);
    return F2B_OK;
}

static void store_features(void *context, int64_t sample, const void *rows)
{
    const batch_view *v = context;
    f2b_feature_cache_store(v->features, v->batch->samples[sample].image_hash, rows);
}

static bool asked_to_stop(void *context)
{
    const batch_view *v = context;
    return v->events->stop(v->events->user);
}

static void tell_progress(void *context, const f2b_step_progress *progress)
{
    const batch_view *v = context;
    v->events->progress(v->events->user, progress);
}

f2b_status f2b_session_step(f2b_session *s, const f2b_batch *batch, bool train,
                            const f2b_step_events *events, f2b_readings *readings,
                            f2b_step_result *result)
{
    static const f2b_step_events nobody = { 0 };
    if (events == NULL) events = &nobody;
    batch_view view = { batch, &f2b_dataset_settings(s->dataset)->image, s->features, events };
    f2b_step_sample *samples = f2b_step_samples(s->config, batch);
    if (samples == NULL) return F2B_ERR_MEMORY;
    f2b_step_input input = f2b_step_input_of(s->config, batch, samples, s->memory.checkpoint_layers);
    input.context = &view, input.image = load_image, input.readings = readings;
    if (s->features != NULL)
        input.load_features = load_features, input.store_features = store_features;
    if (events->stop != NULL) input.stop = asked_to_stop;
    if (events->progress != NULL) input.progress = tell_progress;
    const f2b_status status = train ? f2b_step_run(s->model, &input, result)
                                    : f2b_step_evaluate(s->model, &input, result);
    f2b_free(samples);
    return status;
}
