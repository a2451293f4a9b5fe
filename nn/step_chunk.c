/* See step_internal.h: a chunk's sequences, its images, its passes. */
#include "nn/step_internal.h"

#include "autograd/ops/rows/rows.h"

/* The number of the chunk's image that sample i shares, or -1: none so far. */
static int64_t find_image(const f2bi_stepper *s, const f2bi_chunk *c, int64_t i)
{
    for (int64_t k = 0; s->in->samples[i].image > 0 && k < c->images; k++)
        if (s->owner[c->shown[k]] == s->owner[i]) return k;
    return -1;
}

void f2bi_step_chunk_free(f2bi_chunk *c)
{
    f2b_free(c->prompts);
    f2b_free(c->answers);
    f2b_free(c->image_keys);
    f2b_free(c->shown);
    f2b_free(c->image);
}

/* Which sequences the chunk has: images in order, captions after them. */
static f2b_status chunk_sequences(const f2bi_stepper *s, f2bi_chunk *c, bool answers)
{
    const bool summary = s->model->method.forward == F2B_FORWARD_DOUBLE;
    c->prompts = f2b_calloc((size_t)c->n * 2, sizeof *c->prompts, F2B_TAG_OTHER);
    c->answers = f2b_calloc((size_t)c->n, sizeof *c->answers, F2B_TAG_OTHER);
    c->image_keys = f2b_calloc((size_t)c->n, sizeof *c->image_keys, F2B_TAG_OTHER);
    c->shown = f2b_calloc((size_t)c->n, sizeof *c->shown, F2B_TAG_OTHER);
    c->image = f2b_calloc((size_t)c->n, sizeof *c->image, F2B_TAG_OTHER);
    if (!c->prompts || !c->answers || !c->image_keys || !c->shown || !c->image)
        return F2B_ERR_MEMORY;
    for (int64_t i = c->first; i < c->first + c->n; i++) {
        const f2b_step_sample *sample = &s->in->samples[i];
        const int64_t known = find_image(s, c, i), image = known >= 0 ? known : c->images;
        c->image[i - c->first] = image;
        if (answers)
            c->answers[c->n_answers++] = f2bi_step_item(sample->conversation, image, false,
                                                 f2b_dropout_image_key(i));
        if (!sample->has_image || known >= 0) continue;
        const uint64_t key = f2b_dropout_image_key(s->owner[i]);
        if (s->model->method.forward != F2B_FORWARD_BASE)
            c->prompts[c->n_prompts++] = f2bi_step_item(sample->image_prompt, image, summary, key);
        c->image_keys[c->images] = key;
        c->shown[c->images++] = i;
    }
    for (int64_t i = c->first; s->in->contrastive && i < c->first + c->n; i++)
        c->prompts[c->n_prompts++] = f2bi_step_item(s->in->samples[i].caption_prompt, 0, summary,
                                             f2b_dropout_caption_key(i));
    return F2B_OK;
}

static f2b_status chunk_images(f2bi_stepper *s, f2bi_chunk *c, f2b_tensor **rows)
{
    *rows = NULL;
    if (c->images == 0) return F2B_OK;
    s->at.pass = "images";
    if (s->in->load_features != NULL) {
        *rows = f2bi_step_features(s->tape, s->model, s->in, c->shown, c->images,
                                   s->rehearse, &c->tower);
        return *rows != NULL ? F2B_OK : f2b_last_status();
    }
    const int64_t S = s->model->config.vision.image_size, size = 3 * S * S;
    const size_t bytes = (size_t)(c->images * size) * sizeof(float);
    float *pixels = s->rehearse ? f2b_alloc_counted(F2B_HOST, bytes, F2B_TAG_IMAGES)
                                : f2b_alloc_host(bytes, F2B_TAG_IMAGES);
    if (pixels == NULL) return F2B_ERR_MEMORY;
    f2b_status status = F2B_OK;
    for (int64_t k = 0; !s->rehearse && k < c->images && status == F2B_OK; k++)
        status = s->in->image(s->in->context, c->shown[k], pixels + k * size);
    if (status == F2B_OK)
        *rows = f2b_pass_images(s->tape, s->model, pixels, c->images, c->image_keys,
                                &s->in->settings, &c->tower);
    f2b_free(pixels);
    return status != F2B_OK ? status : *rows != NULL ? F2B_OK : f2b_last_status();
}

/* Embeddings a sample, [2 n, d]: those of shared images are taken several times. */
static f2b_tensor *embeddings_of_samples(f2b_tape *tape, const f2bi_chunk *c, f2b_tensor *e)
{
    if (e == NULL || c->images == c->n) return e;
    int32_t *row = f2b_calloc((size_t)c->n, 2 * sizeof *row, F2B_TAG_DATA);
    if (row == NULL) return NULL;
    for (int64_t i = 0; i < c->n; i++) {
        row[i] = (int32_t)c->image[i];
        row[c->n + i] = (int32_t)(c->images + i);
    }
    f2b_tensor *index = f2b_tape_table(tape, F2B_I32, 1, (int64_t[]){ 2 * c->n }, row);
    f2b_free(row);
    return index != NULL ? f2b_rows_gather(tape, e, index) : NULL;
}

static void count_rows(f2bi_stepper *s, f2bi_chunk *c, const f2b_pack *pack)
{
    s->result->tokens += pack->sequence_rows;
    c->computed += pack->rows;
    if (c->computed > s->result->most_computed) s->result->most_computed = c->computed;
}

f2b_status f2bi_step_chunk(f2bi_stepper *s, f2bi_chunk *c, bool answers)
{
    f2b_model *m = s->model;
    const f2b_pass_settings *settings = &s->in->settings;
    F2B_TRY(chunk_sequences(s, c, answers));
    f2b_tensor *images;
    F2B_TRY(chunk_images(s, c, &images));
    if (m->method.forward == F2B_FORWARD_DOUBLE && c->n_prompts > 0) {
        f2b_tensor *rows = images;
        s->at.pass = "pass 1";
        images = f2b_pass_compress(s->tape, m, c->prompts, c->n_prompts, rows, settings, &c->compress);
        if (images == NULL) return f2b_last_status();
        f2b_tape_release(rows);
        count_rows(s, c, &c->compress.pack);
    }
    if (s->in->contrastive) {
        s->at.pass = "pass 1";
        c->embeddings = f2b_pass_embeddings(s->tape, m, images, c->prompts, c->n_prompts, images,
                                            settings, &c->embed);
        c->embeddings = embeddings_of_samples(s->tape, c, c->embeddings);
        if (c->embeddings == NULL) return f2b_last_status();
        f2b_tape_keep(c->embeddings);
        count_rows(s, c, &c->embed.pack);
    }
    if (!answers) return F2B_OK;
    s->at.pass = "pass 2";
    c->loss_ar = f2b_pass_generate(s->tape, m, c->answers, c->n_answers, images, settings, &c->generate);
    if (c->loss_ar == NULL) return f2b_last_status();
    f2b_tape_keep(c->loss_ar);
    count_rows(s, c, &c->generate.pack);
    return F2B_OK;
}
