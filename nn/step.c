/* See step.h. A chunk is a micro-batch: consecutive samples that go through one tape. */
#include "nn/step_internal.h"

#include <string.h>

#include "autograd/device/device.h"
#include "autograd/ops/contrastive/contrastive.h"
#include "autograd/ops/rows/rows.h"
#include "autograd/ops/space.h"

typedef enum step_mode { RUN, EVALUATE, REHEARSE } step_mode;

typedef struct stepper {
    f2b_model *model;
    const f2b_step_input *in;
    f2b_step_result *result;
    f2b_tape *tape;
    bool train, rehearse;
    f2b_step_progress at;
    int64_t *first;             /* [chunks + 1] sample numbers */
    int64_t *owner;             /* [n] the first sample of the batch with which pass 1 is shared */
    int64_t chunks;
    f2b_tensor *ev, *et;        /* GradCache: embeddings of the whole batch [n, d], with gradients */
} stepper;

/* One chunk on the tape; the frames stay until its backward has run. */
typedef struct chunk {
    int64_t first, n, images;   /* samples; images that go through the tower */
    int64_t *shown;             /* [images] the sample that each is taken from */
    int64_t *image;             /* [n] number of the image of a sample that has one */
    f2b_pass_frame tower, compress, embed, generate;
    f2b_pack_item *prompts;     /* pass 1: image prompts, then captions */
    f2b_pack_item *answers;     /* pass 2 */
    int64_t n_prompts, n_answers;
    uint64_t *image_keys;
    f2b_tensor *embeddings;     /* [n_prompts, d], or NULL */
    f2b_tensor *loss_ar;        /* sum over labels, or NULL */
    int64_t computed;           /* rows of the passes so far */
} chunk;

static f2b_pack_item item_of(f2b_tokens t, int64_t image, bool summary, uint64_t key)
{
    return (f2b_pack_item){ t.ids, t.labels, t.n, image, summary, key };
}

/* ---- Planning ---- */

/* Whether two samples' sequences of pass 1 are one and the same. */
static bool same_prompt(const f2b_step_sample *a, const f2b_step_sample *b)
{
    const int64_t n = a->image_prompt.n;
    return a->image == b->image && n == b->image_prompt.n &&
           (n == 0 || memcmp(a->image_prompt.ids, b->image_prompt.ids,
                             (size_t)n * sizeof *a->image_prompt.ids) == 0);
}

static f2b_status find_owners(stepper *s)
{
    s->owner = f2b_calloc((size_t)s->in->n, sizeof *s->owner, F2B_TAG_OTHER);
    if (s->owner == NULL) return F2B_ERR_MEMORY;
    for (int64_t i = 0; i < s->in->n; i++) {
        const f2b_step_sample *all = s->in->samples;
        int64_t j = all[i].has_image && all[i].image > 0 ? 0 : i;
        while (j < i && !(all[j].has_image && same_prompt(&all[j], &all[i]))) j++;
        s->owner[i] = j;
    }
    return F2B_OK;
}

/* The number of the chunk's image that sample i shares, or -1: none so far. */
static int64_t find_image(const stepper *s, const chunk *c, int64_t i)
{
    for (int64_t k = 0; s->in->samples[i].image > 0 && k < c->images; k++)
        if (s->owner[c->shown[k]] == s->owner[i]) return k;
    return -1;
}

static int64_t sample_rows(const stepper *s, const f2b_step_sample *sample, bool shares)
{
    const f2b_pack_options one = f2b_pass_compress_options(s->model);
    const f2b_pack_options two = f2b_pass_generate_options(s->model);
    const bool summary = s->model->method.forward == F2B_FORWARD_DOUBLE;
    int64_t rows = 0;
    f2b_pack_item item = item_of(sample->image_prompt, 0, summary, 0);
    if (sample->image_prompt.n > 0 && !shares) rows += f2b_pack_item_rows(&item, &one);
    item = item_of(sample->caption_prompt, 0, summary, 0);
    if (sample->caption_prompt.n > 0) rows += f2b_pack_item_rows(&item, &one);
    item = item_of(sample->conversation, 0, false, 0);
    if (sample->conversation.n > 0) rows += f2b_pack_item_rows(&item, &two);
    return rows;
}

