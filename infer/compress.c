/* Pass 1 for use. See compress.h for the contract. */
#include "infer/compress.h"

#include "autograd/core/alloc.h"
#include "autograd/device/device.h"
#include "data/prompt/prompt.h"
#include "nn/passes.h"

void f2b_compressed_clear(f2b_compressed *result)
{
    f2b_tensor_free(result->tokens);
    f2b_tensor_free(result->embeddings);
    *result = (f2b_compressed){ 0 };
}

f2b_status f2b_infer_prepare(const f2b_infer *in, const f2b_image *image, uint8_t *pixels)
{
    const bool pad = in->model->method.image_aspect_ratio == F2B_ASPECT_PAD;
    return f2b_image_prepare(image, pad ? F2B_IMAGE_PAD : F2B_IMAGE_CROP, in->image->size,
                             in->image->background, pixels);
}

/* A result of the tape, kept beyond it. */
static f2b_tensor *leaf_of(const f2b_tensor *x)
{
    if (x == NULL) return NULL;
    f2b_tensor *leaf = f2b_tensor_new(x->device, x->dtype, x->ndim, x->shape, F2B_TAG_ACTIVATIONS);
    if (leaf == NULL ||
        f2b_copy(leaf->data, leaf->device, x->data, x->device, f2b_tensor_bytes(x)) == F2B_OK)
        return leaf;
    f2b_tensor_free(leaf);
    return NULL;
}

static f2b_tape *quiet_tape(const f2b_model *model)
{
    f2b_tape *tape = f2b_tape_new(model->device);
    if (tape != NULL) (void)f2b_tape_set_recording(tape, false);
    return tape;
}

/* Normalised pixels [n, 3, S, S]; f2b_free. */
static float *normalise(const f2b_image_settings *image, const uint8_t *const *pixels, int64_t n)
{
    const size_t size = (size_t)image->size * (size_t)image->size * 3;
    float *out = f2b_calloc((size_t)n, size * sizeof *out, F2B_TAG_IMAGES);
    for (int64_t i = 0; out != NULL && i < n; i++)
        f2b_image_normalise(pixels[i], image->size, image->mean, image->std,
                            out + (size_t)i * size);
    return out;
}

static f2b_tensor *image_rows(f2b_tape *tape, const f2b_model *model,
                              const f2b_image_settings *image, const uint8_t *const *pixels,
                              int64_t n)
{
    float *values = normalise(image, pixels, n);
    if (values == NULL) return NULL;
    const f2b_pass_settings settings = { 0 };
    f2b_pass_frame frame;
    f2b_tensor *rows = f2b_pass_images(tape, model, values, n, NULL, &settings, &frame);
    f2b_free(values);
    return rows;
}

f2b_tensor *f2b_infer_image_rows(const f2b_model *view, const f2b_image_settings *image,
                                 const uint8_t *const *pixels, int64_t n)
{
    f2b_tape *tape = quiet_tape(view);
    f2b_tensor *rows = tape != NULL ? leaf_of(image_rows(tape, view, image, pixels, n)) : NULL;
    f2b_tape_free(tape);
    return rows;
}

static f2b_status check_compresses(const f2b_model *model)
{
    if (model->method.forward != F2B_FORWARD_BASE) return F2B_OK;
    return f2b_fail(F2B_ERR_CONFIG, "a base model (method.forward: base) has no compressed tokens; "
                                    "name a Fwd2Bot checkpoint");
}

static f2b_prompt_template template_of(const f2b_method *method)
{
    return method->template_ == F2B_SUMMARY_PLAIN ? F2B_TEMPLATE_PLAIN : F2B_TEMPLATE_VICUNA_V1;
}

/*
 * Both results from prompts of pass 1. `images` are the rows of f2b_pass_images or NULL. Under
 * `single` those rows are the tokens already, and the language model only makes embeddings.
 */
static f2b_status run_pass(f2b_tape *tape, const f2b_model *m, const f2b_pack_item *items,
                           int64_t n, f2b_tensor *images, bool embeddings, f2b_compressed *result)
{
    const f2b_pass_settings settings = { 0 };
    f2b_pass_frame frame;
    f2b_tensor *tokens = images;
    if (m->method.forward == F2B_FORWARD_DOUBLE) {
        tokens = f2b_pass_compress(tape, m, items, n, images, &settings, &frame);
        if (tokens == NULL) return f2b_last_status();
    }
    if (tokens != NULL && (result->tokens = leaf_of(tokens)) == NULL) return f2b_last_status();
    if (!embeddings) return F2B_OK;
    result->embeddings =
        leaf_of(f2b_pass_embeddings(tape, m, tokens, items, n, images, &settings, &frame));
    return result->embeddings != NULL ? F2B_OK : f2b_last_status();
}

