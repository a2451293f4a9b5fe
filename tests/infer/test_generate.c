/* Generation with the cache against running everything again; batches against one by one. */
#include "tests/infer/tiny_models.h"

#include <math.h>

#include "autograd/ops/linear/linear.h"
#include "infer/generate_internal.h"
#include "infer/trained_model.h"
#include "nn/passes.h"

enum { PROMPTS = 5, NEW = 14 };

/* Ragged prompts, two with an image, one of a single id. */
static const int32_t ids0[] = { 1, 7, 30, 4, 55, 21, 21, 8 };
static const int32_t ids1[] = { 1, 9, F2B_ROW_IMAGE, 14, 33 };
static const int32_t ids2[] = { 1 };
static const int32_t ids3[] = { 1, 44, 12, 13, 5, 60, 18, 3, 26, 39, 40, 41, 17, 10 };
static const int32_t ids4[] = { F2B_ROW_IMAGE, 28, 6 };
static const f2b_pack_item prompts[PROMPTS] = {
    { .ids = ids0, .n = 8 }, { .ids = ids1, .n = 5, .image = 1 }, { .ids = ids2, .n = 1 },
    { .ids = ids3, .n = 14 }, { .ids = ids4, .n = 3, .image = 0 },
};

static f2b_generate_options options(f2b_stage stage)
{
    return (f2b_generate_options){ .stage = stage, .max_new_tokens = NEW, .eos_id = -1 };
}

/* One prompt by whole forward passes: f2b_pass_hidden has no cache. */
static void generate_plainly(const f2b_model *m, const f2b_pack_item *prompt, f2b_tensor *images,
                             int64_t max_new, f2b_ids *out)
{
    int32_t ids[64];
    memcpy(ids, prompt->ids, (size_t)prompt->n * sizeof *ids);
    f2b_tape *tape = f2b_tape_new(F2B_HOST);
    f2b_tape_set_recording(tape, false);
    const f2b_pass_settings settings = { 0 };
    for (int64_t n = prompt->n; n < prompt->n + max_new; n++) {
        f2b_pass_frame frame;
        const f2b_pack_item item = { .ids = ids, .n = n, .image = prompt->image };
        f2b_tensor *h = f2b_pass_hidden(tape, m, &item, 1, images, &settings, &frame);
        f2b_tensor *z = f2b_linear(tape, h, m->llama->head, NULL);
        if (z == NULL) fail_msg("%s", f2b_last_error());
        const int64_t V = z->shape[1];
        const float *last = (const float *)z->data + (z->shape[0] - 1) * V;
        int32_t best = 0;
        for (int32_t v = 1; v < V; v++) best = last[v] > last[best] ? v : best;
        ids[n] = best;
        assert_ok(f2b_ids_push(out, best));
        f2b_tape_reset(tape);
    }
    f2b_tape_free(tape);
}

static void assert_same_ids(const f2b_ids *a, const f2b_ids *b)
{
    assert_int_equal(a->n, b->n);
    for (int64_t i = 0; i < a->n; i++) assert_int_equal(a->ids[i], b->ids[i]);
}

static void free_all(f2b_ids *ids, int64_t n)
{
    for (int64_t i = 0; i < n; i++) f2b_ids_free(&ids[i]);
}

static void test_cache_equals_whole_passes(void **state)
{
    (void)state;
    f2b_model *m = tiny_model(F2B_FORWARD_DOUBLE, F2B_F32);
    f2b_tensor *images = random_leaf(2 * f2b_model_image_rows(m), m->config.text.hidden, 3);
    f2b_ids out[PROMPTS] = { 0 }, plain[PROMPTS] = { 0 };
    const f2b_generate_options o = options(F2B_STAGE_GENERATION);
    assert_ok(f2b_generate(m, prompts, PROMPTS, images, &o, out));
    int different = 0;
    for (int i = 0; i < PROMPTS; i++) {
        generate_plainly(m, &prompts[i], images, NEW, &plain[i]);
        assert_same_ids(&out[i], &plain[i]);
        for (int64_t j = 1; j < NEW; j++) different += out[i].ids[j] != out[i].ids[j - 1];
    }
    assert_true(different > NEW);       /* not a model that repeats one id, whatever it reads */
    free_all(out, PROMPTS);
    free_all(plain, PROMPTS);
    f2b_tensor_free(images);
    f2b_model_free(m);
}

