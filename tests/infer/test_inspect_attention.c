/* Attention as the probe gives it against a language model written out in f64; the picture. */
#include "tests/infer/svg_check.h"

#include <math.h>

#include "data/prompt/prompt.h"
#include "data/toy/toy.h"
#include "infer/inspect/attention_map.h"
#include "infer/trained_model.h"
#include "nn/passes.h"
#include "tests/infer/make_run.h"
#include "tests/infer/tiny_models.h"

/* ---- A Llama in f64, one sequence, plain loops ---- */

enum { MOST = 48, WIDE = 48 };

typedef struct rows {
    double x[MOST][WIDE];
} rows;

static double at(const f2b_tensor *t, int64_t i) { return (double)((const float *)t->data)[i]; }

static void project(const f2b_model *m, const f2b_adapted_linear *l, f2b_stage stage,
                    const double *x, double *y)
{
    const f2b_tensor *a = l->lora[stage].a, *b = l->lora[stage].b;
    const int64_t out = l->weight->shape[0], in = l->weight->shape[1];
    for (int64_t o = 0; o < out; o++) {
        y[o] = 0;
        for (int64_t i = 0; i < in; i++) y[o] += at(l->weight, o * in + i) * x[i];
        for (int64_t r = 0; a != NULL && r < a->shape[0]; r++) {
            double inner = 0;
            for (int64_t i = 0; i < in; i++) inner += at(a, r * in + i) * x[i];
            y[o] += f2b_model_lora_scale(m) * at(b, o * a->shape[0] + r) * inner;
        }
    }
}

static void norm(const f2b_model *m, const f2b_tensor *w, const double *x, double *y)
{
    const int64_t d = m->config.text.hidden;
    double sum = 0;
    for (int64_t i = 0; i < d; i++) sum += x[i] * x[i];
    const double scale = 1 / sqrt(sum / (double)d + m->config.text.rms_eps);
    for (int64_t i = 0; i < d; i++) y[i] = at(w, i) * x[i] * scale;
}

static void rotate(const f2b_model *m, double *x, int64_t heads, int64_t position)
{
    const int64_t hd = m->config.text.head_dim, half = hd / 2;
    for (int64_t h = 0; h < heads; h++)
        for (int64_t i = 0; i < half; i++) {
            const double a = (double)position *
                             pow(m->config.text.rope_theta, -2.0 * (double)i / (double)hd);
            double *p = x + h * hd + i, lo = p[0], hi = p[half];
            p[0] = lo * cos(a) - hi * sin(a);
            p[half] = hi * cos(a) + lo * sin(a);
        }
}

/* One layer in place; mean [n][n] gets its attention, mean over heads. */
static void layer(const f2b_model *m, f2b_stage stage, int64_t index, rows *x, int64_t n, bool both,
                  double mean[MOST][MOST])
{
    static rows q, k, v;
    const f2b_text_config *c = &m->config.text;
    const f2b_llama_layer *l = &m->llama->layers[index];
    double h[WIDE], y[WIDE], gate[WIDE], up[WIDE];
    for (int64_t t = 0; t < n; t++) {
        norm(m, l->input_norm, x->x[t], h);
        project(m, &l->q, stage, h, q.x[t]);
        project(m, &l->k, stage, h, k.x[t]);
        project(m, &l->v, stage, h, v.x[t]);
        rotate(m, q.x[t], c->heads, t);
        rotate(m, k.x[t], c->kv_heads, t);
    }
    memset(mean, 0, sizeof(double[MOST][MOST]));
    for (int64_t t = 0; t < n; t++) {
        double o[WIDE] = { 0 };
        const int64_t seen = both ? n : t + 1;
        for (int64_t head = 0; head < c->heads; head++) {
            const int64_t g = head / (c->heads / c->kv_heads), hd = c->head_dim;
            double p[MOST], sum = 0;
            for (int64_t j = 0; j < seen; j++) {
                double s = 0;
                for (int64_t i = 0; i < hd; i++) s += q.x[t][head * hd + i] * k.x[j][g * hd + i];
                sum += p[j] = exp(s / sqrt((double)hd));
            }
            for (int64_t j = 0; j < seen; j++) {
                mean[t][j] += p[j] / sum / (double)c->heads;
                for (int64_t i = 0; i < hd; i++)
                    o[head * hd + i] += p[j] / sum * v.x[j][g * hd + i];
            }
        }
        project(m, &l->o, stage, o, y);
        for (int64_t i = 0; i < c->hidden; i++) x->x[t][i] += y[i];
    }
    for (int64_t t = 0; t < n; t++) {
        norm(m, l->post_norm, x->x[t], h);
        project(m, &l->gate, stage, h, gate);
        project(m, &l->up, stage, h, up);
        for (int64_t i = 0; i < c->intermediate; i++) gate[i] *= up[i] / (1 + exp(-gate[i]));
        project(m, &l->down, stage, gate, y);
        for (int64_t i = 0; i < c->hidden; i++) x->x[t][i] += y[i];
    }
}

