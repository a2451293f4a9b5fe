/*
 * gpu_rates: how fast a device runs single ops at the shapes of a model: products, attention, and what
 * only moves memory, beside the device's own copy. Prints a Markdown table (gpu_rates --help).
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "autograd/core/rng.h"
#include "autograd/device/device.h"
#include "autograd/ops/add/add.h"
#include "autograd/ops/attention/attention.h"
#include "autograd/ops/linear/linear.h"
#include "autograd/ops/rms_norm/rms_norm.h"
#include "autograd/ops/rope/rope.h"
#include "autograd/ops/silu_mul/silu_mul.h"
#include "checkpoints/model_folder.h"
#include "cli/exit_codes.h"
#include "cli/options.h"

enum { LEAVES = 16 };

typedef struct bench {
    const char *folder, *precision;
    int64_t rows, length, r;
    double seconds, peak; /* of a measurement; TFLOP/s that shares are of */
    f2b_model_config config;
    f2b_device device;
    f2b_dtype dtype;
    f2b_tape *tape;
    f2b_tensor *leaf[LEAVES];
    int leaves;
    double copy; /* bytes/s, read and written */
} bench;

/* One op, ready to run again and again; leaves are the bench's. */
typedef struct op_case {
    const char *name;
    f2b_tensor *(*run)(f2b_tape *tape, const struct op_case *c);
    f2b_tensor *x, *y, *w;
    f2b_projection projection;
    f2b_attention_layout layout;
    int64_t head_dim;
    double flop, bytes; /* forward */
    double flop_back, bytes_back;
} op_case;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- Operands ---- */

static f2b_tensor *keep(bench *b, f2b_tensor *t)
{
    F2B_CHECK(b->leaves < LEAVES);
    if (t != NULL) b->leaf[b->leaves++] = t;
    return t;
}

static void free_leaves(bench *b)
{
    f2b_tape_reset(b->tape);
    while (b->leaves > 0) f2b_tensor_free(b->leaf[--b->leaves]);
}

/* A matrix of random numbers, a block of them over and over. NULL on error. */
static f2b_tensor *matrix(bench *b, int64_t rows, int64_t columns, bool gradient)
{
    enum { BLOCK = 1 << 16 };
    static float block[BLOCK];
    if (block[0] == 0) {
        f2b_rng r = f2b_rng_new(1, F2B_RNG_TEST, 0, 0, 0);
        for (int64_t i = 0; i < BLOCK; i++) block[i] = 0.02f * f2b_rng_normal(&r);
    }
    f2b_tensor *t = keep(
        b, f2b_tensor_new(b->device, b->dtype, 2, (int64_t[]){ rows, columns }, F2B_TAG_OTHER));
    char *host = t != NULL ? f2b_alloc_host(f2b_tensor_bytes(t), F2B_TAG_OTHER) : NULL;
    if (host == NULL) return NULL;
    const int64_t n = rows * columns;
    for (int64_t i = 0; i < n; i += BLOCK)
        f2b_convert(host + (size_t)i * f2b_dtype_size(b->dtype), b->dtype, block, F2B_F32,
                    (size_t)(n - i < BLOCK ? n - i : BLOCK));
    const f2b_status status = f2b_tensor_write(t, host);
    f2b_free(host);
    t->requires_grad = gradient;
    return status == F2B_OK ? t : NULL;
}

/* Numbers first + step * (i mod period). */
static f2b_tensor *integers(bench *b, int64_t n, int64_t first, int64_t step, int64_t period)
{
    f2b_tensor *t = keep(b, f2b_tensor_new(b->device, F2B_I32, 1, &n, F2B_TAG_OTHER));
    int32_t *host = t != NULL ? f2b_alloc_host((size_t)n * sizeof *host, F2B_TAG_OTHER) : NULL;
    if (host == NULL) return NULL;
    for (int64_t i = 0; i < n; i++) host[i] = (int32_t)(first + step * (i % period));
    const f2b_status status = f2b_tensor_write(t, host);
    f2b_free(host);
    return status == F2B_OK ? t : NULL;
}