static void test_batch_equals_one_by_one(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++) {
        f2b_model *m = tiny_model(F2B_FORWARD_DOUBLE, k == 0 ? F2B_F32 : F2B_BF16);
        f2b_tensor *images = random_leaf(2 * f2b_model_image_rows(m), m->config.text.hidden, 3);
        f2b_ids all[PROMPTS] = { 0 };
        f2b_generate_options o = options(F2B_STAGE_GENERATION);
        assert_ok(f2b_generate(m, prompts, PROMPTS, images, &o, all));
        o.eos_id = all[3].ids[4];       /* some sequences now end before others */
        free_all(all, PROMPTS);
        assert_ok(f2b_generate(m, prompts, PROMPTS, images, &o, all));
        assert_true(all[3].n <= 4);
        for (int i = 0; i < PROMPTS; i++) {
            f2b_ids alone = { 0 };
            assert_ok(f2b_generate(m, &prompts[i], 1, images, &o, &alone));
            assert_same_ids(&alone, &all[i]);
            f2b_ids_free(&alone);
        }
        free_all(all, PROMPTS);
        f2b_tensor_free(images);
        f2b_model_free(m);
    }
}

/* A prompt fed in parts, as a chat is, gives the logits of the whole. */
static void test_parts_equal_the_whole(void **state)
{
    (void)state;
    f2b_model *m = tiny_model(F2B_FORWARD_DOUBLE, F2B_F32);
    f2b_generator *g = f2b_generator_new(m, F2B_STAGE_GENERATION, 2, 20);
    assert_non_null(g);
    const f2b_pack_item first = { .ids = ids3, .n = 9 }, second = { .ids = ids3 + 9, .n = 5 };
    const int64_t slot0 = 0, slot1 = 1;
    const f2b_tensor *z = f2b_generator_feed(g, &prompts[3], &slot1, 1, NULL);
    assert_non_null(z);
    float whole[61];
    memcpy(whole, z->data, sizeof whole);
    assert_non_null(f2b_generator_feed(g, &first, &slot0, 1, NULL));
    z = f2b_generator_feed(g, &second, &slot0, 1, NULL);
    assert_non_null(z);
    for (int v = 0; v < 61; v++)
        assert_true(fabsf(((const float *)z->data)[v] - whole[v]) <= 1e-5f * (1 + fabsf(whole[v])));
    assert_int_equal(f2b_generator_rows(g, 0), 14);
    f2b_generator_rewind(g, 0, 0);
    assert_int_equal(f2b_generator_rows(g, 0), 0);
    f2b_generator_free(g);
    f2b_model_free(m);
}

/* The base view and no stage: the same ids as a base that never had adapters. */
static void test_base_view_has_no_adapters(void **state)
{
    (void)state;
    f2b_model *m = tiny_model(F2B_FORWARD_DOUBLE, F2B_F32);
    f2b_model *base = tiny_model(F2B_FORWARD_BASE, F2B_F32);
    const f2b_model view = f2b_model_base_view(m);
    const int64_t rows = f2b_model_image_rows(&view);
    assert_int_equal(rows, 4);
    f2b_tensor *images = random_leaf(2 * rows, m->config.text.hidden, 3);
    f2b_ids a = { 0 }, b = { 0 }, with = { 0 };
    const f2b_generate_options none = options(F2B_STAGE_NONE), o = options(F2B_STAGE_GENERATION);
    assert_ok(f2b_generate(&view, &prompts[1], 1, images, &none, &a));
    assert_ok(f2b_generate(base, &prompts[1], 1, images, &o, &b));
    assert_ok(f2b_generate(m, &prompts[0], 1, images, &o, &with));
    assert_same_ids(&a, &b);
    f2b_ids_free(&a);
    assert_ok(f2b_generate(&view, &prompts[0], 1, images, &none, &a));
    assert_true(memcmp(a.ids, with.ids, NEW * sizeof *a.ids) != 0);
    f2b_ids_free(&a);
    f2b_ids_free(&b);
    f2b_ids_free(&with);
    f2b_tensor_free(images);
    f2b_model_free(m);
    f2b_model_free(base);
}

static void test_context_ends_generation(void **state)
{
    (void)state;
    f2b_model *m = tiny_model(F2B_FORWARD_DOUBLE, F2B_F32);
    f2b_ids out[2] = { 0 };
    f2b_generate_options o = options(F2B_STAGE_GENERATION);
    o.max_new_tokens = 1000;
    const f2b_pack_item two[] = { prompts[3], prompts[2] };
    assert_ok(f2b_generate(m, two, 2, NULL, &o, out));
    assert_int_equal(out[0].n, 48 - 14 + 1);    /* the last id needs no row */
    assert_int_equal(out[1].n, 48);
    free_all(out, 2);
    int32_t many[49];
    for (int i = 0; i < 49; i++) many[i] = 1 + i;
    const f2b_pack_item too_long = { .ids = many, .n = 49 }, fits = { .ids = many, .n = 48 };
    assert_int_equal(f2b_generate(m, &too_long, 1, NULL, &o, out), F2B_ERR_DATA);
    assert_failed(F2B_ERR_DATA, "49 rows", "48");
    assert_ok(f2b_generate(m, &fits, 1, NULL, &o, out));
    assert_int_equal(out[0].n, 1);
    free_all(out, 1);
    f2b_model_free(m);
}

