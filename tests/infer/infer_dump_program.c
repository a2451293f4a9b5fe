/*
 * Not a test by itself: what a trained model makes of an image, a caption and a question, for the
 * Python tests of exports.
 *
 *   infer_dump CHECKPOINT MODEL IMAGE QUESTION OUT.safetensors
 *
 * OUT: pixels [3,S,S]; image_prompt, caption_prompt, question_prompt i32 ids (-200 at the image;
 * the caption is QUESTION); tokens, caption_tokens [K,d]; embedding, caption_embedding [1,d];
 * logits [rows,vocab] of every row of pass 2; answer i32 ids of a greedy answer.
 */
#include <stdio.h>
#include <stdlib.h>

#include "autograd/ops/linear/linear.h"
#include "checkpoints/safetensors.h"
#include "data/prompt/prompt.h"
#include "infer/compress.h"
#include "infer/generate.h"
#include "infer/trained_model.h"
#include "nn/passes.h"

#define MUST(expression)                                                                          \
    do {                                                                                          \
        if (!(expression)) {                                                                      \
            fprintf(stderr, "infer_dump: %s: %s\n", #expression, f2b_last_error());               \
            exit(1);                                                                              \
        }                                                                                         \
    } while (0)

enum { MOST = 16, NEW = 12 };

static f2b_named_array arrays[MOST];
static int n_arrays;

static void put(const char *name, f2b_dtype dtype, int ndim, const int64_t *shape, const void *data)
{
    f2b_named_array *a = &arrays[n_arrays++];
    *a = (f2b_named_array){ .name = name, .dtype = dtype, .ndim = ndim, .data = data };
    for (int i = 0; i < ndim; i++) a->shape[i] = shape[i];
}

static void put_tensor(const char *name, const f2b_tensor *t)
{
    put(name, t->dtype, t->ndim, t->shape, t->data);
}

static void put_ids(const char *name, const int32_t *ids, int64_t n)
{
    put(name, F2B_I32, 1, &n, ids);
}

static f2b_prompt_template template_of(const f2b_model *m)
{
    return m->method.template_ == F2B_SUMMARY_PLAIN ? F2B_TEMPLATE_PLAIN : F2B_TEMPLATE_VICUNA_V1;
}

/* Pass 2 over the whole prompt: logits of every row. */
static void dump_logits(f2b_tape *tape, const f2b_model *m, const f2b_pack_item *item,
                        f2b_tensor *tokens)
{
    const f2b_pass_settings settings = { 0 };
    f2b_pass_frame frame;
    f2b_tensor *h = f2b_pass_hidden(tape, m, item, 1, tokens, &settings, &frame);
    f2b_tensor *z = f2b_linear(tape, h, m->llama->head, NULL);
    MUST(z != NULL);
    put_tensor("logits", z);
}

int main(int argc, char **argv)
{
    if (argc != 6) return 2;
    const f2b_trained_model_options o = { .checkpoint = argv[1], .model = argv[2],
                                          .compute = F2B_F32, .storage = F2B_STORAGE_OF_FILE };
    f2b_trained_model *t = f2b_trained_model_open(&o);
    MUST(t != NULL);
    const f2b_model *m = t->model;
    const f2b_infer in = { m, t->tokenizer, &t->image };

    f2b_image image = { 0 };
    const int64_t S = t->image.size;
    uint8_t *pixels = malloc((size_t)(S * S * 3));
    float *normalised = malloc((size_t)(S * S * 3) * sizeof *normalised);
    MUST(f2b_image_open(argv[3], &image) == F2B_OK);
    MUST(f2b_infer_prepare(&in, &image, pixels) == F2B_OK);
    f2b_image_normalise(pixels, t->image.size, t->image.mean, t->image.std, normalised);
    put("pixels", F2B_F32, 3, (int64_t[]){ 3, S, S }, normalised);

    f2b_sequence image_prompt, caption_prompt, question;
    char *text = f2b_sprintf(F2B_TAG_OTHER, "%s\n%s", F2B_IMAGE_MARK, argv[4]);
    const f2b_turn asked = { "human", text };
    MUST(f2b_prompt_image(t->tokenizer, template_of(m), m->method.prompt, &image_prompt) == F2B_OK);
    MUST(f2b_prompt_caption(t->tokenizer, template_of(m), m->method.prompt, argv[4], 77,
                            &caption_prompt, NULL) == F2B_OK);
    MUST(f2b_prompt_open(t->tokenizer, &asked, 1, true, &question, NULL, NULL) == F2B_OK);
    put_ids("image_prompt", image_prompt.ids, image_prompt.n);
    put_ids("caption_prompt", caption_prompt.ids, caption_prompt.n);
    put_ids("question_prompt", question.ids, question.n);

    f2b_compressed compressed, caption;
    const uint8_t *const picture = pixels;
    const char *const words = argv[4];
    MUST(f2b_compress_images(&in, &picture, 1, true, &compressed) == F2B_OK);
    MUST(f2b_compress_captions(&in, &words, 1, 77, &caption) == F2B_OK);
    put_tensor("tokens", compressed.tokens);
    put_tensor("embedding", compressed.embeddings);
    put_tensor("caption_tokens", caption.tokens);
    put_tensor("caption_embedding", caption.embeddings);

    const f2b_pack_item item = { .ids = question.ids, .n = question.n };
    f2b_tape *tape = f2b_tape_new(m->device);
    (void)f2b_tape_set_recording(tape, false);
    dump_logits(tape, m, &item, compressed.tokens);
    const f2b_generate_options g = { .stage = F2B_STAGE_GENERATION, .max_new_tokens = NEW,
                                     .eos_id = -1 };
    f2b_ids answer = { 0 };
    MUST(f2b_generate(m, &item, 1, compressed.tokens, &g, &answer) == F2B_OK);
    put_ids("answer", answer.ids, answer.n);
    MUST(f2b_safetensors_write(argv[5], arrays, n_arrays, NULL, 0) == F2B_OK);
    f2b_ids_free(&answer);
    f2b_tape_free(tape);
    f2b_compressed_clear(&compressed);
    f2b_compressed_clear(&caption);
    const f2b_sequence sequences[] = { image_prompt, caption_prompt, question };
    for (int i = 0; i < 3; i++) {
        f2b_free(sequences[i].ids);
        f2b_free(sequences[i].labels);
    }
    f2b_free(text);
    f2b_image_free(&image);
    free(pixels);
    free(normalised);
    f2b_trained_model_close(t);
    return 0;
}
