/* A trained run without training: random weights for a base folder, random tensors for a method. */
#ifndef F2B_TESTS_INFER_MAKE_RUN_H
#define F2B_TESTS_INFER_MAKE_RUN_H

#include "checkpoints/folder_weights.h"
#include "checkpoints/method_json.h"
#include "checkpoints/safetensors.h"
#include "checkpoints/trained_tensors.h"
#include "infer/export_model.h"
#include "nn/model.h"

static inline f2b_named_array array_of(const f2b_tensor *t)
{
    f2b_named_array array = { .name = t->name, .dtype = t->dtype, .ndim = t->ndim,
                              .data = t->data };
    for (int i = 0; i < t->ndim; i++) array.shape[i] = t->shape[i];
    return array;
}

/* Random values for everything that the method adds; what the base has keeps its value, but for a
 * nudge where it is trained. */
static inline void randomise(f2b_model *model, uint64_t seed)
{
    for (int64_t i = 0; i < model->parameters.n; i++) {
        f2b_tensor *t = model->parameters.items[i].tensor;
        const f2b_parameter_group group = model->parameters.items[i].group;
        if (group == F2B_GROUP_LORA || group == F2B_GROUP_SUMMARY)
            F2B_CHECK(f2b_init_fill(t, (f2b_init){ F2B_INIT_NORMAL, 0.1 }, seed, t->name) == F2B_OK);
        else
            for (int64_t j = 0; j < f2b_numel(t); j++) ((float *)t->data)[j] *= 1.03125f;
    }
}

static inline f2b_status save_run(const f2b_model *model, const char *run, const char *base_path,
                                  const char *fingerprint, int64_t step)
{
    const f2b_parameters *p = &model->parameters;
    char *method = f2b_method_to_json(&model->method);
    f2b_state_tensor *tensors = f2b_calloc((size_t)p->n, sizeof *tensors, F2B_TAG_OTHER);
    f2b_status status = method && tensors && fingerprint ? F2B_OK : f2b_last_status();
    for (int64_t i = 0; status == F2B_OK && i < p->n; i++)
        tensors[i].parameter = array_of(p->items[i].tensor);
    const f2b_attribute attributes[] = {
        { .name = "config", .kind = F2B_ATTRIBUTE_TEXT, .text = "{}\n" },
        { .name = "method", .kind = F2B_ATTRIBUTE_TEXT, .text = method },
        { .name = "base_model", .kind = F2B_ATTRIBUTE_TEXT, .text = fingerprint },
        { .name = F2B_STATE_BASE_PATH, .kind = F2B_ATTRIBUTE_TEXT, .text = base_path },
    };
    const f2b_state state = { step, tensors, p->n, attributes, 4 };
    if (status == F2B_OK) status = f2b_state_save(run, &state, 0, NULL, NULL);
    f2b_free(tensors);
    f2b_free(method);
    return status;
}

/* Write run `run` as if `method` had been trained on `base`. seed 0: as it starts, B zero. */
static inline f2b_status make_run(const char *base, const char *run, const f2b_method *method,
                                  uint64_t seed, bool projector, bool vision)
{
    f2b_model_folder *folder = f2b_model_folder_open(base, NULL);
    if (folder == NULL) return f2b_last_status();
    const f2b_weight_file file = f2b_folder_weights(folder);
    const f2b_model_options o = {
        .config = *f2b_model_folder_config(folder), .method = *method,
        .file = f2b_model_folder_has_weights(folder) ? &file : NULL, .seed = 77,
        .train_projector = projector, .train_vision = vision,
    };
    f2b_model *model = f2b_model_new(&o);
    if (model != NULL && seed != 0) randomise(model, seed);
    const f2b_status status = model != NULL
        ? save_run(model, run, base, f2b_model_folder_fingerprint(folder), 7) : f2b_last_status();
    f2b_model_free(model);
    f2b_model_folder_close(folder);
    return status;
}

static inline f2b_status export_run(const char *run, const char *to, f2b_export_proof *proof)
{
    const f2b_export_model_options o = { .from = run, .to = to, .device = F2B_HOST };
    return f2b_export_model(&o, proof);
}

/* Give a folder that has a config.json alone random weights. */
static inline f2b_status make_weights(const char *base, const char *path)
{
    f2b_model_folder *folder = f2b_model_folder_open(base, NULL);
    if (folder == NULL) return f2b_last_status();
    const f2b_model_options o = {
        .config = *f2b_model_folder_config(folder), .seed = 31, .train_projector = true,
        .train_vision = true,
        .method = { .forward = F2B_FORWARD_BASE, .language_model = F2B_LANGUAGE_MODEL_FULL },
    };
    f2b_model *model = f2b_model_new(&o);
    f2b_model_folder_close(folder);
    if (model == NULL) return f2b_last_status();
    const int64_t n = model->parameters.n;
    f2b_named_array *arrays = f2b_calloc((size_t)n, sizeof *arrays, F2B_TAG_OTHER);
    f2b_status status = arrays != NULL ? F2B_OK : f2b_last_status();
    for (int64_t i = 0; status == F2B_OK && i < n; i++)
        arrays[i] = array_of(model->parameters.items[i].tensor);
    if (status == F2B_OK) status = f2b_safetensors_write(path, arrays, n, NULL, 0);
    f2b_free(arrays);
    f2b_model_free(model);
    return status;
}

#endif
