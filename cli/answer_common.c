/* Opening, images, watching and printing of f2b-answer. See answer_tasks.h. */
#include <stdio.h>
#include <string.h>

#include "autograd/device/device.h"
#include "cli/answer_line.h"
#include "cli/answer_tasks.h"
#include "infer/store_model.h"

/* ---- Opening ---- */

static void note(void *user, const char *text)
{
    f2b_answer_settings *s = user;
    f2b_progress_note(&s->progress, "%s", text);
}

f2b_status f2b_answer_open(f2b_answer_settings *s)
{
    const double start = f2b_seconds();
    s->model = f2b_model_choice_open(&s->choice, s->arguments.device, note, s);
    if (s->model == NULL) return f2b_last_status();
    const bool base = s->model->model->method.forward == F2B_FORWARD_BASE;
    if (s->tokens == NULL) s->tokens = base ? "full" : "compressed";
    const f2b_infer in = { s->model->model, s->model->tokenizer, &s->model->image };
    F2B_TRY(f2b_answerer_init(&s->answerer, &in, f2b_vqa_tokens_of(s->tokens), NULL));
    s->store = s->store_path != NULL ? f2b_store_open_for(s->store_path, s->model) : NULL;
    s->costs.model = f2b_seconds() - start;
    return s->store_path == NULL || s->store != NULL ? F2B_OK : f2b_last_status();
}

/* ---- Images ---- */

static f2b_status read_pixels(const f2b_answer_settings *s, const char *name, uint8_t **pixels)
{
    const size_t side = (size_t)s->model->image.size;
    f2b_image image = { 0 };
    F2B_TRY(f2b_image_open(name, &image));
    *pixels = f2b_alloc_host(side * side * 3, F2B_TAG_IMAGES);
    const f2b_status status = *pixels != NULL
                                  ? f2b_infer_prepare(&s->answerer.in, &image, *pixels)
                                  : f2b_last_status();
    f2b_image_free(&image);
    return status;
}

static f2b_status from_files(f2b_answer_settings *s, const char *const *names, int64_t n,
                             f2b_tensor **rows, int64_t *failed)
{
    if (!s->model->model->config.has_vision)
        return f2b_fail(F2B_ERR_CONFIG,
                        "%s has no vision tower, so it reads no image; --vision-path DIR names one",
                        s->model->path);
    uint8_t **pixels = f2b_calloc((size_t)n, sizeof *pixels, F2B_TAG_IMAGES);
    f2b_status status = pixels != NULL ? F2B_OK : f2b_last_status();
    for (int64_t i = 0; status == F2B_OK && i < n; i++) {
        *failed = i;
        status = read_pixels(s, names[i], &pixels[i]);
    }
    if (status == F2B_OK)
        status = f2b_answerer_images(&s->answerer, (const uint8_t *const *)pixels, n, rows);
    for (int64_t i = 0; pixels != NULL && i < n; i++) f2b_free(pixels[i]);
    f2b_free(pixels);
    return status;
}

static f2b_status from_store(f2b_answer_settings *s, const char *const *ids, int64_t n,
                             f2b_tensor **rows, int64_t *failed)
{
    const f2b_store_identity *of = f2b_store_get_identity(s->store);
    const f2b_device device = s->model->model->device;
    const int64_t shape[] = { n * of->tokens, of->width }, each = of->tokens * of->width;
    f2b_tensor *all = f2b_tensor_new(device, F2B_F32, 2, shape, F2B_TAG_ACTIVATIONS);
    float *host = f2b_calloc((size_t)n, (size_t)each * sizeof *host, F2B_TAG_FILES);
    f2b_status status = all != NULL && host != NULL ? F2B_OK : f2b_last_status();
    for (int64_t i = 0; status == F2B_OK && i < n; i++) {
        int64_t row;
        *failed = i;
        status = f2b_store_find(s->store, ids[i], &row);
        if (status == F2B_OK) status = f2b_store_read(s->store, row, host + i * each);
    }
    if (status == F2B_OK)
        status = f2b_copy(all->data, device, host, F2B_HOST, f2b_tensor_bytes(all));
    f2b_free(host);
    if (status == F2B_OK) *rows = all;
    else f2b_tensor_free(all);
    return status;
}

f2b_status f2b_answer_images(f2b_answer_settings *s, const char *const *names, int64_t n,
                             f2b_tensor **rows, int64_t *failed)
{
    *rows = NULL, *failed = 0;
    if (n == 0 || s->answerer.tokens == F2B_VQA_NONE) return F2B_OK;
    const double start = f2b_seconds();
    const f2b_status status = s->store != NULL ? from_store(s, names, n, rows, failed)
                                               : from_files(s, names, n, rows, failed);
    s->costs.image += f2b_seconds() - start;
    return status;
}