/* ---- Ops ---- */

static f2b_tensor *run_linear(f2b_tape *tape, const op_case *c)
{
    f2b_tensor *y = NULL;
    return f2b_linear_group(tape, c->x, &c->projection, 1, 2.0, NULL, &y) == F2B_OK ? y : NULL;
}
static f2b_tensor *run_attention(f2b_tape *tape, const op_case *c)
{
    return f2b_attention(tape, c->x, c->y, c->w, &c->layout, c->head_dim,
                         1 / sqrt((double)c->head_dim));
}
static f2b_tensor *run_rms_norm(f2b_tape *tape, const op_case *c)
{
    return f2b_rms_norm(tape, c->x, c->w, 1e-5);
}
static f2b_tensor *run_silu_mul(f2b_tape *tape, const op_case *c)
{
    return f2b_silu_mul(tape, c->x, c->y);
}
static f2b_tensor *run_add(f2b_tape *tape, const op_case *c) { return f2b_add(tape, c->x, c->y); }
static f2b_tensor *run_rope(f2b_tape *tape, const op_case *c)
{
    return f2b_rope(tape, c->x, c->w, c->y);
}

static f2b_status once(bench *b, const op_case *c, bool backward)
{
    f2b_tape_reset(b->tape);
    f2b_tape_set_recording(b->tape, backward);
    f2b_tensor *y = c->run(b->tape, c);
    if (y == NULL) return f2b_last_status();
    if (!backward) return F2B_OK;
    F2B_TRY(f2b_tape_seed(b->tape, y, 1));
    return f2b_tape_backward(b->tape);
}

/* Seconds of one run, of as many as b->seconds hold after a warm-up; the device is awaited at the end. */
static f2b_status measure(bench *b, const op_case *c, bool backward, double *seconds)
{
    double took = 0;
    for (int64_t n = 1, warm = 0; warm < 3; warm++) {
        const double start = now();
        for (int64_t i = 0; i < n; i++) F2B_TRY(once(b, c, backward));
        F2B_TRY(f2b_device_wait(b->device));
        took = (now() - start) / (double)n;
        if (warm > 0) n = b->seconds > took ? (int64_t)(b->seconds / took) : 1;
    }
    *seconds = took;
    return F2B_OK;
}

static void line(const bench *b, const char *name, const char *direction, double seconds,
                 double flop, double bytes)
{
    printf("| %s | %s | %.4f |", name, direction, seconds * 1e3);
    if (flop > 0)
        printf(" %.2f | %.1f %% |", flop / seconds * 1e-12, 100 * flop / seconds * 1e-12 / b->peak);
    else printf(" | |");
    if (bytes > 0)
        printf(" %.1f | %.1f %% |\n", bytes / seconds * 1e-9, 100 * bytes / seconds / b->copy);
    else printf(" | |\n");
}

/* Forward, and backward as what it takes longer with it. */
static f2b_status report(bench *b, const op_case *c)
{
    double forward, both;
    F2B_TRY(measure(b, c, false, &forward));
    line(b, c->name, "forward", forward, c->flop, c->bytes);
    if (c->flop_back > 0 || c->bytes_back > 0) {
        F2B_TRY(measure(b, c, true, &both));
        line(b, c->name, "backward", fmax(both - forward, 1e-9), c->flop_back, c->bytes_back);
    }
    fflush(stdout);
    free_leaves(b);
    return F2B_OK;
}

/* ---- The table ---- */

static f2b_status copies(bench *b)
{
    const int64_t columns = b->config.text.hidden;
    f2b_tensor *x = matrix(b, b->rows, columns, false), *y = matrix(b, b->rows, columns, false);
    if (x == NULL || y == NULL) return f2b_last_status();
    const size_t bytes = f2b_tensor_bytes(x);
    double took = 0;
    for (int64_t n = 1, warm = 0; warm < 3; warm++) {
        const double start = now();
        for (int64_t i = 0; i < n; i++)
            F2B_TRY(f2b_copy(y->data, b->device, x->data, b->device, bytes));
        F2B_TRY(f2b_device_wait(b->device));
        took = (now() - start) / (double)n;
        if (warm > 0) n = b->seconds > took ? (int64_t)(b->seconds / took) : 1;
    }
    b->copy = 2 * (double)bytes / took;
    line(b, "copy", "within the device", took, 0, 2 * (double)bytes);
    free_leaves(b);
    return F2B_OK;
}

