/*
 * Not a test by itself: runs one training step on a batch from a file and writes the losses and every
 * gradient, for tests/oracle/test_step_parity.py.
 *
 *   step_dump MODEL_DIR CONFIG.yaml BATCH.json OUT.safetensors [ROWS] [MASKS.safetensors]
 *
 * ROWS: train.micro_batch_tokens of the step (default: everything at once). MASKS: also write the
 * dropout masks that the step draws, in the oracle's form.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/ops/dropout/dropout.h"
#include "checkpoints/safetensors.h"
#include "data/batch.h"
#include "nn/step.h"
#include "train/config.h"
#include "train/model_setup.h"
#include "train/optimizer.h"

#define MUST(expression)                                                                          \
    do {                                                                                          \
        if (!(expression)) {                                                                      \
            fprintf(stderr, "step_dump: %s: %s\n", #expression, f2b_last_error());                \
            exit(1);                                                                              \
        }                                                                                         \
    } while (0)

enum { MOST_SAMPLES = 64, MOST_ARRAYS = 4096 };

typedef struct batch {
    f2b_step_sample samples[MOST_SAMPLES];
    const float *pixels[MOST_SAMPLES];
    int64_t n, image_floats;
    bool captions, conversations;
} batch;

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

static void read_batch(const char *path, json_t *root, int64_t image_floats, batch *b)
{
    const char *kind = json_string_value(json_object_get(root, "kind"));
    f2b_safetensors *pixels = beside(path, json_string_value(json_object_get(root, "pixels")));
    json_t *list = json_object_get(root, "samples");
    b->captions = strcmp(kind, "conversation") != 0;
    b->conversations = strcmp(kind, "caption") != 0;
    b->n = (int64_t)json_array_size(list);
    b->image_floats = image_floats;
    MUST(b->n <= MOST_SAMPLES);
    for (int64_t i = 0; i < b->n; i++) {
        json_t *sample = json_array_get(list, (size_t)i);
        const char *image = json_string_value(json_object_get(sample, "pixels"));
        b->samples[i] = (f2b_step_sample){ tokens(sample, "conversation"),
                                           tokens(sample, "image_prompt"),
                                           tokens(sample, "caption_prompt"), image != NULL };
        if (image == NULL) continue;
        const f2b_safetensor *t = f2b_safetensors_find(pixels, image);
        MUST(t != NULL && t->bytes == image_floats * (int64_t)sizeof(float));
        b->pixels[i] = t->data;
    }
}

static f2b_status load_image(void *context, int64_t sample, float *out)
{
    const batch *b = context;
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
            fprintf(stderr, "step_dump: no parameter like %s\n", t->name);
            exit(1);
        }
        memcpy(p->tensor->data, t->data, (size_t)t->bytes);
    }
}

/* ---- Masks in the oracle's form ---- */

typedef struct masks {
    f2b_named_array arrays[MOST_ARRAYS];
    int64_t n;
} masks;

static void add_masks(masks *m, const f2b_model *model, const f2b_pass_dropout *d,
                      f2b_dropout_pass pass, const char *place, int64_t sample, uint64_t key,
                      int64_t rows, int64_t layers, const int64_t width[4], const char *const names[4])
{
    uint64_t *keys = calloc((size_t)rows, sizeof *keys);
    for (int64_t r = 0; r < rows; r++) keys[r] = f2b_dropout_row_key(key, r);
    f2b_tape *tape = f2b_tape_new(model->device);
    f2b_tape_set_recording(tape, false);
    for (int64_t layer = 0; layer < layers; layer++)
        for (int g = 0; g < F2B_DROPOUT_GROUPS; g++) {
            const int64_t shape[] = { rows, width[g] };
            float *ones = calloc((size_t)(rows * width[g]), sizeof *ones);
            for (int64_t i = 0; i < rows * width[g]; i++) ones[i] = 1;
            f2b_tensor *x = f2b_tape_tensor_from(tape, F2B_F32, 2, shape, ones);
            const f2b_dropout dropout = { d->p, d->seed, d->step,
                                          f2b_dropout_place(pass, layer, (f2b_dropout_group)g), keys };
            f2b_tensor *y = f2b_dropout_apply(tape, x, &dropout);
            MUST(y != NULL && m->n < MOST_ARRAYS);
            memcpy(ones, y->data, f2b_tensor_bytes(y));
            char *name = calloc(1, 96);
            snprintf(name, 96, "%s.%lld.%lld.%s", place, (long long)sample, (long long)layer, names[g]);
            m->arrays[m->n++] = (f2b_named_array){ name, F2B_F32, 2, { rows, width[g] }, ones };
        }
    f2b_tape_free(tape);
}