/* ---- Watching ---- */

f2b_answer_watch f2b_answer_watch_start(f2b_answer_settings *s, bool *ended, bool stream)
{
    return (f2b_answer_watch){
        .settings = s, .ended = ended, .stream = stream, .started = f2b_seconds()
    };
}

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* Write what is there up to the last character that is not white space: the answer comes out
 * stripped, as its text will be. Characters are whole, the decoder holds incomplete ones back. */
static f2b_status show(f2b_answer_watch *w)
{
    size_t end = w->text.n;
    while (end > w->shown && is_space(w->text.text[end - 1])) end--;
    if (end == w->shown) return F2B_OK;
    size_t from = w->shown;
    while (w->shown == 0 && is_space(w->text.text[from])) from++;
    w->shown = end;
    if (fwrite(w->text.text + from, 1, end - from, stdout) < end - from || fflush(stdout) != 0)
        return f2b_fail_errno(F2B_ERR_IO, "cannot write the answer to standard output");
    return F2B_OK;
}

static f2b_status on_token(void *context, int64_t prompt, int32_t id)
{
    f2b_answer_watch *w = context;
    const f2b_tokenizer *tokenizer = w->settings->model->tokenizer;
    if (w->first == 0) w->first = f2b_seconds();
    w->tokens++;
    w->ended[prompt] = id == f2b_tokenizer_eos(tokenizer);
    if (!w->stream || !f2b_answer_has_text(tokenizer, id)) return F2B_OK;
    F2B_TRY(f2b_tokenizer_decode_next(tokenizer, &w->decoder, id, &w->text));
    return show(w);
}

f2b_status f2b_answer_watch_end(f2b_answer_watch *w)
{
    const double now = f2b_seconds();
    f2b_answer_costs *costs = &w->settings->costs;
    if (w->first == 0) w->first = now;
    costs->prompt += w->first - w->started;
    costs->answer += now - w->first;
    costs->tokens += w->tokens;
    f2b_status status = F2B_OK;
    if (w->stream) {
        status = f2b_tokenizer_decode_end(&w->decoder, &w->text);
        if (status == F2B_OK) status = show(w);
        if (putchar('\n') == EOF || fflush(stdout) != 0)
            status = f2b_fail_errno(F2B_ERR_IO, "cannot write the answer to standard output");
    }
    f2b_text_free(&w->text);
    return status;
}

f2b_generate_options f2b_answer_options(f2b_answer_watch *watch)
{
    const f2b_answer_settings *s = watch->settings;
    return (f2b_generate_options){
        .stage = s->answerer.stage,
        .max_new_tokens = s->max_new_tokens,
        .eos_id = f2b_tokenizer_eos(s->model->tokenizer),
        .sampling = { s->temperature, s->top_p, (uint64_t)s->seed },
        .token = on_token,
        .context = watch,
    };
}

/* ---- Printing ---- */

static json_t *ids_json(const f2b_ids *ids)
{
    json_t *array = json_array();
    for (int64_t i = 0; i < ids->n; i++) json_array_append_new(array, json_integer(ids->ids[i]));
    return array;
}

f2b_status f2b_answer_print_json(const f2b_answer_settings *s, const f2b_answered *a)
{
    json_t *metadata = json_pack(
        "{s:s?, s:s, s:I, s:I, s:b, s:o}", "image", a->image, "tokens", s->tokens, "image_rows",
        (json_int_t)a->image_rows, "prompt_rows", (json_int_t)a->prompt_rows, "ended", a->ended,
        "ids", ids_json(a->ids));
    if (a->costs != NULL)
        json_object_set_new(metadata, "seconds",
                            json_pack("{s:f, s:f, s:f, s:f}", "model", a->costs->model, "image",
                                      a->costs->image, "prompt", a->costs->prompt, "answer",
                                      a->costs->answer));
    F2B_TRY(f2b_answer_line_write(stdout, "standard output", json_incref(a->question_id),
                                  a->question, a->text, s->model->path, metadata));
    if (fflush(stdout) != 0) return f2b_fail_errno(F2B_ERR_IO, "writing standard output");
    return F2B_OK;
}

void f2b_answer_tell_costs(f2b_answer_settings *s, const f2b_answer_costs *c)
{
    char many[48] = "";
    if (c->questions > 1) snprintf(many, sizeof many, "%lld answers | ", (long long)c->questions);
    f2b_progress_note(&s->progress,
                      "%sread %lld visual and %lld other tokens | model %.3f s | image %.3f s | "
                      "prompt %.3f s | %lld tokens in %.3f s (%.1f/s)",
                      many, (long long)c->visual_rows, (long long)c->other_rows, c->model, c->image,
                      c->prompt, (long long)c->tokens, c->prompt + c->answer,
                      (double)c->tokens / (c->prompt + c->answer));
}