/* The input rows of one item. */
static int64_t input(const f2b_model *m, const f2b_pack_item *item, int64_t image_rows,
                     const f2b_tensor *images, rows *x)
{
    const int64_t d = m->config.text.hidden;
    int64_t n = 0;
    for (int64_t i = 0; i < item->n; i++) {
        const bool image = item->ids[i] == F2B_ROW_IMAGE;
        for (int64_t r = 0; r < (image ? image_rows : 1); r++, n++)
            for (int64_t j = 0; j < d; j++)
                x->x[n][j] = image ? at(images, r * d + j)
                                   : at(m->llama->embed, item->ids[i] * d + j);
    }
    for (int64_t r = 0; item->summary && r < m->method.tokens; r++, n++)
        for (int64_t j = 0; j < d; j++) x->x[n][j] = at(m->summary_tokens, r * d + j);
    return n;
}

static void check_probe(const f2b_model *m, f2b_stage stage, const f2b_pack_item *item,
                        const f2b_pack_options *o, f2b_tensor *images, int64_t first_row)
{
    static rows x;
    static double mean[MOST][MOST];
    const int64_t n = input(m, item, o->image_rows, images, &x);
    for (int64_t l = 0; l < m->config.text.layers; l++) {
        f2b_attention_rows got = { 0 };
        layer(m, stage, l, &x, n, o->bidirectional, mean);
        assert_ok(f2b_attention_probe(m, stage, item, o, images, l, &got));
        assert_int_equal(got.keys, n);
        for (int64_t t = 0; t < got.rows; t++) {
            double sum = 0;
            for (int64_t j = 0; j < n; j++) {
                const double p = (double)got.p[t * n + j];
                assert_true(fabs(p - mean[first_row + t][j]) < 2e-5);
                sum += p;
            }
            assert_true(fabs(sum - 1) < 1e-5);
        }
        f2b_free(got.p);
    }
    f2b_attention_rows none = { 0 };
    assert_int_equal(f2b_attention_probe(m, stage, item, o, images, m->config.text.layers, &none),
                     F2B_ERR_USAGE);
    assert_int_equal(f2b_attention_probe(m, stage, item, o, images, -1, &none), F2B_ERR_USAGE);
}

static void test_probe(void **state)
{
    (void)state;
    f2b_model *m = tiny_model(F2B_FORWARD_DOUBLE, F2B_F32);
    f2b_tensor *patches = random_leaf(4, 24, 3), *tokens = random_leaf(3, 24, 4);
    const int32_t ids[] = { 1, 5, F2B_ROW_IMAGE, 9, 17 };
    const f2b_pack_item first = { .ids = ids, .n = 5, .summary = true };
    f2b_pack_options o = f2b_pass_compress_options(m);
    check_probe(m, F2B_STAGE_COMPRESSION, &first, &o, patches, 8);
    o.bidirectional = true;
    check_probe(m, F2B_STAGE_COMPRESSION, &first, &o, patches, 8);

    /* Rows that predict the last two ids. */
    const int32_t labels[] = { F2B_ROW_NO_LABEL, F2B_ROW_NO_LABEL, F2B_ROW_NO_LABEL, 9, 17 };
    const f2b_pack_item second = { .ids = ids, .labels = labels, .n = 5 };
    o = f2b_pass_generate_options(m);
    check_probe(m, F2B_STAGE_GENERATION, &second, &o, tokens, 4);
    f2b_tensor_free(patches);
    f2b_tensor_free(tokens);
    f2b_model_free(m);
}

/* ---- From a picture to a picture ---- */

static char base[96], picture[96];

static int make_base(void **state)
{
    if (make_temp_folder(state) != 0) return -1;
    f2b_toy_options o = f2b_toy_defaults();
    o.train = o.val = 2;
    o.image_size = 16;
    snprintf(base, sizeof base, "%s/model", temp_folder);
    snprintf(picture, sizeof picture, "%s/images/v000000.png", temp_folder);
    if (f2b_toy_write(temp_folder, &o, NULL, NULL) != F2B_OK) return -1;
    return make_weights(base, in_temp("model/model.safetensors")) == F2B_OK ? 0 : -1;
}

static f2b_status look_at(const char *run, const char *question, int64_t at_layer,
                          f2b_attention_map *map)
{
    const f2b_trained_model_options open = { .checkpoint = run, .model = base,
                                             .storage = F2B_STORAGE_OF_FILE };
    f2b_trained_model *m = f2b_trained_model_open(&open);
    if (m == NULL) fail_msg("%s", f2b_last_error());
    const f2b_infer in = { m->model, m->tokenizer, &m->image };
    const f2b_attention_options o = { .question = question, .layer = at_layer,
                                      .max_new_tokens = 5 };
    f2b_image image = { 0 };
    assert_ok(f2b_image_open(picture, &image));
    const f2b_status status = f2b_attention_look(&in, &image, &o, map);
    f2b_image_free(&image);
    f2b_trained_model_close(m);
    return status;
}

