/*
 * Not a test by itself: what a model with one stage's adapter makes of all tokens of an image and a
 * question, for the Python tests of merged exports.
 *
 *   full_tokens CHECKPOINT|- MODEL|- none|compression|generation IMAGE QUESTION OUT.safetensors
 *
 * OUT: pixels [3,S,S]; ids i32 (-200 at the image); image [rows,d]; logits [vocab] after the last
 * row; answer i32 ids of a greedy answer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/safetensors.h"
#include "data/prompt/prompt.h"
#include "infer/compress.h"
#include "infer/generate.h"
#include "infer/trained_model.h"

#define MUST(expression)                                                                          \
    do {                                                                                          \
        if (!(expression)) {                                                                      \
            fprintf(stderr, "full_tokens: %s: %s\n", #expression, f2b_last_error());              \
            exit(1);                                                                              \
        }                                                                                         \
    } while (0)

enum { NEW = 12 };

static const char *or_null(const char *text) { return strcmp(text, "-") == 0 ? NULL : text; }

static f2b_stage stage_of(const char *name)
{
    return strcmp(name, "compression") == 0 ? F2B_STAGE_COMPRESSION
         : strcmp(name, "generation") == 0  ? F2B_STAGE_GENERATION
                                            : F2B_STAGE_NONE;
}

int main(int argc, char **argv)
{
    if (argc != 7) return 2;
    const f2b_stage stage = stage_of(argv[3]);
    const f2b_trained_model_options o = { .checkpoint = or_null(argv[1]), .model = or_null(argv[2]),
                                          .compute = F2B_F32, .storage = F2B_STORAGE_OF_FILE };
    f2b_trained_model *t = f2b_trained_model_open(&o);
    MUST(t != NULL);
    f2b_model view = f2b_model_base_view(t->model);
    if (stage != F2B_STAGE_NONE) view.method.language_model = F2B_LANGUAGE_MODEL_LORA;
    const f2b_infer in = { &view, t->tokenizer, &t->image };

    f2b_image image = { 0 };
    const int64_t S = t->image.size;
    uint8_t *pixels = malloc((size_t)(S * S * 3));
    float *normalised = malloc((size_t)(S * S * 3) * sizeof *normalised);
    MUST(f2b_image_open(argv[4], &image) == F2B_OK);
    MUST(f2b_infer_prepare(&in, &image, pixels) == F2B_OK);
    f2b_image_normalise(pixels, t->image.size, t->image.mean, t->image.std, normalised);
    const uint8_t *const picture = pixels;
    f2b_tensor *rows = f2b_infer_image_rows(&view, &t->image, &picture, 1);
    MUST(rows != NULL);

    f2b_sequence question;
    char *text = f2b_sprintf(F2B_TAG_OTHER, "%s\n%s", F2B_IMAGE_MARK, argv[5]);
    const f2b_turn asked = { "human", text };
    MUST(f2b_prompt_open(t->tokenizer, &asked, 1, true, &question, NULL, NULL) == F2B_OK);
    const f2b_pack_item item = { .ids = question.ids, .n = question.n };
    const int64_t slot = 0, capacity = question.n + rows->shape[0];
    f2b_generator *generator = f2b_generator_new(&view, stage, 1, capacity);
    f2b_tensor *logits = generator ? f2b_generator_feed(generator, &item, &slot, 1, rows) : NULL;
    MUST(logits != NULL);
    const f2b_generate_options g = { .stage = stage, .max_new_tokens = NEW, .eos_id = -1 };
    f2b_ids answer = { 0 };
    MUST(f2b_generate(&view, &item, 1, rows, &g, &answer) == F2B_OK);

    const f2b_named_array arrays[] = {
        { "pixels", F2B_F32, 3, { 3, S, S }, normalised },
        { "ids", F2B_I32, 1, { question.n }, question.ids },
        { "image", rows->dtype, 2, { rows->shape[0], rows->shape[1] }, rows->data },
        { "logits", logits->dtype, 1, { logits->shape[1] }, logits->data },
        { "answer", F2B_I32, 1, { answer.n }, answer.ids },
    };
    MUST(f2b_safetensors_write(argv[6], arrays, sizeof arrays / sizeof *arrays, NULL, 0) == F2B_OK);
    f2b_generator_free(generator);
    f2b_tensor_free(rows);
    f2b_ids_free(&answer);
    f2b_free(question.ids);
    f2b_free(question.labels);
    f2b_free(text);
    f2b_image_free(&image);
    free(pixels);
    free(normalised);
    f2b_trained_model_close(t);
    return 0;
}
