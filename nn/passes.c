/* See passes.h. */
#include "nn/passes.h"

#include "autograd/ops/head_cross_entropy/head_cross_entropy.h"
#include "autograd/ops/mean_rows/mean_rows.h"
#include "autograd/ops/rows/rows.h"

f2b_tensor *f2b_pass_features(f2b_tape *tape, const f2b_model *m, const float *pixels, int64_t n,
                              const uint64_t *keys, const f2b_pass_settings *s,
                              f2b_pass_frame *frame)
{
    F2B_RETURN_NULL_IF(m->clip == NULL, F2B_ERR_CONFIG,
                       "the model has no vision tower, but the data have images; give model.vision_path");
    const int64_t S = m->config.vision.image_size;
    frame->tower = (f2b_clip_pass){
        .act = m->compute, .checkpoint = s->checkpoint, .watch = s->watch, .dropout = s->dropout,
        .image_keys = keys,
        .lora_scale = f2b_model_lora_scale(m),
        .summary = m->method.forward == F2B_FORWARD_SINGLE ? m->summary_tokens : NULL,
    };
    const bool before = f2b_tape_set_recording(tape, f2b_tape_recording(tape) && f2b_model_trains_images(m));
    const f2b_mark mark = f2b_tape_mark(tape);
    f2b_tensor *images = f2b_tape_tensor_from(tape, F2B_F32, 4, (int64_t[]){ n, 3, S, S }, pixels);
    f2b_tensor *rows = f2b_clip_forward(tape, m->clip, images, &frame->tower);
    f2b_tape_release_since(tape, mark, &rows, 1);
    f2b_tape_set_recording(tape, before);
    return rows;
}

f2b_tensor *f2b_pass_project(f2b_tape *tape, const f2b_model *m, f2b_tensor *features)
{
    const bool record = f2b_tape_recording(tape) && f2b_model_trains_images(m);
    const bool before = f2b_tape_set_recording(tape, record);
    const f2b_mark mark = f2b_tape_mark(tape);
    f2b_tensor *rows = f2b_projector_forward(tape, &m->projector, features);
    f2b_tape_release_since(tape, mark, &rows, 1);
    f2b_tape_release(features);
    f2b_tape_set_recording(tape, before);
    return rows;
}

f2b_tensor *f2b_pass_images(f2b_tape *tape, const f2b_model *m, const float *pixels, int64_t n,
                            const uint64_t *keys, const f2b_pass_settings *s, f2b_pass_frame *frame)
{
    return f2b_pass_project(tape, m, f2b_pass_features(tape, m, pixels, n, keys, s, frame));
}

f2b_tensor *f2b_pass_input(f2b_tape *tape, const f2b_model *m, const f2b_pack *pack, f2b_tensor *images)
{
    f2b_tensor *sources[F2B_PACK_SOURCES] = { m->llama->embed, images, m->summary_tokens };
    for (int i = 0; i < F2B_PACK_SOURCES; i++)
        if (!pack->uses[i]) sources[i] = pack->uses[F2B_FROM_TOKENS] ? m->llama->embed : images;
    f2b_tensor *x = f2b_rows_assemble(tape, m->compute, sources, F2B_PACK_SOURCES, pack->from);
    if (x != NULL && pack->grad_rows != NULL) f2b_tape_want_grad_rows(x, pack->grad_rows);
    return x;
}

/* Which sources of a pass are trained, or made by what is. */
static unsigned grad_sources(const f2b_model *m, const f2b_tensor *images)
{
    const f2b_tensor *const sources[F2B_PACK_SOURCES] = { m->llama->embed, images, m->summary_tokens };
    unsigned wanted = 0;
    for (unsigned s = 0; s < F2B_PACK_SOURCES; s++)
        if (sources[s] != NULL && sources[s]->requires_grad) wanted |= 1u << s;
    return wanted;
}