static f2b_status linear(bench *b, const char *name, int64_t out, int64_t in, int64_t r)
{
    op_case c = { .name = name, .run = run_linear, .x = matrix(b, b->rows, in, true) };
    c.projection.weight = matrix(b, out, in, false);
    if (r > 0) {
        const f2b_dtype compute = b->dtype;
        b->dtype = F2B_F32; /* what is trained has f32 masters */
        c.projection.lora_a = matrix(b, r, in, true), c.projection.lora_b = matrix(b, out, r, true);
        b->dtype = compute;
        if (c.projection.lora_a == NULL || c.projection.lora_b == NULL) return f2b_last_status();
    }
    if (c.x == NULL || c.projection.weight == NULL) return f2b_last_status();
    const double skinny = (double)r * (double)(in + out);
    c.flop = 2 * (double)b->rows * ((double)in * (double)out + skinny);
    c.flop_back = 2 * (double)b->rows * ((double)in * (double)out + 2 * skinny);
    return report(b, &c);
}

static f2b_status attention(bench *b, const char *name)
{
    const f2b_text_config *t = &b->config.text;
    const int64_t n = b->rows / b->length, rows = n * b->length;
    op_case c = { .name = name,
                  .run = run_attention,
                  .head_dim = t->head_dim,
                  .x = matrix(b, rows, t->heads * t->head_dim, true),
                  .y = matrix(b, rows, t->kv_heads * t->head_dim, true),
                  .w = matrix(b, rows, t->kv_heads * t->head_dim, true),
                  .layout = { integers(b, n + 1, 0, b->length, n + 1),
                              integers(b, n, 0, b->length, n), integers(b, n, b->length, 0, 1),
                              integers(b, rows, 1, 1, b->length) } };
    if (!c.x || !c.y || !c.w || !c.layout.q_start || !c.layout.k_start || !c.layout.k_count ||
        !c.layout.limit)
        return f2b_last_status();
    c.flop =
        2 * (double)rows * (double)b->length * (double)(t->heads * t->head_dim); /* causal: half */
    c.flop_back = 2.5 * c.flop;
    return report(b, &c);
}

/* What only moves memory: bytes of operands and results, each once. */
static f2b_status moves(bench *b)
{
    const f2b_text_config *t = &b->config.text;
    const double size = (double)f2b_dtype_size(b->dtype), d = (double)(b->rows * t->hidden) * size,
                 ff = (double)(b->rows * t->intermediate) * size;
    op_case norm = { .name = "rms_norm",
                     .run = run_rms_norm,
                     .x = matrix(b, b->rows, t->hidden, true),
                     .bytes = 2 * d,
                     .bytes_back = 3 * d };
    norm.w = keep(b, f2b_tensor_new(b->device, F2B_F32, 1, &t->hidden, F2B_TAG_OTHER));
    if (norm.x == NULL || norm.w == NULL) return f2b_last_status();
    F2B_TRY(f2b_zero(norm.w->data, b->device, f2b_tensor_bytes(norm.w)));
    F2B_TRY(report(b, &norm));
    op_case silu = { .name = "silu_mul",
                     .run = run_silu_mul,
                     .x = matrix(b, b->rows, t->intermediate, true),
                     .y = matrix(b, b->rows, t->intermediate, true),
                     .bytes = 3 * ff,
                     .bytes_back = 5 * ff };
    if (silu.x == NULL || silu.y == NULL) return f2b_last_status();
    F2B_TRY(report(b, &silu));
    op_case add = { .name = "add",
                    .run = run_add,
                    .x = matrix(b, b->rows, t->hidden, false),
                    .y = matrix(b, b->rows, t->hidden, false),
                    .bytes = 3 * d };
    if (add.x == NULL || add.y == NULL) return f2b_last_status();
    F2B_TRY(report(b, &add));
    op_case rope = { .name = "rope",
                     .run = run_rope,
                     .x = matrix(b, b->rows, t->hidden, true),
                     .y = integers(b, b->rows, 0, 1, b->length),
                     .bytes = 2 * d,
                     .bytes_back = 2 * d };
    rope.w = keep(b, f2b_rope_table(b->device, F2B_F32, t->rope_theta, t->head_dim, b->length));
    if (rope.x == NULL || rope.y == NULL || rope.w == NULL) return f2b_last_status();
    return report(b, &rope);
}