static f2b_status compress_images(f2b_tape *tape, const f2b_infer *in, const f2b_sequence *prompt,
                                  const uint8_t *const *pixels, int64_t n, bool embeddings,
                                  f2b_compressed *result)
{
    f2b_tensor *images = image_rows(tape, in->model, in->image, pixels, n);
    f2b_pack_item *items = f2b_calloc((size_t)n, sizeof *items, F2B_TAG_OTHER);
    f2b_status status = images != NULL && items != NULL ? F2B_OK : f2b_last_status();
    for (int64_t i = 0; status == F2B_OK && i < n; i++)
        items[i] =
            (f2b_pack_item){ .ids = prompt->ids, .n = prompt->n, .image = i, .summary = true };
    if (status == F2B_OK) status = run_pass(tape, in->model, items, n, images, embeddings, result);
    f2b_free(items);
    return status;
}

f2b_status f2b_compress_images(const f2b_infer *in, const uint8_t *const *pixels, int64_t n,
                               bool embeddings, f2b_compressed *result)
{
    *result = (f2b_compressed){ 0 };
    F2B_TRY(check_compresses(in->model));
    const f2b_method *method = &in->model->method;
    f2b_sequence prompt = { 0 };
    F2B_TRY(f2b_prompt_image(in->tokenizer, template_of(method), method->prompt, &prompt));
    f2b_tape *tape = quiet_tape(in->model);
    f2b_status status = tape != NULL
                            ? compress_images(tape, in, &prompt, pixels, n, embeddings, result)
                            : f2b_last_status();
    f2b_tape_free(tape);
    f2b_free(prompt.ids);
    f2b_free(prompt.labels);
    if (status != F2B_OK) f2b_compressed_clear(result);
    return status;
}

/* Prompts of all captions; those made so far are the caller's to free also on failure. */
static f2b_status caption_items(const f2b_infer *in, const char *const *captions, int64_t n,
                                int64_t max_ids, f2b_sequence *prompts, f2b_pack_item *items)
{
    const f2b_method *method = &in->model->method;
    const f2b_pack_options options = f2b_pass_compress_options(in->model);
    const int64_t context = in->model->config.text.max_positions;
    for (int64_t i = 0; i < n; i++) {
        if (f2b_prompt_caption(in->tokenizer, template_of(method), method->prompt, captions[i],
                               max_ids, &prompts[i], NULL) != F2B_OK)
            return f2b_fail_context("caption %lld", (long long)i);
        items[i] = (f2b_pack_item){ .ids = prompts[i].ids, .n = prompts[i].n, .summary = true };
        const int64_t rows = f2b_pack_item_rows(&items[i], &options);
        if (rows > context)
            return f2b_fail(F2B_ERR_DATA, "caption %lld takes %lld rows with its prompt, and the model was "
                            "made for %lld (max_position_embeddings); lower max-caption-length",
                            (long long)i, (long long)rows, (long long)context);
    }
    return F2B_OK;
}

f2b_status f2b_compress_captions(const f2b_infer *in, const char *const *captions, int64_t n,
                                 int64_t max_ids, f2b_compressed *result)
{
    *result = (f2b_compressed){ 0 };
    F2B_TRY(check_compresses(in->model));
    f2b_tape *tape = quiet_tape(in->model);
    f2b_sequence *prompts = f2b_calloc((size_t)n, sizeof *prompts, F2B_TAG_OTHER);
    f2b_pack_item *items = f2b_calloc((size_t)n, sizeof *items, F2B_TAG_OTHER);
    f2b_status status = tape && prompts && items
                            ? caption_items(in, captions, n, max_ids, prompts, items)
                            : f2b_last_status();
    if (status == F2B_OK) status = run_pass(tape, in->model, items, n, NULL, true, result);
    for (int64_t i = 0; prompts != NULL && i < n; i++) {
        f2b_free(prompts[i].ids);
        f2b_free(prompts[i].labels);
    }
    f2b_free(prompts);
    f2b_free(items);
    f2b_tape_free(tape);
    if (status != F2B_OK) f2b_compressed_clear(result);
    return status;
}
