/*
 * Times one training step of the mini model (docs/benchmarks.md): d 512, 8 layers, ff 1376, 8 heads,
 * vocabulary 32000, LoRA r 16, K 16; per sample 576 visual rows given as features, 44 prompt tokens,
 * 200 conversation tokens of which 100 labelled. Conversation batches: forward, backward, AdamW.
 *
 *   mini_step BATCH f32|bf16 STEPS [profile]
 *
 * Prints a JSON object: seconds of each step, peak bytes, loss of the last.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "autograd/core/profile.h"
#include "autograd/core/rng.h"
#include "nn/passes.h"
#include "train/optimizer.h"

enum { IMAGE_ROWS = 576, PROMPT = 44, TALK = 200, LABELLED = 100, MOST = 64 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void must(bool good, const char *what)
{
    if (good) return;
    fprintf(stderr, "mini_step: %s: %s\n", what, f2b_last_error());
    exit(1);
}

/* The sizes of the model; the tower exists in name alone, for its features are given. */
static f2b_model *make_model(f2b_dtype compute)
{
    f2b_model_options o = {
        .config = { .text = { .hidden = 512, .intermediate = 1376, .layers = 8, .heads = 8,
                              .kv_heads = 8, .head_dim = 64, .vocab = 32000, .max_positions = 4096,
                              .rms_eps = 1e-5, .rope_theta = 10000, .initializer_range = 0.02 } },
        .method = { .tokens = 16, .temperature = 0.02,
                    .lora = { .r = 16, .alpha = 32, .targets = (1u << F2B_LORA_TARGETS) - 1 } },
        .device = F2B_HOST, .storage = compute, .compute = compute, .seed = 1,
    };
    f2b_model *m = f2b_model_new(&o);
    must(m != NULL, "model");
    m->config.vision.image_size = 336, m->config.vision.patch = 14, m->config.has_vision = true;
    return m;
}

typedef struct sequences {
    int32_t prompt[PROMPT + 1], talk[TALK + 1], labels[TALK + 1];
} sequences;

static void fill(sequences *s, int64_t sample)
{
    f2b_rng r = f2b_rng_new(1, F2B_RNG_TEST, (uint64_t)sample, 0, 0);
    for (int i = 0; i <= PROMPT; i++) s->prompt[i] = (int32_t)f2b_rng_below(&r, 32000);
    for (int i = 0; i <= TALK; i++) {
        s->talk[i] = (int32_t)f2b_rng_below(&r, 32000);
        s->labels[i] = i > TALK - LABELLED ? s->talk[i] : F2B_ROW_NO_LABEL;
    }
    s->prompt[35] = s->talk[35] = F2B_ROW_IMAGE;
}

static double step(f2b_model *m, f2b_optimizer *optimizer, const f2b_config *config,
                   const sequences *s, int64_t n, const void *features, int64_t at)
{
    f2b_pack_item prompts[MOST], talks[MOST];
    for (int64_t i = 0; i < n; i++) {
        prompts[i] = (f2b_pack_item){ s[i].prompt, NULL, PROMPT + 1, i, true, (uint64_t)i };
        talks[i] = (f2b_pack_item){ s[i].talk, s[i].labels, TALK + 1, i, false, (uint64_t)i };
    }
    const f2b_pass_settings settings = { 0 };
    static f2b_pass_frame one, two;
    f2b_tape *tape = f2b_tape_new(m->device);
    f2b_optimizer_clear_gradients(&m->parameters);
    f2b_tensor *rows = f2b_tape_tensor_from(tape, m->compute, 2,
                                            (int64_t[]){ n * IMAGE_ROWS, 512 }, features);
    f2b_tensor *c = f2b_pass_compress(tape, m, prompts, n, rows, &settings, &one);
    f2b_tape_release(rows);
    f2b_tensor *loss = f2b_tape_keep(f2b_pass_generate(tape, m, talks, n, c, &settings, &two));
    must(loss != NULL, "forward");
    const double labels = (double)(n * LABELLED), value = *(float *)loss->data / labels;
    must(f2b_tape_seed(tape, loss, 1.0 / labels) == F2B_OK && f2b_tape_backward(tape) == F2B_OK,
         "backward");
    f2b_tape_free(tape);
    f2b_update update;
    must(f2b_optimizer_update(optimizer, config, at, 1000, &update) == F2B_OK, "update");
    return value;
}

int main(int argc, char **argv)
{
    if (argc < 4) return 2;
    const int64_t n = atoll(argv[1]), steps = atoll(argv[3]);
    const f2b_dtype compute = strcmp(argv[2], "bf16") == 0 ? F2B_BF16 : F2B_F32;
    must(n >= 1 && n <= MOST, "batch size");
    f2b_model *m = make_model(compute);
    f2b_optimizer *optimizer = f2b_optimizer_new(&m->parameters);
    f2b_config config = { .train = { .learning_rate = 2e-4, .max_grad_norm = 1,
                                     .adam = { 0.9, 0.999, 1e-8 } } };
    static sequences s[MOST];
    for (int64_t i = 0; i < n; i++) fill(&s[i], i);
    const int64_t count = n * IMAGE_ROWS * 512;
    float *drawn = malloc((size_t)count * sizeof *drawn), *features = malloc((size_t)count * sizeof *drawn);
    f2b_rng r = f2b_rng_new(2, F2B_RNG_TEST, 0, 0, 0);
    for (int64_t i = 0; i < count; i++) drawn[i] = f2b_rng_uniform(&r) - 0.5f;
    f2b_convert(features, compute, drawn, F2B_F32, (size_t)count);
    free(drawn);

    double loss = 0;
    printf("{\"seconds\": [");
    for (int64_t i = 0; i < steps; i++) {
        if (i == 1) f2b_profile_enable(argc > 4);
        const double start = now();
        loss = step(m, optimizer, &config, s, n, features, i);
        printf("%s%.4f", i ? ", " : "", now() - start);
        fflush(stdout);
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("], \"loss\": %.6f, \"peak_bytes\": %lld, \"resident_bytes\": %lld}\n", loss,
           (long long)f2b_bytes_peak(F2B_TAG_COUNT), (long long)usage.ru_maxrss * 1024);
    const f2b_profile_row *rows;
    const int k = f2b_profile_rows(&rows);
    for (int i = 0; i < k; i++)
        fprintf(stderr, "%-22s %-8s %7lld %9.4f s %9.1f GFLOP/s\n", rows[i].name,
                rows[i].backward ? "backward" : "forward", (long long)rows[i].calls,
                rows[i].seconds / (double)(steps - 1),
                rows[i].flops * 1e-9 / rows[i].seconds);
    return 0;
}
