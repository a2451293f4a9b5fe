/*
 * Not a test by itself: runs one training step on a batch from a file and writes the losses and every
 * gradient, for tests/oracle/test_step_parity.py.
 *
 *   step_dump MODEL_DIR CONFIG.yaml BATCH.json OUT.safetensors [ROWS] [MASKS.safetensors]
 *
 * ROWS: train.micro_batch_tokens of the step (default: everything at once). MASKS: also write the
 * dropout masks that the step draws, in the oracle's form.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/ops/dropout/dropout.h"
#include "tests/support/step_case.h"

#define MUST(expression)                                                                          \
    do {                                                                                          \
        if (!(expression)) {                                                                      \
            fprintf(stderr, "step_dump: %s: %s\n", #expression, f2b_last_error());                \
            exit(1);                                                                              \
        }                                                                                         \
    } while (0)

/* ---- Masks in the oracle's form ---- */

typedef struct masks {
    f2b_named_array arrays[F2B_CASE_ARRAYS];
    int64_t n;
} masks;

static void add_masks(masks *m, const f2b_model *model, const f2b_pass_dropout *d,
                      f2b_dropout_pass pass, const char *place, int64_t sample,
                      const uint64_t *keys, int64_t rows, int64_t layers, const int64_t width[4],
                      const char *const names[4])
{
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
            MUST(y != NULL && m->n < F2B_CASE_ARRAYS);
            memcpy(ones, y->data, f2b_tensor_bytes(y));
            char *name = calloc(1, 96);
            snprintf(name, 96, "%s.%lld.%lld.%s", place, (long long)sample, (long long)layer, names[g]);
            m->arrays[m->n++] = (f2b_named_array){ name, F2B_F32, 2, { rows, width[g] }, ones };
        }
    f2b_tape_free(tape);
}

enum { MOST_ROWS = 4096 };

static void write_masks(const char *path, const f2b_model *model, const f2b_case_batch *b,
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
        uint64_t keys[MOST_ROWS];
        f2b_pack_item item;
#define ADD(pass, place, part, options, summary, key)                                             \
        item = (f2b_pack_item){ (part).ids, NULL, (part).n, 0, summary, key };                    \
        MUST(f2b_pack_item_rows(&item, &(options)) <= MOST_ROWS);                                 \
        f2b_pack_item_keys(&item, &(options), keys);                                              \
        add_masks(&m, model, d, pass, place, i, keys, f2b_pack_item_rows(&item, &(options)),      \
                  t->layers, width, llm)
        if (s->has_image && single) {
            const int64_t rows = f2b_vision_patches(v) + 1 + model->method.tokens;
            MUST(rows <= MOST_ROWS);
            for (int64_t r = 0; r < rows; r++) keys[r] = f2b_dropout_row_key(image, r);
            add_masks(&m, model, d, F2B_DROPOUT_TOWER, "tower", i, keys, rows, model->clip->feature_layers,
                      tower, vit);
        }
        if (s->has_image) {
            ADD(first, "image", s->image_prompt, one, !single, image);
        }
        if (s->caption_prompt.n > 0) {
            ADD(first, "caption", s->caption_prompt, one, !single, caption);
        }
        if (s->conversation.n > 0) {
            ADD(F2B_DROPOUT_GENERATE, "conversation", s->conversation, two, false, image);
        }
    }
    MUST(f2b_safetensors_write(path, m.arrays, m.n, NULL, 0) == F2B_OK);
}

int main(int argc, char **argv)
{
    if (argc < 5) return 2;
    static f2b_named_array arrays[F2B_CASE_ARRAYS];
    f2b_step_case *c = f2b_step_case_open(argv[1], argv[2], argv[3],
                                          argc > 5 ? atoll(argv[5]) : INT64_MAX);
    f2b_step_case_run(c);
    const int64_t n = f2b_step_case_arrays(c, arrays);
    MUST(f2b_safetensors_write(argv[4], arrays, n, NULL, 0) == F2B_OK);
    if (argc > 6) write_masks(argv[6], c->model, &c->batch, &c->input.settings.dropout);
    f2b_step_case_close(c);
    return 0;
}