static f2b_status table(bench *b)
{
    const f2b_text_config *t = &b->config.text;
    printf("| %s, %" PRId64 " rows | | ms | TFLOP/s | of %g | GB/s | of copy |\n"
           "| --- | --- | --- | --- | --- | --- | --- |\n",
           b->precision, b->rows, b->peak);
    F2B_TRY(copies(b));
    F2B_TRY(linear(b, "q_proj", t->heads * t->head_dim, t->hidden, 0));
    F2B_TRY(linear(b, "q_proj with LoRA", t->heads * t->head_dim, t->hidden, b->r));
    F2B_TRY(linear(b, "gate_proj", t->intermediate, t->hidden, 0));
    F2B_TRY(linear(b, "gate_proj with LoRA", t->intermediate, t->hidden, b->r));
    F2B_TRY(linear(b, "down_proj", t->hidden, t->intermediate, 0));
    F2B_TRY(linear(b, "lm_head", t->vocab, t->hidden, 0));
    F2B_TRY(attention(b, "attention"));
    if (b->device.kind == F2B_CUDA) {       /* docs/cuda.md: what runs where tensor cores cannot */
        setenv("F2B_CUDA_ATTENTION", "plain", 1);
        F2B_TRY(attention(b, "attention, plain kernels"));
        unsetenv("F2B_CUDA_ATTENTION");
    }
    return moves(b);
}

static f2b_status run(bench *b)
{
    F2B_TRY(f2b_model_config_load(b->folder, NULL, &b->config));
    if (b->length > b->rows) return f2b_fail(F2B_ERR_USAGE, "--length is at most --rows");
    b->dtype = strcmp(b->precision, "f32") == 0 ? F2B_F32 : F2B_BF16;
    b->tape = f2b_tape_new(b->device);
    if (b->tape == NULL) return f2b_last_status();
    const f2b_status status = table(b);
    free_leaves(b);
    f2b_tape_free(b->tape);
    return status;
}

int main(int argc, char **argv)
{
    bench b = {
        .precision = "bf16", .rows = 4832, .length = 604, .r = 128, .seconds = 0.2, .peak = 790
    };
    const f2b_option options[] = {
        { "model", "DIR", F2B_OPTION_TEXT, &b.folder, "folder with the config.json of the shapes",
          .required = true },
        { "precision", "f32|bf16", F2B_OPTION_CHOICE, &b.precision, "of rows and frozen weights" },
        { "rows", "N", F2B_OPTION_INT, &b.rows, "rows of an op", 1, 1 << 24 },
        { "length", "N", F2B_OPTION_INT, &b.length, "rows of a sequence", 1, 1 << 20 },
        { "rank", "N", F2B_OPTION_INT, &b.r, "of LoRA", 1, 1 << 16 },
        { "seconds", "X", F2B_OPTION_REAL, &b.seconds, "of a measurement", 1e-4, 1e4 },
        { "peak", "X", F2B_OPTION_REAL, &b.peak, "TFLOP/s that shares are of", 1e-3, 1e6 },
        { 0 },
    };
    const f2b_command command = { .name = "gpu_rates",
                                  .options = options,
                                  .summary = "Time single ops at the shapes of a model." };
    f2b_arguments a;
    int exit_code;
    if (!f2b_options_parse(&command, argc, argv, &a, &exit_code)) return exit_code;
    b.device = a.device;
    return f2b_exit_with(command.name, run(&b));
}