static f2b_tensor *run(f2b_tape *tape, const f2b_model *m, const f2b_pack_item *items, int64_t n,
                       f2b_tensor *images, const f2b_pass_settings *s, f2b_pack_options options,
                       f2b_stage stage, f2b_dropout_pass place, bool final_norm, f2b_pass_frame *frame)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < items[i].n; j++)
            F2B_RETURN_NULL_IF(items[i].ids[j] == F2B_ROW_IMAGE && images == NULL, F2B_ERR_DATA,
                               "sequence %lld of a pass has an image mark but no image", (long long)i);
    options.grad_sources = f2b_tape_recording(tape) ? grad_sources(m, images) : 0;
    options.share_prefix = !options.bidirectional && !options.all_rows;
    if (f2b_pack_build(tape, items, n, &options, &frame->pack) != F2B_OK) return NULL;
    frame->pass = (f2b_pass){
        .stage = stage, .rows = &frame->pack.all, .wanted = &frame->pack.wanted,
        .final_norm = final_norm, .checkpoint = s->checkpoint, .watch = s->watch,
        .dropout = s->dropout, .lora_scale = f2b_model_lora_scale(m),
        .place = place,
    };
    f2b_tensor *x = f2b_pass_input(tape, m, &frame->pack, images);
    return f2b_llama_forward(tape, m->llama, x, &frame->pass);
}

f2b_pack_options f2b_pass_compress_options(const f2b_model *m)
{
    const bool single = m->method.forward == F2B_FORWARD_SINGLE;
    return (f2b_pack_options){
        .image_rows = single ? m->method.tokens : f2b_image_tokens(&m->config),
        .summary_rows = single ? 0 : m->method.tokens,
        .bidirectional = !single && m->method.attention == F2B_SUMMARY_BIDIRECTIONAL,
        .last_row = single,
    };
}

f2b_pack_options f2b_pass_generate_options(const f2b_model *m)
{
    return (f2b_pack_options){ .image_rows = f2b_model_image_rows(m) };
}

f2b_tensor *f2b_pass_compress(f2b_tape *tape, const f2b_model *m, const f2b_pack_item *items,
                              int64_t n, f2b_tensor *images, const f2b_pass_settings *s,
                              f2b_pass_frame *frame)
{
    F2B_CHECK(m->method.forward == F2B_FORWARD_DOUBLE);
    return run(tape, m, items, n, images, s, f2b_pass_compress_options(m), F2B_STAGE_COMPRESSION,
               F2B_DROPOUT_COMPRESS, m->method.hidden_state == F2B_SUMMARY_FINAL_NORM, frame);
}

/* x in the type of arithmetic: similarities are too fine for bf16. */
static f2b_tensor *widen(f2b_tape *tape, f2b_tensor *x)
{
    if (x == NULL || x->dtype != F2B_BF16) return x;
    const int64_t n = x->shape[0];
    int32_t *pairs = f2b_calloc((size_t)n, 2 * sizeof *pairs, F2B_TAG_DATA);
    if (pairs == NULL) return NULL;
    for (int64_t i = 0; i < n; i++) pairs[2 * i + 1] = (int32_t)i;
    f2b_tensor *from = f2b_tape_table(tape, F2B_I32, 2, (int64_t[]){ n, 2 }, pairs);
    f2b_free(pairs);
    return from != NULL ? f2b_rows_assemble(tape, F2B_F32, &x, 1, from) : NULL;
}

f2b_tensor *f2b_pass_embeddings(f2b_tape *tape, const f2b_model *m, f2b_tensor *compressed,
                                const f2b_pack_item *items, int64_t n, f2b_tensor *images,
                                const f2b_pass_settings *s, f2b_pass_frame *frame)
{
    if (m->method.forward == F2B_FORWARD_DOUBLE)
        return f2b_mean_rows(tape, widen(tape, compressed), m->method.tokens);
    return widen(tape, run(tape, m, items, n, images, s, f2b_pass_compress_options(m),
                           F2B_STAGE_GENERATION, F2B_DROPOUT_EMBED, true, frame));
}

f2b_tensor *f2b_pass_generate(f2b_tape *tape, const f2b_model *m, const f2b_pack_item *items,
                              int64_t n, f2b_tensor *images, const f2b_pass_settings *s,
                              f2b_pass_frame *frame)
{
    f2b_tensor *h = run(tape, m, items, n, images, s, f2b_pass_generate_options(m),
                        F2B_STAGE_GENERATION, F2B_DROPOUT_GENERATE, true, frame);
    return f2b_head_cross_entropy(tape, h, m->llama->head, frame->pack.labels);
}

f2b_tensor *f2b_pass_hidden(f2b_tape *tape, const f2b_model *m, const f2b_pack_item *items, int64_t n,
                            f2b_tensor *images, const f2b_pass_settings *s, f2b_pass_frame *frame)
{
    f2b_pack_options options = f2b_pass_generate_options(m);
    options.all_rows = true;
    return run(tape, m, items, n, images, s, options, F2B_STAGE_GENERATION, F2B_DROPOUT_GENERATE, true,
               frame);
}
