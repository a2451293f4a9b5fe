/*
 * Samples of one image share a pass 1: losses and gradients are those of a step in which each sample has
 * its own, to 1e-6, whatever the micro-batches and with GradCache; fewer rows go through the model. And
 * kept features: a step that loads the tower's rows has the bits of one that makes them.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/step_case.h"

enum { MOST_SAMPLES = 12 };

static f2b_step_case *open_case(const char *name, const char *model, int64_t rows)
{
    char config[256], batch[256], folder[256];
    snprintf(folder, sizeof folder, "tests/golden/step/models/%s", model);
    snprintf(config, sizeof config, "tests/golden/step/cases/%s/config.yaml", name);
    snprintf(batch, sizeof batch, "tests/golden/step/cases/%s/batch.json", name);
    return f2b_step_case_open(folder, config, batch, rows);
}

/* The case's samples again and again, with pictures a, b, a, a, b, ... : six samples of two images. */
typedef struct repeated {
    f2b_step_sample samples[MOST_SAMPLES];
    int64_t from[MOST_SAMPLES];
    f2b_step_case *c;
    char *kept[2];              /* the tower's rows of each image */
    int64_t asked, loaded, stored;
} repeated;

static f2b_status image(void *context, int64_t sample, float *pixels)
{
    repeated *r = context;
    r->asked++;
    memcpy(pixels, r->c->batch.pixels[r->from[sample]],
           (size_t)r->c->batch.image_floats * sizeof *pixels);
    return F2B_OK;
}

static size_t feature_bytes(const repeated *r)
{
    const f2b_model *m = r->c->model;
    return (size_t)(f2b_image_tokens(&m->config) * m->config.vision.hidden) *
           f2b_dtype_size(m->compute);
}

static int number_of(const repeated *r, int64_t sample)
{
    return r->from[sample] == r->from[0] ? 0 : 1;
}

static f2b_status load(void *context, int64_t sample, void *rows, bool *found)
{
    repeated *r = context;
    const char *kept = r->kept[number_of(r, sample)];
    *found = kept != NULL;
    r->loaded += *found;
    if (kept != NULL) memcpy(rows, kept, feature_bytes(r));
    return F2B_OK;
}

static void store(void *context, int64_t sample, const void *rows)
{
    repeated *r = context;
    char **kept = &r->kept[number_of(r, sample)];
    r->stored++;
    if (*kept == NULL) *kept = malloc(feature_bytes(r));
    memcpy(*kept, rows, feature_bytes(r));
}

static void repeat(repeated *r, f2b_step_case *c, bool shared)
{
    static const int pattern[] = { 0, 1, 0, 0, 1, 0 };
    int64_t images[F2B_CASE_SAMPLES], n = 0;
    *r = (repeated){ .c = c };
    for (int64_t i = 0; i < c->batch.n; i++)
        if (c->batch.samples[i].has_image) images[n++] = i;
    assert_true(n >= 2);
    for (int64_t i = 0; i < 6; i++) {           /* texts differ, images are two of the case's */
        r->samples[i] = c->batch.samples[images[i % n]];
        r->samples[i].image_prompt = c->batch.samples[images[0]].image_prompt;
        r->from[i] = images[pattern[i]];
        r->samples[i].image = shared ? 1 + pattern[i] : 0;
    }
    c->input.n = 6;
    c->input.samples = r->samples, c->input.image = image, c->input.context = r;
}

/* Gradients of all parameters in a row, and the losses; malloc'd. */
static double *snapshot(f2b_step_case *c, int64_t *n)
{
    static f2b_named_array arrays[F2B_CASE_ARRAYS];
    const int64_t k = f2b_step_case_arrays(c, arrays);
    double *out = NULL;
    *n = 0;
    for (int64_t i = 0; i < k; i++) {
        const int64_t count = f2b_named_array_count(&arrays[i]);
        out = realloc(out, (size_t)(*n + count) * sizeof *out);
        for (int64_t j = 0; j < count; j++) out[*n + j] = (double)((const float *)arrays[i].data)[j];
        *n += count;
    }
    return out;
}

static double distance(const double *a, const double *b, int64_t n)
{
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) difference += (a[i] - b[i]) * (a[i] - b[i]), size += b[i] * b[i];
    return sqrt(difference / size);
}

/* One run of a case; result receives what it cost. */
static double *gradients(const char *name, const char *model, int64_t rows, bool shared,
                         double dropout, int64_t *n, f2b_step_result *result, int64_t *asked)
{
    f2b_step_case *c = open_case(name, model, rows);
    repeated r;
    repeat(&r, c, shared);
    c->input.settings.dropout.p = (float)dropout;
    f2b_step_case_run(c);
    *result = c->result;
    *asked = r.asked;
    double *out = snapshot(c, n);
    f2b_step_case_close(c);
    return out;
}

static const struct {
    const char *name, *model;
} cases[] = {
    { "gqa_conversation", "gqa" }, { "gqa_both", "gqa" }, { "gqa_caption", "gqa" },
    { "odd_both_shared_bidirectional", "odd" }, { "f16_both_projector", "sharded_f16" },
};

