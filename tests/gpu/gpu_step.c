/*
 * gpu_step: times training steps of a model of any shape on any device: weights drawn, samples made up,
 * but the very step, optimiser and settings of f2b-train. Prints a JSON object (gpu_step --help).
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "autograd/core/profile.h"
#include "autograd/core/rng.h"
#include "autograd/device/device.h"
#include "autograd/device/readings.h"
#include "cli/exit_codes.h"
#include "cli/options.h"
#include "cli/train_report.h"
#include "tests/support/step_flops.h"
#include "train/model_setup.h"
#include "train/optimizer.h"

/* What a configuration must have and a measurement does not use. */
static const char nowhere[] = "model: {path: none}\n"
                              "data: {conversations: [{path: none.json, images: none}], captions: "
                              "[{path: none.tsv, images: none}]}\n"
                              "train: {steps: 1000, activation_checkpointing: none}\n"
                              "run: {dir: none}\n";

typedef struct bench {
    const char *folder, *kind;
    int64_t batch, micro, steps, prompt, talk, labelled, caption;
    bool profile;
    f2b_config *config;
    f2b_model_folder *model_folder;
    f2b_model *model;
    f2b_optimizer *optimizer;
    f2b_step_sample *samples;
    int32_t *ids;    /* of all samples */
    float *pixels;   /* of one image */
    f2b_readings *readings;
    double *seconds, *waits; /* [steps] of a step; of it, waiting for the device */
    double opening, loss_ar, loss_disc, grad_norm;
    int64_t micro_batches;
} bench;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool autoregressive(const bench *b) { return strcmp(b->kind, "caption") != 0; }
static bool contrastive(const bench *b) { return strcmp(b->kind, "conversation") != 0; }

/* The rows of a sample in each sequence that it has. */
static f2b_sample_shape shape_of(const bench *b)
{
    const int64_t image = f2b_image_tokens(&b->model->config), K = b->config->summary.tokens;
    return (f2b_sample_shape){
        .image = b->prompt + image + K,
        .caption = contrastive(b) ? b->prompt + b->caption + K : 0,
        .conversation = autoregressive(b) ? b->talk + K : 0,
        .labelled = autoregressive(b) ? b->labelled : 0,
    };
}

/* ---- Opening ---- */

static f2b_status open_config(bench *b, const f2b_arguments *a)
{
    const char **overrides =
        f2b_calloc((size_t)a->n_operands + 1, sizeof *overrides, F2B_TAG_OTHER);
    char *path = f2b_sprintf(F2B_TAG_OTHER, "model.path=%s", b->folder);
    char *here = realpath(".", NULL);
    if (overrides != NULL && path != NULL && here != NULL) {
        overrides[0] = path;
        for (int i = 0; i < a->n_operands; i++) overrides[i + 1] = a->operands[i];
        b->config = f2b_config_parse(nowhere, "gpu_step", here, overrides, a->n_operands + 1);
    }
    free(here);
    f2b_free(path);
    f2b_free(overrides);
    return b->config != NULL ? F2B_OK : f2b_last_status();
}

/* Random ids; the labelled ones of a conversation are its last. */
static f2b_tokens sequence(f2b_rng *r, int32_t **at, int64_t n, int64_t labelled, bool with_image,
                           int64_t vocab)
{
    const int64_t all = n + (with_image ? 1 : 0), image_at = (n - labelled) / 2;
    int32_t *ids = *at, *labels = ids + all;
    *at += labelled > 0 ? 2 * all : all;
    for (int64_t i = 0; i < all; i++) {
        ids[i] = (int32_t)f2b_rng_below(r, (uint32_t)vocab);
        if (with_image && i == image_at) ids[i] = F2B_ROW_IMAGE;
        if (labelled > 0) labels[i] = i >= all - labelled ? ids[i] : F2B_ROW_NO_LABEL;
    }
    return (f2b_tokens){ ids, labelled > 0 ? labels : NULL, all };
}

static f2b_status make_samples(bench *b)
{
    const int64_t vocab = b->model->config.text.vocab, S = b->model->config.vision.image_size;
    const int64_t most = 2 * (b->talk + 1) + 2 * b->prompt + b->caption + 1;
    b->samples = f2b_calloc((size_t)b->batch, sizeof *b->samples, F2B_TAG_DATA);
    b->ids = f2b_calloc((size_t)(b->batch * most), sizeof *b->ids, F2B_TAG_DATA);
    b->pixels = f2b_calloc((size_t)(3 * S * S), sizeof *b->pixels, F2B_TAG_DATA);
    b->seconds = f2b_calloc((size_t)b->steps, sizeof *b->seconds, F2B_TAG_DATA);
    b->waits = f2b_calloc((size_t)b->steps, sizeof *b->waits, F2B_TAG_DATA);
    if (!b->samples || !b->ids || !b->pixels || !b->seconds || !b->waits) return F2B_ERR_MEMORY;
    int32_t *at = b->ids;
    for (int64_t i = 0; i < b->batch; i++) {
        f2b_rng r = f2b_rng_new(1, F2B_RNG_TEST, (uint64_t)i, 0, 0);
        f2b_step_sample *s = &b->samples[i];
        s->has_image = true;
        s->image_prompt = sequence(&r, &at, b->prompt, 0, true, vocab);
        if (contrastive(b))
            s->caption_prompt = sequence(&r, &at, b->prompt + b->caption, 0, false, vocab);
        if (autoregressive(b))
            s->conversation = sequence(&r, &at, b->talk, b->labelled, true, vocab);
    }
    f2b_rng r = f2b_rng_new(2, F2B_RNG_TEST, 0, 0, 0);
    for (int64_t i = 0; i < 3 * S * S; i++) b->pixels[i] = f2b_rng_normal(&r);
    return F2B_OK;
}

