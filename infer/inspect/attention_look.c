/* Attention in both passes over one image: f2b_attention_look. */
#include <string.h>

#include "autograd/core/alloc.h"
#include "data/prompt/prompt.h"
#include "infer/generate.h"
#include "infer/inspect/attention_map.h"
#include "nn/passes.h"

/* The image's columns of each row, [rows, columns]: from the first image row on, a CLS row left
 * out. A leaf array, f2b_free; NULL when out of memory. */
static float *image_columns(const f2b_attention_rows *rows, const f2b_pack_item *item, int64_t skip,
                            int64_t columns)
{
    int64_t first = 0;
    while (item->ids[first] != F2B_ROW_IMAGE) first++;
    float *out = f2b_calloc((size_t)(rows->rows * columns), sizeof *out, F2B_TAG_OTHER);
    for (int64_t t = 0; out != NULL && t < rows->rows; t++)
        memcpy(out + t * columns, rows->p + t * rows->keys + first + skip,
               (size_t)columns * sizeof *out);
    return out;
}

/* ---- Pass 1 ---- */

static f2b_status look_at_image(const f2b_infer *in, f2b_tensor *patches, f2b_attention_map *map)
{
    const f2b_model *m = in->model;
    const bool plain = m->method.template_ == F2B_SUMMARY_PLAIN;
    f2b_sequence prompt = { 0 };
    F2B_TRY(f2b_prompt_image(in->tokenizer, plain ? F2B_TEMPLATE_PLAIN : F2B_TEMPLATE_VICUNA_V1,
                             m->method.prompt, &prompt));
    const f2b_pack_item item = { .ids = prompt.ids, .n = prompt.n, .summary = true };
    const f2b_pack_options options = f2b_pass_compress_options(m);
    f2b_attention_rows rows = { 0 };
    f2b_status status = f2b_attention_probe(m, F2B_STAGE_COMPRESSION, &item, &options, patches,
                                            map->layer, &rows);
    if (status == F2B_OK) {
        map->K = rows.rows;
        map->summary = image_columns(&rows, &item, m->config.keep_cls, map->side * map->side);
        if (map->summary == NULL) status = f2b_last_status();
    }
    f2b_free(rows.p);
    f2b_free(prompt.ids);
    f2b_free(prompt.labels);
    return status;
}

/* ---- Pass 2 ---- */

/* Prompt and answer as one sequence, whose wanted rows are those that predict the answer. */
static f2b_status look_back(const f2b_infer *in, const f2b_sequence *prompt, const f2b_ids *answer,
                            f2b_tensor *images, f2b_attention_map *map)
{
    const f2b_model *m = in->model;
    const int64_t n = prompt->n + answer->n;
    int32_t *ids = f2b_calloc((size_t)(2 * n), sizeof *ids, F2B_TAG_OTHER);
    if (ids == NULL) return f2b_last_status();
    int32_t *labels = ids + n;
    memcpy(ids, prompt->ids, (size_t)prompt->n * sizeof *ids);
    memcpy(ids + prompt->n, answer->ids, (size_t)answer->n * sizeof *ids);
    for (int64_t i = 0; i < n; i++) labels[i] = i < prompt->n ? F2B_ROW_NO_LABEL : ids[i];
    const f2b_pack_item item = { .ids = ids, .labels = labels, .n = n };
    const f2b_pack_options options = f2b_pass_generate_options(m);
    const bool base = map->K == 0;
    f2b_attention_rows rows = { 0 };
    f2b_status status = f2b_attention_probe(m, F2B_STAGE_GENERATION, &item, &options, images,
                                            map->layer, &rows);
    if (status == F2B_OK) {
        map->n_answer = rows.rows;
        map->columns = base ? map->side * map->side : map->K;
        map->answer = image_columns(&rows, &item, base && m->config.keep_cls, map->columns);
        if (map->answer == NULL) status = f2b_last_status();
    }
    f2b_free(rows.p);
    f2b_free(ids);
    return status;
}

/* A piece as it reads: U+2581 is a space. f2b_free. */
static char *readable(const char *piece)
{
    char *text = f2b_strdup(piece, F2B_TAG_OTHER);
    char *to = text;
    for (const char *p = piece; text != NULL && *p != '\0';) {
        const bool space = strncmp(p, "\xe2\x96\x81", 3) == 0;
        *to++ = space ? ' ' : *p;
        p += space ? 3 : 1;
    }
    if (text != NULL) *to = '\0';
    return text;
}

/* What each id reads as; ids beyond the tokenizer's pieces have no text. */
static f2b_status keep_texts(const f2b_infer *in, f2b_ids *answer, f2b_attention_map *map)
{
    map->pieces = f2b_calloc((size_t)answer->n, sizeof *map->pieces, F2B_TAG_OTHER);
    if (map->pieces == NULL) return f2b_last_status();
    int64_t kept = 0;
    for (int64_t i = 0; i < answer->n; i++) {
        const bool known = answer->ids[i] < f2b_tokenizer_pieces(in->tokenizer);
        map->pieces[i] =
            readable(known ? f2b_tokenizer_piece(in->tokenizer, answer->ids[i]) : "");
        if (map->pieces[i] == NULL) return f2b_last_status();
        if (known) answer->ids[kept++] = answer->ids[i];
    }
    map->text = f2b_tokenizer_decode(in->tokenizer, answer->ids, kept);
    return map->text != NULL ? F2B_OK : f2b_last_status();
}