static void write_masks(const char *path, const f2b_model *model, const batch *b,
                        const f2b_pass_dropout *d)
{
    static const char *const llm[] = { "qkv", "o", "gate_up", "down" }, *const vit[] = { "qkv", "o", "fc1", "fc2" };
    const f2b_text_config *t = &model->config.text;
    const f2b_vision_config *v = &model->config.vision;
    const int64_t width[] = { t->hidden, t->heads * t->head_dim, t->hidden, t->intermediate };
    const int64_t tower[] = { v->hidden, v->hidden, v->hidden, v->intermediate };
    const bool single = model->method.forward == F2B_FORWARD_SINGLE;
    const f2b_pack_options one = f2b_pass_compress_options(model), two = f2b_pass_generate_options(model);
    const f2b_dropout_pass first = single ? F2B_DROPOUT_EMBED : F2B_DROPOUT_COMPRESS;
    static masks m;
    for (int64_t i = 0; i < b->n; i++) {
        const f2b_step_sample *s = &b->samples[i];
        const uint64_t image = f2b_dropout_image_key(i), caption = f2b_dropout_caption_key(i);
#define ROWS(part, options, summary) f2b_pack_item_rows(                                          \
        &(f2b_pack_item){ (part).ids, NULL, (part).n, 0, summary, 0 }, &(options))
        if (s->has_image && single)
            add_masks(&m, model, d, F2B_DROPOUT_TOWER, "tower", i, image,
                      f2b_vision_patches(v) + 1 + model->method.tokens, model->clip->feature_layers,
                      tower, vit);
        if (s->has_image)
            add_masks(&m, model, d, first, "image", i, image, ROWS(s->image_prompt, one, !single),
                      t->layers, width, llm);
        if (s->caption_prompt.n > 0)
            add_masks(&m, model, d, first, "caption", i, caption,
                      ROWS(s->caption_prompt, one, !single), t->layers, width, llm);
        if (s->conversation.n > 0)
            add_masks(&m, model, d, F2B_DROPOUT_GENERATE, "conversation", i, image,
                      ROWS(s->conversation, two, false), t->layers, width, llm);
    }
    MUST(f2b_safetensors_write(path, m.arrays, m.n, NULL, 0) == F2B_OK);
}

/* ---- The step ---- */

static void write_result(const char *path, const f2b_model *model, const f2b_step_input *in,
                         const f2b_step_result *r)
{
    static f2b_named_array arrays[MOST_ARRAYS];
    int64_t n = 0;
    const float ar = (float)r->loss_ar, disc = (float)r->loss_disc;
    if (in->autoregressive) arrays[n++] = (f2b_named_array){ "loss_ar", F2B_F32, 1, { 1 }, &ar };
    if (in->contrastive) arrays[n++] = (f2b_named_array){ "loss_disc", F2B_F32, 1, { 1 }, &disc };
    for (int64_t i = 0; i < model->parameters.n; i++) {
        const f2b_tensor *t = model->parameters.items[i].tensor;
        if (t->grad == NULL) continue;
        MUST(n < MOST_ARRAYS);
        arrays[n] = (f2b_named_array){ t->name, t->dtype, t->ndim, { 0 }, t->grad };
        memcpy(arrays[n++].shape, t->shape, sizeof t->shape);
    }
    MUST(f2b_safetensors_write(path, arrays, n, NULL, 0) == F2B_OK);
}

int main(int argc, char **argv)
{
    if (argc < 5) return 2;
    char override[4200];
    snprintf(override, sizeof override, "model.path=%s", argv[1]);
    const char *overrides[] = { override, "data.conversations=[{path: none.json}]",
                                "data.captions=[{path: none.tsv}]", "train.steps=1", "run.dir=none" };
    f2b_config *config = f2b_config_load(argv[2], overrides, 5);
    MUST(config != NULL);
    f2b_model_folder *folder = f2b_model_folder_open(config->model.path, config->model.vision_path);
    MUST(folder != NULL);
    f2b_model *model = f2b_model_setup(config, folder, F2B_HOST, NULL);
    MUST(model != NULL);
    json_t *root = json_load_file(argv[3], 0, NULL);
    MUST(root != NULL);
    static batch b;
    const int64_t S = model->config.vision.image_size;
    read_batch(argv[3], root, 3 * S * S, &b);
    read_initial(argv[3], root, model);
    const f2b_step_input in = {
        .autoregressive = b.conversations && config->method.loss != F2B_LOSS_CONTRASTIVE,
        .contrastive = b.captions && config->method.loss != F2B_LOSS_AUTOREGRESSIVE,
        .n = b.n, .samples = b.samples, .image = load_image, .context = &b,
        .micro_batch_tokens = argc > 5 ? atoll(argv[5]) : INT64_MAX,
        .settings = { .checkpoint = config->train.activation_checkpointing == F2B_CHECKPOINTING_LAYER,
                      .dropout = { (float)config->lora.dropout, (uint64_t)config->train.seed, 3 } },
    };
    f2b_step_result result;
    f2b_optimizer_clear_gradients(&model->parameters);
    MUST(f2b_step_run(model, &in, &result) == F2B_OK);
    write_result(argv[4], model, &in, &result);
    if (argc > 6) write_masks(argv[6], model, &b, &in.settings.dropout);
    return 0;
}
