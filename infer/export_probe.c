/* What models make of fixed inputs, compared: how an export proves that it does something. See
 * export_probe.h. */
#include <math.h>

#include "autograd/core/alloc.h"
#include "infer/export_probe.h"
#include "infer/generate.h"
#include "nn/passes.h"

enum { PROBE_IDS = 12 };

/* Ids spread over the vocabulary, the start token first. */
static f2b_pack_item probe_item(const f2b_model *m, int32_t ids[PROBE_IDS])
{
    const int64_t n =
        m->config.text.max_positions < PROBE_IDS ? m->config.text.max_positions : PROBE_IDS;
    for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)((1 + 997 * i) % m->config.text.vocab);
    return (f2b_pack_item){ .ids = ids, .n = n };
}

static f2b_tensor *probe_tower(f2b_tape *tape, const f2b_model *m, f2b_stage stage)
{
    (void)stage;
    const int64_t n = 3 * m->config.vision.image_size * m->config.vision.image_size;
    float *pixels = f2b_alloc_host((size_t)n * sizeof *pixels, F2B_TAG_IMAGES);
    if (pixels == NULL) return NULL;
    for (int64_t i = 0; i < n; i++) pixels[i] = sinf(0.1f * (float)(i % 8191));
    const f2b_pass_settings settings = { 0 };
    f2b_pass_frame frame;
    f2b_tensor *out = f2b_pass_images(tape, m, pixels, 1, NULL, &settings, &frame);
    f2b_free(pixels);
    return out;
}

/* Hidden states of a stage: of pass 1 over text, or the tower's output under `single`. */
static f2b_tensor *probe_hidden(f2b_tape *tape, const f2b_model *m, f2b_stage stage)
{
    int32_t ids[PROBE_IDS];
    f2b_pack_item item = probe_item(m, ids);
    const f2b_pass_settings settings = { 0 };
    f2b_pass_frame frame;
    if (stage == F2B_STAGE_GENERATION)
        return f2b_pass_hidden(tape, m, &item, 1, NULL, &settings, &frame);
    if (m->method.forward == F2B_FORWARD_SINGLE) return probe_tower(tape, m, stage);
    item.n = 1; /* the summary rows follow; a small context must hold both */
    item.summary = true;
    return f2b_pass_compress(tape, m, &item, 1, NULL, &settings, &frame);
}

/* |a - b| / |b| of tensors on the host; NaN where something is not finite. */
static double distance_here(const f2b_tensor *a, const f2b_tensor *b)
{
    double difference = 0, size = 0;
    const float *x = a->data, *y = b->data;
    for (int64_t i = 0; i < f2b_numel(a); i++) {
        difference += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
        size += (double)y[i] * y[i];
    }
    return sqrt(difference) / sqrt(size);
}

static f2b_status distance(const f2b_tensor *a, const f2b_tensor *b, double *out)
{
    f2b_tensor *x = f2b_tensor_on_host(a), *y = x != NULL ? f2b_tensor_on_host(b) : NULL;
    const f2b_status status = y != NULL ? F2B_OK : f2b_last_status();
    if (y != NULL) *out = distance_here(x, y);
    f2b_tensor_free(x);
    f2b_tensor_free(y);
    return status;
}

/* Run both models on one tape and compare. */
typedef f2b_tensor *prober(f2b_tape *tape, const f2b_model *m, f2b_stage stage);

static f2b_status compare(prober *run, const f2b_model *a, const f2b_model *b, f2b_stage stage,
                          double *out)
{
    *out = 0;
    f2b_tape *tape = f2b_tape_new(a->device);
    if (tape == NULL) return f2b_last_status();
    (void)f2b_tape_set_recording(tape, false);
    const f2b_tensor *x = run(tape, a, stage);
    const f2b_tensor *y = x != NULL ? run(tape, b, stage) : NULL;
    const f2b_status status = y != NULL ? distance(x, y, out) : f2b_last_status();
    f2b_tape_free(tape);
    return status;
}

f2b_status f2bi_probe_hidden(const f2b_model *a, const f2b_model *b, f2b_stage stage, double *out)
{
    return compare(probe_hidden, a, b, stage, out);
}

f2b_status f2bi_probe_images(const f2b_model *a, const f2b_model *b, double *out)
{
    return compare(probe_tower, a, b, F2B_STAGE_NONE, out);
}

f2b_status f2bi_probe_logits(const f2b_model *a, f2b_stage stage_a, const f2b_model *b,
                             f2b_stage stage_b, double *out)
{
    int32_t ids[PROBE_IDS];
    const f2b_pack_item item = probe_item(a, ids);
    const int64_t slot = 0;
    f2b_generator *x = f2b_generator_new(a, stage_a, 1, item.n);
    f2b_generator *y = x != NULL ? f2b_generator_new(b, stage_b, 1, item.n) : NULL;
    const f2b_tensor *p = y != NULL ? f2b_generator_feed(x, &item, &slot, 1, NULL) : NULL;
    const f2b_tensor *q = p != NULL ? f2b_generator_feed(y, &item, &slot, 1, NULL) : NULL;
    const f2b_status status = q != NULL ? distance(p, q, out) : f2b_last_status();
    f2b_generator_free(x);
    f2b_generator_free(y);
    return status;
}