static f2b_status plan(stepper *s)
{
    s->first = f2b_calloc((size_t)s->in->n + 1, sizeof *s->first, F2B_TAG_OTHER);
    if (s->first == NULL) return F2B_ERR_MEMORY;
    int64_t rows = 0;
    for (int64_t i = 0; i < s->in->n; i++) {
        int64_t j = s->first[s->chunks];        /* is there one in this chunk that it shares with? */
        while (j < i && s->owner[j] != s->owner[i]) j++;
        int64_t more = sample_rows(s, &s->in->samples[i], j < i);
        if (i > 0 && rows + more > s->in->micro_batch_tokens) {
            s->first[++s->chunks] = i;
            rows = 0;
            more = sample_rows(s, &s->in->samples[i], false);
        }
        rows += more;
        if (rows > s->result->most_rows) s->result->most_rows = rows;
    }
    s->first[++s->chunks] = s->in->n;
    return F2B_OK;
}

static f2b_status check(const stepper *s)
{
    const f2b_step_input *in = s->in;
    s->result->labelled = 0;
    for (int64_t i = 0; i < in->n; i++) {
        const f2b_step_sample *sample = &in->samples[i];
        const f2b_pack_item item = item_of(sample->conversation, 0, false, 0);
        if (in->autoregressive) s->result->labelled += f2b_pack_item_labels(&item);
        if (in->contrastive && (!sample->has_image || sample->image_prompt.n == 0 ||
                                sample->caption_prompt.n == 0))
            return f2b_fail(F2B_ERR_DATA, "sample %lld of a contrastive batch lacks its image or "
                            "its caption", (long long)i);
    }
    if (in->n == 0 || (in->autoregressive && s->result->labelled == 0))
        return f2b_fail(F2B_ERR_DATA, "a batch has no %s", in->n == 0 ? "samples" : "labelled token");
    return F2B_OK;
}

/* ---- Where it is ---- */

static void tell(void *user, int64_t done, int64_t of)
{
    stepper *s = user;
    s->at.done = done, s->at.of = of;
    s->in->progress(s->in->context, &s->at);
}

static f2b_status backward(stepper *s)
{
    s->at.pass = "backward";
    return f2b_tape_backward(s->tape);
}

/* ---- A chunk's passes ---- */

static void chunk_free(chunk *c)
{
    f2b_free(c->prompts);
    f2b_free(c->answers);
    f2b_free(c->image_keys);
    f2b_free(c->shown);
    f2b_free(c->image);
}

/* Which sequences the chunk has: images in order, captions after them. */
static f2b_status chunk_sequences(const stepper *s, chunk *c, bool answers)
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
            c->answers[c->n_answers++] = item_of(sample->conversation, image, false,
                                                 f2b_dropout_image_key(i));
        if (!sample->has_image || known >= 0) continue;
        const uint64_t key = f2b_dropout_image_key(s->owner[i]);
        if (s->model->method.forward != F2B_FORWARD_BASE)
            c->prompts[c->n_prompts++] = item_of(sample->image_prompt, image, summary, key);
        c->image_keys[c->images] = key;
        c->shown[c->images++] = i;
    }
    for (int64_t i = c->first; s->in->contrastive && i < c->first + c->n; i++)
        c->prompts[c->n_prompts++] = item_of(s->in->samples[i].caption_prompt, 0, summary,
                                             f2b_dropout_caption_key(i));
    return F2B_OK;
}

static f2b_status chunk_images(stepper *s, chunk *c, f2b_tensor **rows)
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
static f2b_tensor *embeddings_of_samples(f2b_tape *tape, const chunk *c, f2b_tensor *e)
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

static void count_rows(stepper *s, chunk *c, const f2b_pack *pack)
{
    s->result->tokens += pack->sequence_rows;
    c->computed += pack->rows;
    if (c->computed > s->result->most_computed) s->result->most_computed = c->computed;
}

/* Forward of a chunk: embeddings where the contrastive loss applies, the summed loss of pass 2 where
 * `answers` asks for it. */
static f2b_status chunk_forward(stepper *s, chunk *c, bool answers)
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

/* ---- The contrastive loss ---- */

static f2b_status contrastive(stepper *s, f2b_tensor *ev, f2b_tensor *et)
{
    f2b_tensor *loss = f2b_contrastive(s->tape, ev, et, s->model->log_temperature,
                                       s->model->method.temperature);
    if (loss == NULL) return f2b_last_status();
    if (!s->rehearse) F2B_TRY(f2b_readings_add(s->in->readings, loss, &s->result->numbers.disc));
    return s->train ? f2b_tape_seed(s->tape, loss, 1.0) : F2B_OK;
}

/* Rows [first, first + n) of x. */
static f2b_tensor *slice(f2b_tape *tape, f2b_tensor *x, int64_t first, int64_t n)
{
    int32_t *row = f2b_calloc((size_t)n, sizeof *row, F2B_TAG_DATA);
    if (row == NULL) return NULL;
    for (int64_t i = 0; i < n; i++) row[i] = (int32_t)(first + i);
    f2b_tensor *index = f2b_tape_table(tape, F2B_I32, 1, &n, row);
    f2b_free(row);
    return index != NULL ? f2b_rows_gather(tape, x, index) : NULL;
}