static void shared_passes_have_the_same_gradient(void **state)
{
    (void)state;
    static const int64_t rows[] = { 1, 60, 110, INT64_MAX };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t n, m, asked, fewer, chunks = 0;
        f2b_step_result all, result;
        double *want = gradients(cases[i].name, cases[i].model, INT64_MAX, false, 0, &n, &all, &asked);
        assert_int_equal(asked, 6);
        for (int k = 0; k < 4; k++) {
            double *got = gradients(cases[i].name, cases[i].model, rows[k], true, 0, &m, &result,
                                    &fewer);
            assert_int_equal(n, m);
            const double error = distance(got, want, n);
            if (!(error < 1e-6))
                fail_msg("%s, micro-batches of %lld: %g", cases[i].name, (long long)rows[k], error);
            if (rows[k] == 1) {
                assert_int_equal(result.micro_batches, 6);
                assert_int_equal(result.tokens, all.tokens);
            }
            if (rows[k] == INT64_MAX) {
                assert_int_equal(fewer, 2);
                assert_true(result.tokens < all.tokens);
            }
            chunks |= result.micro_batches > 1 && result.micro_batches < 6;
            free(got);
        }
        assert_true(chunks);            /* a group was divided, and another was not */
        free(want);
    }
}

/* With dropout the shared pass has one mask, whatever the micro-batches. */
static void masks_do_not_depend_on_micro_batches(void **state)
{
    (void)state;
    int64_t n, m, asked;
    f2b_step_result result;
    double *all = gradients("gqa_both", "gqa", INT64_MAX, true, 0.3, &n, &result, &asked);
    double *one = gradients("gqa_both", "gqa", 1, true, 0.3, &m, &result, &asked);
    double *apart = gradients("gqa_both", "gqa", 1, false, 0.3, &m, &result, &asked);
    assert_true(distance(one, all, n) < 1e-6);
    assert_true(distance(apart, all, n) > 1e-3);
    free(all), free(one), free(apart);
}

/* Samples with one number but other prompts do not share. */
static void other_prompts_are_other_passes(void **state)
{
    (void)state;
    f2b_step_case *c = open_case("gqa_conversation", "gqa", INT64_MAX);
    repeated r;
    repeat(&r, c, true);
    static int32_t ids[512];
    const f2b_tokens prompt = r.samples[2].image_prompt;
    memcpy(ids, prompt.ids, (size_t)prompt.n * sizeof *ids);
    ids[prompt.n - 1] = ids[prompt.n - 1] == 5 ? 6 : 5;
    r.samples[2].image_prompt.ids = ids;
    f2b_step_case_run(c);
    assert_int_equal(r.asked, 3);
    f2b_step_case_close(c);
}

static void kept_features_give_the_same_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int64_t rows = 1; rows < 1000; rows += 299)
            for (int shared = 0; shared < 2; shared++) {
                int64_t n, m, asked;
                f2b_step_result result;
                double *want = gradients(cases[i].name, cases[i].model, rows, shared, 0, &n, &result,
                                         &asked);
                f2b_step_case *c = open_case(cases[i].name, cases[i].model, rows);
                repeated r;
                repeat(&r, c, shared);
                c->input.load_features = load, c->input.store_features = store;
                for (int use = 0; use < 2; use++) {
                    f2b_step_case_run(c);
                    double *got = snapshot(c, &m);
                    assert_int_equal(n, m);
                    assert_memory_equal(got, want, (size_t)n * sizeof *got);
                    free(got);
                    if (use == 0) assert_true(r.stored >= 2 && r.stored == r.asked);
                    else assert_int_equal(r.stored, r.asked);
                }
                assert_true(r.loaded >= 2);
                for (int k = 0; k < 2; k++) free(r.kept[k]);
                free(want);
                f2b_step_case_close(c);
            }
}

/* Rows that all sequences begin with count in each of them, and once among those that are computed. */
static void what_is_computed_is_counted(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int64_t rows;
    } runs[] = { { "gqa_both_system", INT64_MAX }, { "gqa_both_system", 1 } };
    int64_t tokens = 0;
    for (int i = 0; i < 2; i++) {
        f2b_step_case *c = open_case(runs[i].name, "gqa", runs[i].rows);
        f2b_step_case_run(c);
        const f2b_step_result *r = &c->result;
        if (i == 0) {
            assert_int_equal(r->most_rows, r->tokens);
            assert_in_range(r->most_computed, 1, r->most_rows - 4 * 7);     /* 7 words, 12 sequences in two passes */
            tokens = r->tokens;
        } else {
            assert_int_equal(r->tokens, tokens);
            assert_in_range(r->most_computed, r->most_rows - 8, r->most_rows - 7);  /* an image's and a caption's */
        }
        f2b_step_case_close(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_passes_have_the_same_gradient),
        cmocka_unit_test(masks_do_not_depend_on_micro_batches),
        cmocka_unit_test(other_prompts_are_other_passes),
        cmocka_unit_test(kept_features_give_the_same_bits), cmocka_unit_test(what_is_computed_is_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