/* Another image for each sample, of numbers drawn once. */
static f2b_status image(void *context, int64_t sample, float *pixels)
{
    const bench *b = context;
    const int64_t S = b->model->config.vision.image_size, n = 3 * S * S, shift = sample * 1009 % n;
    memcpy(pixels, b->pixels + shift, (size_t)(n - shift) * sizeof *pixels);
    memcpy(pixels + n - shift, b->pixels, (size_t)shift * sizeof *pixels);
    return F2B_OK;
}

static f2b_status open_all(bench *b, const f2b_arguments *a)
{
    F2B_TRY(open_config(b, a));
    if (b->labelled > b->talk) return f2b_fail(F2B_ERR_USAGE, "--labelled is at most --talk");
    if (b->config->train.activation_checkpointing == F2B_CHECKPOINTING_AUTO)
        return f2b_fail(F2B_ERR_USAGE, "train.activation_checkpointing is none or layer here");
    const double start = now();
    b->model_folder = f2b_model_folder_open(b->config->model.path, b->config->model.vision_path);
    if (b->model_folder == NULL) return f2b_last_status();
    b->model = f2b_model_setup(b->config, b->model_folder, a->device, NULL);
    if (b->model == NULL) return f2b_last_status();
    b->optimizer = f2b_optimizer_new(&b->model->parameters);
    b->readings = f2b_readings_new(a->device);
    if (b->optimizer == NULL || b->readings == NULL) return f2b_last_status();
    F2B_TRY(f2b_device_wait(a->device));
    b->opening = now() - start;
    return make_samples(b);
}

/* ---- Steps ---- */

static f2b_step_input input_of(bench *b, int64_t step)
{
    const f2b_sample_shape s = shape_of(b);
    const bool layers = b->config->train.activation_checkpointing == F2B_CHECKPOINTING_LAYER;
    const int64_t micro = b->micro > 0 ? b->micro : b->batch;
    return (f2b_step_input){
        .autoregressive = autoregressive(b),
        .contrastive = contrastive(b),
        .n = b->batch,
        .samples = b->samples,
        .image = image,
        .context = b,
        .readings = b->readings,
        .micro_batch_tokens = micro * (s.image + s.caption + s.conversation),
        .settings = { .checkpoint = layers ? b->model->config.text.layers : 0,
                      .dropout = { (float)b->config->lora.dropout, 1, (uint64_t)step } },
    };
}

/* As the trainer's: work is asked for, then awaited once, by reading losses and norm. */
static f2b_status step(bench *b, int64_t i, f2b_step_result *result, f2b_update *update)
{
    f2b_optimizer_clear_gradients(&b->model->parameters);
    f2b_readings_clear(b->readings);
    const f2b_step_input in = input_of(b, i);
    F2B_TRY(f2b_step_run(b->model, &in, result));
    F2B_TRY(f2b_optimizer_begin(b->optimizer, b->config, i, 1000, b->readings, update));
    const double asked = now();
    F2B_TRY(f2b_readings_fetch(b->readings));
    b->waits[i] = now() - asked;
    f2b_step_settle(result, b->readings);
    f2b_optimizer_settle(b->optimizer, b->readings, update);
    return F2B_OK;
}