/* Two ids with the same row in the head have the same logit: the lower one is taken. */
static void test_ties_go_to_the_lower_id(void **state)
{
    (void)state;
    f2b_model *m = tiny_model(F2B_FORWARD_DOUBLE, F2B_F32);
    f2b_ids out = { 0 };
    f2b_generate_options o = options(F2B_STAGE_GENERATION);
    o.max_new_tokens = 1;
    assert_ok(f2b_generate(m, &prompts[0], 1, NULL, &o, &out));
    const int32_t best = out.ids[0], other = best > 0 ? best - 1 : best + 1;
    const int64_t d = m->config.text.hidden;
    float *head = m->llama->head->data;
    memcpy(head + other * d, head + best * d, (size_t)d * sizeof *head);
    f2b_ids_free(&out);
    assert_ok(f2b_generate(m, &prompts[0], 1, NULL, &o, &out));
    assert_int_equal(out.ids[0], best < other ? best : other);
    f2b_ids_free(&out);
    f2b_model_free(m);
}

/* Drawn answers: a function of seed and key, whatever runs beside. */
static void test_draws_do_not_know_the_batch(void **state)
{
    (void)state;
    f2b_model *m = tiny_model(F2B_FORWARD_DOUBLE, F2B_F32);
    f2b_tensor *images = random_leaf(2 * f2b_model_image_rows(m), m->config.text.hidden, 3);
    f2b_pack_item keyed[PROMPTS];
    for (int i = 0; i < PROMPTS; i++) keyed[i] = prompts[i], keyed[i].key = 100 + (uint64_t)i;
    f2b_generate_options o = options(F2B_STAGE_GENERATION);
    o.sampling = (f2b_sampling){ .temperature = 2.0, .top_p = 0.9, .seed = 4 };
    f2b_ids all[PROMPTS] = { 0 }, greedy[PROMPTS] = { 0 };
    assert_ok(f2b_generate(m, keyed, PROMPTS, images, &o, all));
    for (int i = 0; i < PROMPTS; i++) {
        f2b_ids alone = { 0 };
        assert_ok(f2b_generate(m, &keyed[i], 1, images, &o, &alone));
        assert_same_ids(&alone, &all[i]);
        f2b_ids_free(&alone);
    }
    for (int change = 0; change < 2; change++) {        /* another seed, another key */
        f2b_ids other = { 0 };
        o.sampling.seed = change == 0 ? 5 : 4;
        keyed[3].key = change == 0 ? 103 : 7;
        assert_ok(f2b_generate(m, &keyed[3], 1, images, &o, &other));
        assert_memory_not_equal(other.ids, all[3].ids, NEW * sizeof *other.ids);
        f2b_ids_free(&other);
    }
    o.sampling.top_p = 1e-9;            /* the likeliest alone */
    free_all(all, PROMPTS);
    assert_ok(f2b_generate(m, keyed, PROMPTS, images, &o, all));
    o.sampling = (f2b_sampling){ 0 };
    assert_ok(f2b_generate(m, keyed, PROMPTS, images, &o, greedy));
    for (int i = 0; i < PROMPTS; i++) assert_same_ids(&all[i], &greedy[i]);
    free_all(all, PROMPTS);
    free_all(greedy, PROMPTS);
    f2b_tensor_free(images);
    f2b_model_free(m);
}