static f2b_status answer_question(const f2b_infer *in, const f2b_attention_options *o,
                                  const f2b_sequence *prompt, f2b_tensor *images,
                                  f2b_attention_map *map)
{
    const f2b_pack_item item = { .ids = prompt->ids, .n = prompt->n };
    const f2b_generate_options how = { .stage = F2B_STAGE_GENERATION,
                                       .max_new_tokens = o->max_new_tokens,
                                       .eos_id = f2b_tokenizer_eos(in->tokenizer) };
    f2b_ids ids = { 0 };
    f2b_status status = f2b_generate(in->model, &item, 1, images, &how, &ids);
    if (status == F2B_OK && ids.n > 0) status = look_back(in, prompt, &ids, images, map);
    if (status == F2B_OK) status = keep_texts(in, &ids, map);
    f2b_ids_free(&ids);
    return status;
}

static f2b_status ask(const f2b_infer *in, const f2b_attention_options *o, f2b_tensor *images,
                      f2b_attention_map *map)
{
    char *value = f2b_sprintf(F2B_TAG_OTHER, F2B_IMAGE_MARK "\n%s", o->question);
    map->question = f2b_strdup(o->question, F2B_TAG_OTHER);
    if (value == NULL || map->question == NULL) {
        f2b_free(value);
        return f2b_last_status();
    }
    f2b_sequence prompt = { 0 };
    const f2b_turn turn = { "human", value };
    f2b_status status = f2b_prompt_open(in->tokenizer, &turn, 1, true, &prompt, NULL, NULL);
    if (status == F2B_OK) status = answer_question(in, o, &prompt, images, map);
    f2b_free(prompt.ids);
    f2b_free(prompt.labels);
    f2b_free(value);
    return status;
}

/* ---- Both ---- */

static f2b_status look(const f2b_infer *in, const f2b_image *image,
                       const f2b_attention_options *o, f2b_attention_map *map)
{
    const f2b_model *m = in->model;
    map->pixels = f2b_alloc_host((size_t)map->size * (size_t)map->size * 3, F2B_TAG_IMAGES);
    if (map->pixels == NULL) return f2b_last_status();
    F2B_TRY(f2b_infer_prepare(in, image, map->pixels));
    const uint8_t *const pixels[] = { map->pixels };
    f2b_tensor *patches = f2b_infer_image_rows(m, in->image, pixels, 1);
    if (patches == NULL) return f2b_last_status();
    const bool base = m->method.forward == F2B_FORWARD_BASE;
    f2b_status status = base ? F2B_OK : look_at_image(in, patches, map);
    f2b_compressed compressed = { 0 };
    if (status == F2B_OK && !base && o->question != NULL)
        status = f2b_compress_images(in, pixels, 1, false, &compressed);
    if (status == F2B_OK && o->question != NULL)
        status = ask(in, o, base ? patches : compressed.tokens, map);
    f2b_compressed_clear(&compressed);
    f2b_tensor_free(patches);
    return status;
}

f2b_status f2b_attention_look(const f2b_infer *in, const f2b_image *image,
                              const f2b_attention_options *o, f2b_attention_map *map)
{
    const f2b_model *m = in->model;
    *map = (f2b_attention_map){ 0 };
    if (m->method.forward == F2B_FORWARD_SINGLE)
        return f2b_fail(F2B_ERR_CONFIG, "method.forward single: the summary tokens look at the "
                                        "image in the vision tower, whose attention is not drawn");
    if (m->method.forward == F2B_FORWARD_BASE && o->question == NULL)
        return f2b_fail(F2B_ERR_USAGE, "a base model has no summary tokens: give --question, and "
                                       "what its answer looks at is drawn");
    if (m->clip == NULL) return f2b_fail(F2B_ERR_CONFIG, "the model has no vision tower");
    map->layers = m->config.text.layers;
    map->layer = o->layer < 0 ? map->layers - 1 : o->layer;
    map->size = in->image->size;
    map->side = m->config.vision.image_size / m->config.vision.patch;
    const f2b_status status = look(in, image, o, map);
    if (status != F2B_OK) f2b_attention_map_clear(map);
    return status;
}

void f2b_attention_map_clear(f2b_attention_map *map)
{
    for (int64_t i = 0; map->pieces != NULL && i < map->n_answer; i++) f2b_free(map->pieces[i]);
    f2b_free(map->pieces);
    f2b_free(map->pixels);
    f2b_free(map->summary);
    f2b_free(map->answer);
    f2b_free(map->question);
    f2b_free(map->text);
    *map = (f2b_attention_map){ 0 };
}
