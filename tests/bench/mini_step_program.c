/*
 * Times one training step of the mini model (docs/benchmarks.md): d 512, 8 layers, ff 1376, 8 heads,
 * vocabulary 32000, LoRA r 16, K 16; per sample 576 visual rows given as features, 44 prompt tokens,
 * 200 conversation tokens of which 100 labelled. Conversation batches: forward, backward, AdamW.
 *
 *   mini_step BATCH f32|bf16 STEPS [profile] [SIZE=N ...]
 *
 * SIZE is one of d, ff, layers, heads, vocab, image, prompt, talk, labelled, system: with how many words,
 * alike in all of them, samples begin before their image (0: none is alike); r: of the LoRA, dropout: of its input,
 * in per cent; packed=0 leaves weights as they are,
 * to be packed in every product. Prints a JSON object:
 * seconds of each step by the clock and of the processors, peak bytes, loss of the last; with `profile`,
 * which measures all steps but the first, also what each op took a step (and a table on stderr).
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "autograd/core/profile.h"
#include "autograd/core/rng.h"
#include "nn/packed_weights.h"
#include "nn/passes.h"
#include "train/optimizer.h"

enum { MOST = 64, K = 16, IMAGE_AT = 35 };

typedef struct sizes {
    int64_t d, ff, layers, heads, vocab, image, prompt, talk, labelled, packed, system, r, dropout;
} sizes;

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void must(bool good, const char *what)
{
    if (good) return;
    fprintf(stderr, "mini_step: %s: %s\n", what, f2b_last_error());
    exit(1);
}

/* SIZE=N */
static void set_size(sizes *z, const char *text)
{
    const struct { const char *name; int64_t *value; } names[] = {
        { "d", &z->d }, { "ff", &z->ff }, { "layers", &z->layers }, { "heads", &z->heads },
        { "vocab", &z->vocab }, { "image", &z->image }, { "prompt", &z->prompt }, { "talk", &z->talk },
        { "labelled", &z->labelled },
        { "packed", &z->packed }, { "system", &z->system }, { "r", &z->r }, { "dropout", &z->dropout },
    };
    const char *equals = strchr(text, '=');
    for (size_t i = 0; equals != NULL && i < sizeof names / sizeof *names; i++)
        if (strlen(names[i].name) == (size_t)(equals - text) &&
            strncmp(names[i].name, text, (size_t)(equals - text)) == 0) {
            *names[i].value = atoll(equals + 1);
            return;
        }
    fprintf(stderr, "mini_step: %s is no size\n", text);
    exit(2);
}

/* The tower exists in name alone, for its features are given. */
static f2b_model *make_model(f2b_dtype compute, const sizes *z)
{
    f2b_model_options o = {
        .config = { .text = { .hidden = z->d, .intermediate = z->ff, .layers = z->layers,
                              .heads = z->heads, .kv_heads = z->heads, .head_dim = z->d / z->heads,
                              .vocab = z->vocab, .max_positions = 4096, .rms_eps = 1e-5,
                              .rope_theta = 10000, .initializer_range = 0.02 } },
        .method = { .tokens = K, .temperature = 0.02,
                    .lora = { .r = z->r, .alpha = 2 * (double)z->r, .targets = (1u << F2B_LORA_TARGETS) - 1 } },
        .device = F2B_HOST, .storage = compute, .compute = compute, .seed = 1,
    };
    f2b_model *m = f2b_model_new(&o);
    must(m != NULL, "model");
    must(z->packed == 0 || f2b_model_pack_weights(m) == F2B_OK, "packing");
    const int64_t side = (int64_t)llround(sqrt((double)z->image));
    must(side * side == z->image, "image rows: a square of a whole number");
    m->config.vision.image_size = 14 * side, m->config.vision.patch = 14, m->config.has_vision = true;
    return m;
}

/* Token ids of one sample; the image's place is a mark, which is one id. */
typedef struct sequences {
    int32_t *prompt, *talk, *labels;
} sequences;

static void *some(int64_t n, size_t size)
{
    void *block = calloc((size_t)n, size);
    must(block != NULL, "memory");
    return block;
}

static sequences draw(const sizes *z, int64_t sample)
{
    sequences s = { some(z->prompt + 1, sizeof *s.prompt), some(z->talk + 1, sizeof *s.talk),
                    some(z->talk + 1, sizeof *s.labels) };
    f2b_rng r = f2b_rng_new(1, F2B_RNG_TEST, (uint64_t)sample, 0, 0);
    for (int64_t i = 0; i <= z->prompt; i++) s.prompt[i] = (int32_t)f2b_rng_below(&r, (uint64_t)z->vocab);
    for (int64_t i = 0; i <= z->talk; i++) {
        s.talk[i] = (int32_t)f2b_rng_below(&r, (uint64_t)z->vocab);
        s.labels[i] = i > z->talk - z->labelled ? s.talk[i] : F2B_ROW_NO_LABEL;
    }
    const int64_t at = z->prompt < IMAGE_AT ? z->prompt / 2 : IMAGE_AT;
    for (int64_t i = 0; i < at && i < z->system; i++)
        s.prompt[i] = s.talk[i] = (int32_t)(i * 37 % z->vocab);
    s.prompt[at] = s.talk[at] = F2B_ROW_IMAGE;
    return s;
}