static f2b_status steps(bench *b, bool quiet)
{
    for (int64_t i = 0; i < b->steps; i++) {
        f2b_step_result result;
        f2b_update update;
        if (b->profile && i == 1) f2b_profile_enable(true);
        const double start = now();
        F2B_TRY(step(b, i, &result, &update));
        b->seconds[i] = now() - start;
        b->loss_ar = result.loss_ar, b->loss_disc = result.loss_disc;
        b->grad_norm = update.grad_norm, b->micro_batches = result.micro_batches;
        if (!quiet)
            fprintf(stderr, "step %" PRId64 "/%" PRId64 ": %.4f s\n", i + 1, b->steps, b->seconds[i]);
        if (!update.finite)
            return f2b_fail(F2B_ERR_NUMBERS, "step %" PRId64 ": a loss or the gradient is not finite",
                            i + 1);
    }
    return F2B_OK;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts numbers; their median. */
static double median(double *x, int64_t n)
{
    qsort(x, (size_t)n, sizeof *x, ascending);
    return (x[(n - 1) / 2] + x[n / 2]) / 2;
}

static void print_shape(const bench *b, const f2b_sample_shape *s)
{
    printf("{\"device\": \"%s\", \"kind\": \"%s\", \"batch\": %" PRId64
           ", \"micro_batches\": %" PRId64 ", \"rows_image\": %" PRId64 ", \"rows_caption\": %" PRId64
           ", \"rows_conversation\": %" PRId64 ", \"labelled\": %" PRId64 ", ",
           f2b_device_name(b->model->device), b->kind, b->batch, b->micro_batches, s->image, s->caption,
           s->conversation, s->labelled);
}

static void print_memory(const bench *b)
{
    const f2b_device_kind kind = b->model->device.kind;
    printf("\"peak_bytes\": %" PRId64 ", \"peak_by_tag\": {", f2b_bytes_peak_of(kind, F2B_TAG_COUNT));
    for (int t = 0; t < F2B_TAG_COUNT; t++)
        printf("%s\"%s\": %" PRId64, t ? ", " : "", f2b_tag_name(t), f2b_bytes_peak_of(kind, t));
    printf("}}\n");
}

/* Times of all steps but the first, which warms up (of the first where there is no other); memory of
 * the device. */
static void print(const bench *b)
{
    const f2b_sample_shape s = shape_of(b);
    const double batch = (double)b->batch;
    const double tflop = f2b_sample_flops(&b->model->config, b->config->lora.r, &s) * 1e-12;
    const int64_t n = b->steps > 1 ? b->steps - 1 : 1;
    double *seconds = b->seconds + b->steps - n, first = b->seconds[0];
    const double middle = median(seconds, n), best = seconds[0];
    print_shape(b, &s);
    printf("\"opening_seconds\": %.3f, \"first_seconds\": %.4f, \"best_seconds\": %.6f, "
           "\"median_seconds\": %.6f, \"median_wait_seconds\": %.6f, ",
           b->opening, first, best, middle, median(b->waits + b->steps - n, n));
    printf("\"best_samples_per_second\": %.4f, \"median_samples_per_second\": %.4f, "
           "\"sample_tflop\": %.6f, \"best_tflops\": %.4f, \"median_tflops\": %.4f, ",
           batch / best, batch / middle, tflop, tflop * batch / best, tflop * batch / middle);
    printf("\"loss_ar\": %.6f, \"loss_disc\": %.6f, \"grad_norm\": %.6f, ", b->loss_ar, b->loss_disc,
           b->grad_norm);
    print_memory(b);
    if (b->profile) f2b_train_profile(stderr);
}

int main(int argc, char **argv)
{
    bench b = { .kind = "conversation",
                .batch = 8,
                .steps = 6,
                .prompt = 12,
                .talk = 200,
                .labelled = 100,
                .caption = 20 };
    const f2b_option options[] = {
        { "model", "DIR", F2B_OPTION_TEXT, &b.folder,
          "folder with a config.json; its weights, or drawn ones", .required = true },
        { "kind", "conversation|caption|both", F2B_OPTION_CHOICE, &b.kind, "kind of batch" },
        { "batch", "N", F2B_OPTION_INT, &b.batch, "samples a step", 1, 1 << 20 },
        { "micro-batch", "N", F2B_OPTION_INT, &b.micro, "samples a micro-batch; 0: all of them", 0,
          1 << 20 },
        { "steps", "N", F2B_OPTION_INT, &b.steps, "steps; the first one warms up", 1, 1 << 20 },
        { "prompt", "N", F2B_OPTION_INT, &b.prompt, "tokens of a prompt of pass 1", 1, 1 << 16 },
        { "talk", "N", F2B_OPTION_INT, &b.talk, "tokens of a conversation", 2, 1 << 16 },
        { "labelled", "N", F2B_OPTION_INT, &b.labelled, "of them with a label", 1, 1 << 16 },
        { "caption", "N", F2B_OPTION_INT, &b.caption, "tokens of a caption", 1, 1 << 16 },
        { "profile", NULL, F2B_OPTION_FLAG, &b.profile,
          "where the time of all steps but the first went, on stderr" },
        { 0 },
    };
    const f2b_command command = {
        .name = "gpu_step",
        .options = options,
        .overrides = true,
        .summary = "Time training steps: drawn weights, made-up samples, the step of f2b-train. "
                   "Settings are "
                   "configuration keys: lora.r=16 train.precision=f32 "
                   "train.activation_checkpointing=layer.",
    };
    f2b_arguments a;
    int exit_code;
    if (!f2b_options_parse(&command, argc, argv, &a, &exit_code)) return exit_code;
    f2b_status status = open_all(&b, &a);
    if (status == F2B_OK) status = steps(&b, a.quiet);
    if (status == F2B_OK) print(&b);
    exit_code = f2b_exit_with(command.name, status);
    f2b_free(b.waits);
    f2b_free(b.seconds);
    f2b_free(b.pixels);
    f2b_free(b.ids);
    f2b_free(b.samples);
    if (b.readings != NULL) f2b_readings_free(b.readings);
    if (b.optimizer != NULL) f2b_optimizer_free(b.optimizer);
    if (b.model != NULL) f2b_model_free(b.model);
    if (b.model_folder != NULL) f2b_model_folder_close(b.model_folder);
    f2b_config_free(b.config);
    return exit_code;
}
