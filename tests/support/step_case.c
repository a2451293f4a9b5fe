/* See step_case.h. */
#include "tests/support/step_case.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/model_setup.h"
#include "train/optimizer.h"

#define MUST(expression)                                                                          \
    do {                                                                                          \
        if (!(expression)) {                                                                      \
            fprintf(stderr, "step case: %s: %s\n", #expression, f2b_last_error());                \
            exit(1);                                                                              \
        }                                                                                         \
    } while (0)

static int32_t *ints(json_t *list, int64_t *n)
{
    *n = (int64_t)json_array_size(list);
    int32_t *out = calloc((size_t)*n + 1, sizeof *out);
    for (int64_t i = 0; i < *n; i++)
        out[i] = (int32_t)json_integer_value(json_array_get(list, (size_t)i));
    return out;
}

static f2b_tokens tokens(json_t *sample, const char *part)
{
    json_t *object = json_object_get(sample, part);
    f2b_tokens t = { 0 };
    t.ids = ints(json_object_get(object, "ids"), &t.n);
    json_t *labels = json_object_get(object, "labels");
    int64_t n;
    if (labels != NULL && json_array_size(labels) > 0) t.labels = ints(labels, &n);
    return t;
}

static f2b_safetensors *beside(const char *path, const char *name)
{
    char full[4096];
    const char *slash = strrchr(path, '/');
    snprintf(full, sizeof full, "%.*s%s", slash ? (int)(slash - path + 1) : 0, path, name);
    f2b_safetensors *file = f2b_safetensors_open(full);
    MUST(file != NULL);
    return file;
}

static void read_batch(f2b_safetensors *pixels, json_t *root, int64_t image_floats,
                       f2b_case_batch *b)
{
    const char *kind = json_string_value(json_object_get(root, "kind"));
    json_t *list = json_object_get(root, "samples");
    b->captions = strcmp(kind, "conversation") != 0;
    b->conversations = strcmp(kind, "caption") != 0;
    b->n = (int64_t)json_array_size(list);
    b->image_floats = image_floats;
    MUST(b->n <= F2B_CASE_SAMPLES);
    for (int64_t i = 0; i < b->n; i++) {
        json_t *sample = json_array_get(list, (size_t)i);
        const char *image = json_string_value(json_object_get(sample, "pixels"));
        b->samples[i] = (f2b_step_sample){ .conversation = tokens(sample, "conversation"),
                                           .image_prompt = tokens(sample, "image_prompt"),
                                           .caption_prompt = tokens(sample, "caption_prompt"),
                                           .has_image = image != NULL };
        if (image == NULL) continue;
        const f2b_safetensor *t = f2b_safetensors_find(pixels, image);
        MUST(t != NULL && t->bytes == image_floats * (int64_t)sizeof(float));
        b->pixels[i] = t->data;
    }
}

static f2b_status load_image(void *context, int64_t sample, float *out)
{
    const f2b_case_batch *b = context;
    memcpy(out, b->pixels[sample], (size_t)b->image_floats * sizeof *out);
    return F2B_OK;
}

static void read_initial(const char *path, json_t *root, f2b_model *model)
{
    f2b_safetensors *file = beside(path, json_string_value(json_object_get(root, "initial")));
    for (int64_t i = 0; i < f2b_safetensors_count(file); i++) {
        const f2b_safetensor *t = f2b_safetensors_at(file, i);
        const f2b_parameter *p = f2b_parameters_find(&model->parameters, t->name);
        if (p == NULL || (size_t)t->bytes != f2b_tensor_bytes(p->tensor)) {
            fprintf(stderr, "step case: no parameter like %s\n", t->name);
            exit(1);
        }
        MUST(f2b_tensor_write(p->tensor, t->data) == F2B_OK);
    }
    f2b_safetensors_close(file);
}

/* Adapters start as nothing, which would hide what is wrong behind them. */
static void draw_initial(f2b_model *model)
{
    for (int64_t i = 0; i < model->parameters.n; i++) {
        const f2b_parameter *p = &model->parameters.items[i];
        if (p->group != F2B_GROUP_LORA && p->group != F2B_GROUP_SUMMARY) continue;
        MUST(f2b_init_fill(p->tensor, (f2b_init){ F2B_INIT_NORMAL, 0.2 }, 11, p->tensor->name) == F2B_OK);
    }
}

/* ---- The step ---- */

f2b_step_case *f2b_step_case_open(const char *model, const char *config, const char *batch,
                                  int64_t rows)
{
    const f2b_case_setting plain = { .device = F2B_HOST };
    return f2b_step_case_open_as(model, config, batch, rows, &plain);
}

f2b_step_case *f2b_step_case_open_as(const char *model, const char *config, const char *batch,
                                     int64_t rows, const f2b_case_setting *setting)
{
    enum { OWN = 5, MOST = 16 };
    char override[4200];
    snprintf(override, sizeof override, "model.path=%s", model);
    const char *overrides[MOST] = { override, "data.conversations=[{path: none.json}]",
                                    "data.captions=[{path: none.tsv}]", "train.steps=1", "run.dir=none" };
    MUST(setting->n_overrides <= MOST - OWN);
    for (int i = 0; i < setting->n_overrides; i++) overrides[OWN + i] = setting->overrides[i];
    f2b_step_case *c = calloc(1, sizeof *c);
    c->config = f2b_config_load(config, overrides, OWN + setting->n_overrides);
    MUST(c->config != NULL);
    c->folder = f2b_model_folder_open(c->config->model.path, c->config->model.vision_path);
    MUST(c->folder != NULL);
    c->model = f2b_model_setup(c->config, c->folder, setting->device, NULL);
    MUST(c->model != NULL);
    json_t *root = json_load_file(batch, 0, NULL);
    MUST(root != NULL);
    const int64_t S = c->model->config.vision.image_size;
    c->pixels = beside(batch, json_string_value(json_object_get(root, "pixels")));
    read_batch(c->pixels, root, 3 * S * S, &c->batch);
    if (setting->drawn) draw_initial(c->model);
    else read_initial(batch, root, c->model);
    json_decref(root);
    const f2b_config *cfg = c->config;
    c->input = (f2b_step_input){
        .autoregressive = c->batch.conversations && cfg->method.loss != F2B_LOSS_CONTRASTIVE,
        .contrastive = c->batch.captions && cfg->method.loss != F2B_LOSS_AUTOREGRESSIVE,
        .n = c->batch.n, .samples = c->batch.samples, .image = load_image, .context = &c->batch,
        .micro_batch_tokens = rows,
        .settings = { .checkpoint = cfg->train.activation_checkpointing == F2B_CHECKPOINTING_LAYER
                                    ? INT64_MAX : 0,
                      .dropout = { (float)cfg->lora.dropout, (uint64_t)cfg->train.seed, 3 } },
    };
    return c;
}

void f2b_step_case_run(f2b_step_case *c)
{
    f2b_optimizer_clear_gradients(&c->model->parameters);
    MUST(f2b_step_run(c->model, &c->input, &c->result) == F2B_OK);
}

static void tokens_free(f2b_tokens t)
{
    free((void *)(uintptr_t)t.ids);
    free((void *)(uintptr_t)t.labels);
}

void f2b_step_case_close(f2b_step_case *c)
{
    for (int64_t i = 0; i < c->batch.n; i++) {
        tokens_free(c->batch.samples[i].conversation);
        tokens_free(c->batch.samples[i].image_prompt);
        tokens_free(c->batch.samples[i].caption_prompt);
    }
    f2b_safetensors_close(c->pixels);
    f2b_model_free(c->model);
    f2b_model_folder_close(c->folder);
    f2b_config_free(c->config);
    free(c->gradients);
    free(c);
}

int64_t f2b_step_case_arrays(f2b_step_case *c, f2b_named_array *arrays)
{
    static float losses[2];
    const f2b_parameters *p = &c->model->parameters;
    int64_t n = 0, count = 0, at = 0;
    losses[0] = (float)c->result.loss_ar, losses[1] = (float)c->result.loss_disc;
    if (c->input.autoregressive) arrays[n++] = (f2b_named_array){ "loss_ar", F2B_F32, 1, { 1 }, &losses[0] };
    if (c->input.contrastive) arrays[n++] = (f2b_named_array){ "loss_disc", F2B_F32, 1, { 1 }, &losses[1] };
    for (int64_t i = 0; i < p->n; i++) count += f2b_numel(p->items[i].tensor);
    free(c->gradients);
    c->gradients = malloc((size_t)count * sizeof *c->gradients);
    for (int64_t i = 0; i < p->n; i++) {
        const f2b_tensor *t = p->items[i].tensor;
        if (t->grad == NULL) continue;
        MUST(n < F2B_CASE_ARRAYS && t->dtype == F2B_F32);
        MUST(f2b_tensor_read_grad(t, c->gradients + at) == F2B_OK);
        arrays[n] = (f2b_named_array){ t->name, t->dtype, t->ndim, { 0 }, c->gradients + at };
        memcpy(arrays[n++].shape, t->shape, sizeof t->shape);
        at += f2b_numel(t);
    }
    return n;
}