static size_t row_bytes(const f2b_tensor *x) { return (size_t)x->shape[1] * f2b_dtype_size(x->dtype); }

/* Between a chunk's pairs, [2 n, d], and the whole batch's sides ev and et, [., d] each; all on the
 * model's device. */
static f2b_status copy_pairs(const stepper *s, const chunk *c, char *pairs, void *ev, void *et, bool out)
{
    const size_t row = row_bytes(c->embeddings), bytes = (size_t)c->n * row;
    void *const sides[] = { ev, et };
    const f2b_device device = s->model->device;
    for (int i = 0; i < 2; i++) {
        char *side = (char *)sides[i] + (size_t)c->first * row, *pair = pairs + (size_t)i * bytes;
        F2B_TRY(f2b_copy(out ? side : pair, device, out ? pair : side, device, bytes));
    }
    return F2B_OK;
}

/* GradCache, first phase: embeddings of all chunks without a graph, the loss over the whole batch,
 * and its gradient at the embeddings. */
static f2b_status cache_embeddings(stepper *s)
{
    const f2b_dtype type = s->model->compute == F2B_F64 ? F2B_F64 : F2B_F32;
    const int64_t shape[] = { s->in->n, s->model->config.text.hidden };
    f2b_tensor **const sides[] = { &s->ev, &s->et };
    for (int i = 0; i < 2; i++)
        *sides[i] = (s->rehearse ? f2b_tensor_counted : f2b_tensor_new)(s->model->device, type, 2, shape,
                                                                        F2B_TAG_ACTIVATIONS);
    if (s->ev == NULL || s->et == NULL) return F2B_ERR_MEMORY;
    s->ev->requires_grad = s->et->requires_grad = s->train;
    for (int64_t i = 0; i < s->chunks; i++) {
        chunk c = { .first = s->first[i], .n = s->first[i + 1] - s->first[i] };
        f2b_tape_set_recording(s->tape, false);
        f2b_status status = chunk_forward(s, &c, false);
        s->at.micro_batch++;
        if (status == F2B_OK && !s->rehearse)
            status = copy_pairs(s, &c, c.embeddings->data, s->ev->data, s->et->data, true);
        f2b_tape_reset(s->tape);
        f2b_tape_set_recording(s->tape, s->train);
        chunk_free(&c);
        F2B_TRY(status);
        if (s->in->stop != NULL && s->in->stop(s->in->context))
            return f2b_fail(F2B_ERR_STOPPED, "stopped between micro-batches");
    }
    F2B_TRY(contrastive(s, s->ev, s->et));
    const f2b_status status = s->train ? backward(s) : F2B_OK;
    f2b_tape_reset(s->tape);
    return status;
}

/* Second phase: the gradient of a chunk's embeddings is the cached one. */
static f2b_status seed_from_cache(stepper *s, chunk *c)
{
    const size_t bytes = 2 * (size_t)c->n * row_bytes(c->embeddings);
    if (s->rehearse) return f2b_tape_seed_device(s->tape, c->embeddings, NULL);
    char *grad = f2b_alloc(s->model->device, bytes, F2B_TAG_SCRATCH);
    if (grad == NULL) return F2B_ERR_MEMORY;
    f2b_status status = copy_pairs(s, c, grad, s->ev->grad, s->et->grad, false);
    if (status == F2B_OK) status = f2b_tape_seed_device(s->tape, c->embeddings, grad);
    f2b_free(grad);
    return status;
}

/* ---- The step ---- */

static f2b_status chunk_losses(stepper *s, chunk *c)
{
    F2B_TRY(chunk_forward(s, c, s->in->autoregressive));
    if (s->in->contrastive && s->ev == NULL) {
        f2b_tensor *ev = slice(s->tape, c->embeddings, 0, c->n);
        f2b_tensor *et = slice(s->tape, c->embeddings, c->n, c->n);
        if (ev == NULL || et == NULL) return f2b_last_status();
        F2B_TRY(contrastive(s, ev, et));
    } else if (s->in->contrastive && s->train) {
        F2B_TRY(seed_from_cache(s, c));
    }
    if (c->loss_ar != NULL) {
        int64_t number = 0;
        if (!s->rehearse) F2B_TRY(f2b_readings_add(s->in->readings, c->loss_ar, &number));
        if (s->result->numbers.n_ar++ == 0) s->result->numbers.ar = number;
        if (s->train) F2B_TRY(f2b_tape_seed(s->tape, c->loss_ar, 1.0 / (double)s->result->labelled));
    }
    return s->train ? backward(s) : F2B_OK;
}