/* How often each id is drawn, against softmax(logits / temperature) and its nucleus. */
static void test_shares_of_draws(void **state)
{
    (void)state;
    enum { V = 6, DRAWS = 20000 };
    f2b_tensor *z = f2b_tensor_new(F2B_HOST, F2B_F32, 2, (int64_t[]){ 2, V }, F2B_TAG_OTHER);
    const double p[V] = { 0.05, 0.4, 0.02, 0.25, 0.25, 0.03 };
    for (int i = 0; i < V; i++) {
        ((float *)z->data)[i] = 0;
        ((float *)z->data)[V + i] = (float)(0.5 * log(p[i]) + 3);
    }
    for (int k = 0; k < 2; k++) {
        const f2b_sampling s = { .temperature = 0.5, .top_p = k == 0 ? 0 : 0.6, .seed = 1 };
        int64_t count[V] = { 0 };
        for (int i = 0; i < DRAWS; i++) {
            int32_t id;
            assert_ok(f2bi_choose_id(z, 1, &s, 9, i, &id));
            count[id]++;
        }
        /* 0.4 and the first 0.25 reach 0.6. */
        const double cut[V] = { 0, 0.4 / 0.65, 0, 0.25 / 0.65, 0, 0 };
        for (int i = 0; i < V; i++)
            assert_true(fabs((double)count[i] / DRAWS - (k == 0 ? p[i] : cut[i])) < 0.012);
        assert_true(k == 0 || count[4] == 0);
    }
    ((float *)z->data)[V] = NAN;
    int32_t id;
    const f2b_sampling s = { .temperature = 1 };
    assert_int_equal(f2bi_choose_id(z, 1, &s, 0, 0, &id), F2B_ERR_NUMBERS);
    f2b_tensor_free(z);
}

typedef struct told {
    int64_t n, ends;
} told;

static f2b_status tell(void *context, int64_t prompt, int32_t id)
{
    told *t = context;
    assert_true(prompt >= 0 && prompt < PROMPTS);
    t->n++, t->ends += id == 2;
    return t->n < 1000 ? F2B_OK : f2b_fail(F2B_ERR_IO, "enough");
}

/* Each id is told as it is chosen, an eos too; what the listener returns ends the run. */
static void test_tokens_are_told(void **state)
{
    (void)state;
    f2b_model *m = tiny_model(F2B_FORWARD_DOUBLE, F2B_F32);
    f2b_ids out[PROMPTS] = { 0 };
    const f2b_pack_item text[] = { prompts[0], prompts[2], prompts[3] };
    told t = { 0 };
    f2b_generate_options o = options(F2B_STAGE_GENERATION);
    o.token = tell, o.context = &t, o.eos_id = 2;
    assert_ok(f2b_generate(m, text, 3, NULL, &o, out));
    assert_int_equal(t.n - t.ends, out[0].n + out[1].n + out[2].n);
    free_all(out, 3);
    t.n = 999;
    assert_int_equal(f2b_generate(m, text, 3, NULL, &o, out), F2B_ERR_IO);
    o.sampling.temperature = -1;
    assert_int_equal(f2b_generate(m, text, 3, NULL, &o, out), F2B_ERR_INVALID);
    free_all(out, 3);
    f2b_model_free(m);
}

static bool stop_at_once(void *context)
{
    ++*(int *)context;
    return true;
}

static void test_refusals(void **state)
{
    (void)state;
    f2b_model *m = tiny_model(F2B_FORWARD_DOUBLE, F2B_F32);
    f2b_ids out = { 0 };
    f2b_generate_options o = options(F2B_STAGE_GENERATION);
    assert_int_equal(f2b_generate(m, &prompts[1], 1, NULL, &o, &out), F2B_ERR_DATA);
    assert_failed(F2B_ERR_DATA, "image mark", "no image");
    int asked = 0;
    o.stop = stop_at_once, o.context = &asked;
    assert_int_equal(f2b_generate(m, &prompts[0], 1, NULL, &o, &out), F2B_ERR_STOPPED);
    assert_int_equal(asked, 1);
    o.max_new_tokens = 0;
    assert_int_equal(f2b_generate(m, &prompts[0], 1, NULL, &o, &out), F2B_ERR_INVALID);
    assert_null(f2b_generator_new(m, F2B_STAGE_GENERATION, 1, 49));
    f2b_generator *g = f2b_generator_new(m, F2B_STAGE_GENERATION, 1, 7);
    const int64_t slot = 0;
    assert_null(f2b_generator_feed(g, &prompts[0], &slot, 1, NULL));
    assert_failed(F2B_ERR_DATA, "8 rows", "7");
    float *head = m->llama->head->data;
    head[5] = NAN;
    o = options(F2B_STAGE_GENERATION);
    assert_int_equal(f2b_generate(m, &prompts[0], 1, NULL, &o, &out), F2B_ERR_NUMBERS);
    f2b_generator_free(g);
    f2b_ids_free(&out);
    f2b_model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cache_equals_whole_passes),
        cmocka_unit_test(test_batch_equals_one_by_one),
        cmocka_unit_test(test_parts_equal_the_whole),
        cmocka_unit_test(test_base_view_has_no_adapters),
        cmocka_unit_test(test_context_ends_generation),
        cmocka_unit_test(test_ties_go_to_the_lower_id),
        cmocka_unit_test(test_draws_do_not_know_the_batch),
        cmocka_unit_test(test_shares_of_draws),
        cmocka_unit_test(test_tokens_are_told),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
