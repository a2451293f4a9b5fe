/* See step.h: the losses over a batch's chunks, and whole steps. */
#include "nn/step_internal.h"

#include "autograd/device/device.h"
#include "autograd/ops/contrastive/contrastive.h"
#include "autograd/ops/rows/rows.h"
#include "autograd/ops/space.h"

typedef enum step_mode { RUN, EVALUATE, REHEARSE } step_mode;

/* ---- Where it is ---- */

static void tell(void *user, int64_t done, int64_t of)
{
    f2bi_stepper *s = user;
    s->at.done = done, s->at.of = of;
    s->in->progress(s->in->context, &s->at);
}

static f2b_status backward(f2bi_stepper *s)
{
    s->at.pass = "backward";
    return f2b_tape_backward(s->tape);
}

/* ---- The contrastive loss ---- */

static f2b_status contrastive(f2bi_stepper *s, f2b_tensor *ev, f2b_tensor *et)
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
static f2b_status copy_pairs(const f2bi_stepper *s, const f2bi_chunk *c, char *pairs, void *ev, void *et, bool out)
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
static f2b_status cache_embeddings(f2bi_stepper *s)
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
        f2bi_chunk c = { .first = s->first[i], .n = s->first[i + 1] - s->first[i] };
        f2b_tape_set_recording(s->tape, false);
        f2b_status status = f2bi_step_chunk(s, &c, false);
        s->at.micro_batch++;
        if (status == F2B_OK && !s->rehearse)
            status = copy_pairs(s, &c, c.embeddings->data, s->ev->data, s->et->data, true);
        f2b_tape_reset(s->tape);
        f2b_tape_set_recording(s->tape, s->train);
        f2bi_step_chunk_free(&c);
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
static f2b_status seed_from_cache(f2bi_stepper *s, f2bi_chunk *c)
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

static f2b_status chunk_losses(f2bi_stepper *s, f2bi_chunk *c)
{
    F2B_TRY(f2bi_step_chunk(s, c, s->in->autoregressive));
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

static f2b_status run(f2bi_stepper *s)
{
    F2B_TRY(f2bi_step_plan(s));
    const bool cached = s->in->contrastive && s->chunks > 1;
    s->result->micro_batches = s->chunks;
    s->at.micro_batches = cached ? 2 * s->chunks : s->chunks;
    if (cached) F2B_TRY(cache_embeddings(s));
    if (!s->train && s->ev != NULL && !s->in->autoregressive) return F2B_OK;
    s->result->tokens = 0;      /* GradCache's chunks come again: their rows count once */
    for (int64_t i = 0; i < s->chunks; i++) {
        if (s->in->stop != NULL && s->in->stop(s->in->context))
            return f2b_fail(F2B_ERR_STOPPED, "stopped between micro-batches");
        f2bi_chunk c = { .first = s->first[i], .n = s->first[i + 1] - s->first[i] };
        const f2b_status status = chunk_losses(s, &c);
        f2b_tape_reset(s->tape);
        f2bi_step_chunk_free(&c);
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
    f2bi_stepper s = { .model = model, .in = &in, .result = result, .train = mode != EVALUATE,
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