static void *draw_features(int64_t count, f2b_dtype compute)
{
    float *drawn = some(count, sizeof *drawn), *features = some(count, sizeof *drawn);
    f2b_rng r = f2b_rng_new(2, F2B_RNG_TEST, 0, 0, 0);
    for (int64_t i = 0; i < count; i++) drawn[i] = f2b_rng_uniform(&r) - 0.5f;
    f2b_convert(features, compute, drawn, F2B_F32, (size_t)count);
    free(drawn);
    return features;
}

static double step(f2b_model *m, f2b_optimizer *optimizer, const f2b_config *config, const sizes *z,
                   const sequences *s, int64_t n, const void *features, int64_t at)
{
    f2b_pack_item prompts[MOST], talks[MOST];
    for (int64_t i = 0; i < n; i++) {
        prompts[i] = (f2b_pack_item){ s[i].prompt, NULL, z->prompt + 1, i, true, (uint64_t)i };
        talks[i] = (f2b_pack_item){ s[i].talk, s[i].labels, z->talk + 1, i, false, (uint64_t)i };
    }
    const f2b_pass_settings settings = { .dropout = { (float)z->dropout / 100, 1, (uint64_t)at } };
    static f2b_pass_frame one, two;
    f2b_tape *tape = f2b_tape_new(m->device);
    f2b_optimizer_clear_gradients(&m->parameters);
    f2b_tensor *rows = f2b_tape_tensor_from(tape, m->compute, 2,
                                            (int64_t[]){ n * z->image, z->d }, features);
    f2b_tensor *c = f2b_pass_compress(tape, m, prompts, n, rows, &settings, &one);
    f2b_tape_release(rows);
    f2b_tensor *loss = f2b_tape_keep(f2b_pass_generate(tape, m, talks, n, c, &settings, &two));
    must(loss != NULL, "forward");
    const double labels = (double)(n * z->labelled), value = *(float *)loss->data / labels;
    must(f2b_tape_seed(tape, loss, 1.0 / labels) == F2B_OK && f2b_tape_backward(tape) == F2B_OK,
         "backward");
    f2b_tape_free(tape);
    f2b_update update;
    must(f2b_optimizer_update(optimizer, config, at, 1000, &update) == F2B_OK, "update");
    return value;
}

/* What each op took a step: as members of the JSON object, and as a table on stderr. */
static void print_ops(int64_t steps)
{
    const f2b_profile_row *rows;
    const int k = f2b_profile_rows(&rows);
    printf(", \"ops\": [");
    for (int i = 0; i < k; i++) {
        const f2b_profile_row *r = &rows[i];
        const double n = (double)steps;
        printf("%s{\"op\": \"%s\", \"backward\": %s, \"calls\": %.1f, \"seconds\": %.6f, "
               "\"flops\": %.0f, \"bytes\": %.0f}", i ? ", " : "", r->name,
               r->backward ? "true" : "false", (double)r->calls / n, r->seconds / n, r->flops / n,
               r->bytes / n);
        fprintf(stderr, "%-22s %-8s %7lld %9.4f s %9.1f GFLOP/s\n", r->name,
                r->backward ? "backward" : "forward", (long long)r->calls, r->seconds / n,
                r->flops * 1e-9 / r->seconds);
    }
    printf("]");
}

int main(int argc, char **argv)
{
    if (argc < 4) return 2;
    const int64_t n = atoll(argv[1]), steps = atoll(argv[3]);
    const f2b_dtype compute = strcmp(argv[2], "bf16") == 0 ? F2B_BF16 : F2B_F32;
    sizes z = { 512, 1376, 8, 8, 32000, 576, 44, 200, 100, 1, IMAGE_AT, 16, 0 };
    bool profile = false;
    for (int i = 4; i < argc; i++) {
        if (strcmp(argv[i], "profile") == 0) profile = true;
        else set_size(&z, argv[i]);
    }
    must(n >= 1 && n <= MOST, "batch size");
    f2b_model *m = make_model(compute, &z);
    f2b_optimizer *optimizer = f2b_optimizer_new(&m->parameters);
    f2b_config config = { .train = { .learning_rate = 2e-4, .max_grad_norm = 1,
                                     .adam = { 0.9, 0.999, 1e-8 } } };
    static sequences s[MOST];
    for (int64_t i = 0; i < n; i++) s[i] = draw(&z, i);
    const void *features = draw_features(n * z.image * z.d, compute);

    double loss = 0, *busy = some(steps, sizeof *busy);
    printf("{\"seconds\": [");
    for (int64_t i = 0; i < steps; i++) {
        if (i == 1) f2b_profile_enable(profile);
        const double start = now(CLOCK_MONOTONIC), before = now(CLOCK_PROCESS_CPUTIME_ID);
        loss = step(m, optimizer, &config, &z, s, n, features, i);
        busy[i] = now(CLOCK_PROCESS_CPUTIME_ID) - before;
        printf("%s%.4f", i ? ", " : "", now(CLOCK_MONOTONIC) - start);
        fflush(stdout);
    }
    printf("], \"processor_seconds\": [");
    for (int64_t i = 0; i < steps; i++) printf("%s%.4f", i ? ", " : "", busy[i]);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("], \"loss\": %.6f, \"peak_bytes\": %lld, \"resident_bytes\": %lld", loss,
           (long long)f2b_bytes_peak(F2B_TAG_COUNT), (long long)usage.ru_maxrss * 1024);
    if (profile && steps > 1) print_ops(steps - 1);
    printf("}\n");
    return 0;
}