/* The map's columns are the patches: counted from the end of pass 1, where the K rows are. */
static void assert_columns(const char *run, const f2b_attention_map *map)
{
    const f2b_trained_model_options open = { .checkpoint = run, .storage = F2B_STORAGE_OF_FILE };
    f2b_trained_model *m = f2b_trained_model_open(&open);
    assert_non_null(m);
    const uint8_t *const pixels[] = { map->pixels };
    f2b_tensor *patches = f2b_infer_image_rows(m->model, &m->image, pixels, 1);
    f2b_sequence prompt = { 0 };
    assert_ok(f2b_prompt_image(m->tokenizer, F2B_TEMPLATE_VICUNA_V1, m->model->method.prompt,
                               &prompt));
    int64_t after = 0;
    while (prompt.ids[prompt.n - 1 - after] != F2B_ROW_IMAGE) after++;
    assert_true(after > 0 && after + 1 < prompt.n);
    const f2b_pack_item item = { .ids = prompt.ids, .n = prompt.n, .summary = true };
    const f2b_pack_options o = f2b_pass_compress_options(m->model);
    f2b_attention_rows seen = { 0 };
    assert_ok(f2b_attention_probe(m->model, F2B_STAGE_COMPRESSION, &item, &o, patches, map->layer,
                                  &seen));
    const int64_t P = map->side * map->side, first = seen.keys - map->K - after - P;
    for (int64_t t = 0; t < map->K; t++)
        assert_memory_equal(map->summary + t * P, seen.p + t * seen.keys + first,
                            (size_t)P * sizeof(float));
    f2b_free(seen.p);
    f2b_free(prompt.ids);
    f2b_free(prompt.labels);
    f2b_tensor_free(patches);
    f2b_trained_model_close(m);
}

static void assert_weights(const float *p, int64_t n, int64_t columns)
{
    for (int64_t t = 0; t < n; t++) {
        double sum = 0;
        for (int64_t j = 0; j < columns; j++) {
            assert_true(p[t * columns + j] >= 0);
            sum += (double)p[t * columns + j];
        }
        assert_true(sum > 0 && sum < 1.0001);
    }
}

static void test_double(void **state)
{
    (void)state;
    const f2b_method method = { .tokens = 5, .prompt = "Summarize.", .temperature = 0.02,
                                .lora = { .r = 2, .alpha = 4, .targets = 0x7f } };
    assert_ok(make_run(base, in_temp("run"), &method, 4, false, false));
    f2b_attention_map map;
    assert_ok(look_at(in_temp("run"), "What <b>?", -1, &map));
    assert_true(map.K == 5 && map.layer == map.layers - 1 && map.columns == 5);
    assert_true(map.n_answer >= 1 && map.n_answer <= 5);
    assert_weights(map.summary, map.K, map.side * map.side);
    assert_columns(in_temp("run"), &map);
    assert_weights(map.answer, map.n_answer, map.columns);
    assert_ok(f2b_attention_draw(&map, in_temp("map.svg")));
    char *svg = read_svg(in_temp("map.svg"));
    assert_int_equal(count_of(svg, "#picture"), 2 + 5); /* as it is, the mean, each token */
    assert_int_equal(count_of(svg, "class=\"cell\""), map.n_answer * 5);
    assert_non_null(strstr(svg, "What &lt;b&gt;?"));
    f2b_free(svg);
    f2b_attention_map_clear(&map);

    assert_ok(look_at(in_temp("run"), NULL, 0, &map));
    assert_true(map.K == 5 && map.layer == 0 && map.n_answer == 0 && map.text == NULL);
    assert_ok(f2b_attention_draw(&map, in_temp("map.svg")));
    f2b_free(read_svg(in_temp("map.svg")));
    f2b_attention_map_clear(&map);
    assert_int_equal(look_at(in_temp("run"), NULL, 99, &map), F2B_ERR_USAGE);
}

static void test_base_and_single(void **state)
{
    (void)state;
    f2b_attention_map map;
    assert_ok(look_at(NULL, "What?", -1, &map));
    assert_true(map.K == 0 && map.summary == NULL && map.columns == map.side * map.side);
    assert_weights(map.answer, map.n_answer, map.columns);
    assert_ok(f2b_attention_draw(&map, in_temp("map.svg")));
    f2b_free(read_svg(in_temp("map.svg")));
    f2b_attention_map_clear(&map);
    assert_int_equal(look_at(NULL, NULL, -1, &map), F2B_ERR_USAGE);

    const f2b_method single = { .tokens = 3, .prompt = "Summarize.", .temperature = 0.02,
                                .forward = F2B_FORWARD_SINGLE,
                                .lora = { .r = 2, .alpha = 4, .targets = 0x7f } };
    assert_ok(make_run(base, in_temp("single"), &single, 4, false, false));
    assert_int_equal(look_at(in_temp("single"), "What?", -1, &map), F2B_ERR_CONFIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_probe), cmocka_unit_test(test_double),
        cmocka_unit_test(test_base_and_single),
    };
    return cmocka_run_group_tests_name("inspect_attention", tests, make_base, remove_temp_folder);
}