static f2b_status run(stepper *s)
{
    F2B_TRY(check(s));
    F2B_TRY(find_owners(s));
    F2B_TRY(plan(s));
    const bool cached = s->in->contrastive && s->chunks > 1;
    s->result->micro_batches = s->chunks;
    s->at.micro_batches = cached ? 2 * s->chunks : s->chunks;
    if (cached) F2B_TRY(cache_embeddings(s));
    if (!s->train && s->ev != NULL && !s->in->autoregressive) return F2B_OK;
    s->result->tokens = 0;      /* GradCache's chunks come again: their rows count once */
    for (int64_t i = 0; i < s->chunks; i++) {
        if (s->in->stop != NULL && s->in->stop(s->in->context))
            return f2b_fail(F2B_ERR_STOPPED, "stopped between micro-batches");
        chunk c = { .first = s->first[i], .n = s->first[i + 1] - s->first[i] };
        const f2b_status status = chunk_losses(s, &c);
        f2b_tape_reset(s->tape);
        chunk_free(&c);
        F2B_TRY(status);
        s->at.micro_batch++;
    }
    return F2B_OK;
}

static f2b_status run_on_tape(f2b_model *model, const f2b_step_input *input, f2b_step_result *result,
                              step_mode mode)
{
    *result = (f2b_step_result){ .numbers = { -1, 0, -1 } };
    f2b_step_input in = *input;
    if (mode == EVALUATE) in.settings.dropout.p = 0;
    stepper s = { .model = model, .in = &in, .result = result, .train = mode != EVALUATE,
                  .rehearse = mode == REHEARSE, .tape = f2b_tape_new(model->device) };
    if (s.tape == NULL) return F2B_ERR_MEMORY;
    if (in.progress != NULL) {
        in.settings.watch = (f2b_layer_watch){ tell, &s };
        f2b_tape_watch_backward(s.tape, tell, &s);
    }
    if (s.rehearse) f2b_tape_rehearse(s.tape, f2b_op_space);
    f2b_tape_set_recording(s.tape, s.train);
    const f2b_status status = run(&s);
    f2b_tape_free(s.tape);
    f2b_tensor_free(s.ev);
    f2b_tensor_free(s.et);
    f2b_free(s.first);
    f2b_free(s.owner);
    return status;
}

void f2b_step_settle(f2b_step_result *result, const f2b_readings *readings)
{
    result->loss_ar = result->loss_disc = 0;
    for (int64_t i = 0; i < result->numbers.n_ar; i++)
        result->loss_ar += f2b_readings_at(readings, result->numbers.ar + i) / (double)result->labelled;
    if (result->numbers.disc >= 0)
        result->loss_disc = f2b_readings_at(readings, result->numbers.disc);
}

/* With readings of its own where the caller has none. */
static f2b_status run_and_read(f2b_model *model, const f2b_step_input *input, f2b_step_result *result,
                               step_mode mode)
{
    if (input->readings != NULL) return run_on_tape(model, input, result, mode);
    f2b_step_input in = *input;
    in.readings = f2b_readings_new(model->device);
    if (in.readings == NULL) return F2B_ERR_MEMORY;
    f2b_status status = run_on_tape(model, &in, result, mode);
    if (status == F2B_OK) status = f2b_readings_fetch(in.readings);
    if (status == F2B_OK) f2b_step_settle(result, in.readings);
    f2b_readings_free(in.readings);
    return status;
}

f2b_status f2b_step_run(f2b_model *model, const f2b_step_input *input, f2b_step_result *result)
{
    return run_and_read(model, input, result, RUN);
}

f2b_status f2b_step_evaluate(f2b_model *model, const f2b_step_input *input, f2b_step_result *result)
{
    return run_and_read(model, input, result, EVALUATE);
}

/* Gradients that parameters get on the way are only counted: they go before anybody reads them. */
f2b_status f2b_step_rehearse(f2b_model *model, const f2b_step_input *input, f2b_step_result *result)
{
    const f2b_parameters *p = &model->parameters;
    bool *had = f2b_calloc((size_t)p->n + 1, sizeof *had, F2B_TAG_OTHER);
    if (had == NULL) return F2B_ERR_MEMORY;
    for (int64_t i = 0; i < p->n; i++) had[i] = p->items[i].tensor->grad != NULL;
    const f2b_status status = run_on_tape(model, input, result, REHEARSE);
    for (int64_t i = 0; i < p->n; i++) {
        if (had[i]) continue;
        f2b_free(p->items[i].tensor->grad);
        p->items[i].tensor->grad = NULL;
    }
    f2b_free(had);
    return status;
}
