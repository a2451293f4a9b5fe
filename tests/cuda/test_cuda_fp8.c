/*
 * train.precision: fp8 from the configuration on: who may have it, what of the model it takes, a step's
 * gradients beside those in f32, and a training beside one in bf16. The arithmetic is the emulated
 * device's: products of e4m3 codes, exactly summed.
 */
#include "tests/support/check_op.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/core/quant.h"
#include "checkpoints/atomic_file.h"
#include "tests/emulation/emulation.h"
#include "tests/support/step_case.h"
#include "tests/support/tiny_world.h"
#include "train/trainer.h"

static const f2b_device cuda = { F2B_CUDA, 0 };
enum { MOST_STEPS = 200 };
static char folder[64], notes[1 << 14];
static f2b_metrics_row rows[MOST_STEPS];
static int64_t n_rows;

static void note(void *user, const char *text)
{
    (void)user;
    snprintf(notes + strlen(notes), sizeof notes - strlen(notes), "%s\n", text);
}

static void step(void *user, const f2b_metrics_row *row, int64_t steps)
{
    (void)user, (void)steps;
    rows[n_rows++] = *row;
}

static bool stop(void *user)
{
    (void)user;
    return false;
}

static int make_world(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/f2b_fp8_XXXXXX");
    if (mkdtemp(folder) == NULL || f2b_tiny_world_write(folder) != F2B_OK) {
        print_error("%s\n", f2b_last_error());
        return 1;
    }
    return 0;
}

static int remove_world(void **state)
{
    (void)state;
    return f2b_folder_remove(folder) != F2B_OK;
}

static f2b_session *open_run(f2b_device device, const char *precision, int seed, const char *weights,
                             int steps)
{
    char texts[5][160];
    const char *overrides[5];
    char *yaml = f2b_path_join(folder, "run.yaml");
    snprintf(texts[0], sizeof texts[0], "run.dir=%s/%s_%d", folder, precision, seed);
    snprintf(texts[1], sizeof texts[1], "train.precision=%s", precision);
    snprintf(texts[2], sizeof texts[2], "train.seed=%d", seed);
    snprintf(texts[3], sizeof texts[3], "model.weights=%s", weights);
    snprintf(texts[4], sizeof texts[4], "train.steps=%d", steps);
    for (int i = 0; i < 5; i++) overrides[i] = texts[i];
    f2b_config *config = f2b_config_load(yaml, overrides, 5);
    f2b_free(yaml);
    notes[0] = '\0', n_rows = 0;
    return config != NULL ? f2b_session_open(config, device, note, NULL) : NULL;
}

static void refused(f2b_session *s, f2b_status want, const char *words)
{
    assert_null(s);
    if (f2b_last_status() != want || strstr(f2b_last_error(), words) == NULL)
        fail_msg("%d: %s", f2b_last_status(), f2b_last_error());
}

static void who_may_have_it(void **state)
{
    (void)state;
    refused(open_run(F2B_HOST, "fp8", 1, "bf16", 4), F2B_ERR_CONFIG, "choose --device cuda");
    refused(open_run(cuda, "fp8", 1, "nf4", 4), F2B_ERR_CONFIG, "set model.weights: bf16");
    f2b_emulation_set_capability(80);
    refused(open_run(cuda, "fp8", 1, "bf16", 4), F2B_ERR_DEVICE, "is sm_80");
    f2b_emulation_set_capability(90);
}

/* Frozen layers of the language model, the tower and the projector; not the rest. */
static void what_it_takes(void **state)
{
    (void)state;
    f2b_session *s = open_run(cuda, "fp8", 1, "f16", 4);
    if (s == NULL) fail_msg("%s", f2b_last_error());
    const f2b_weight_builder *w = &s->model->weights;
    int64_t n = 0;
    for (int64_t i = 0; i < w->n_frozen; i++) {
        const char *name = w->frozen[i]->name;
        const bool linear = w->frozen[i]->ndim == 2 && strstr(name, "embed") == NULL
                            && strstr(name, "lm_head") == NULL;
        if (w->frozen[i]->dtype != (linear ? F2B_FP8 : F2B_F16))
            fail_msg("%s is %s", name, f2b_tensor_describe(w->frozen[i]));
        n += linear;
    }
    assert_int_equal(n, w->n_fp8);
    char text[64];
    snprintf(text, sizeof text, "fp8: %d of %d frozen linear layers are 8-bit floats\n", (int)n, (int)n);
    assert_string_equal(notes, text);
    f2b_session_close(s);
}

/* ---- A step ---- */

static f2b_step_case *run_case(const char *model, const char *name, const char *precision)
{
    char config[256], batch[256], models[256];
    const char *overrides[] = { precision, "model.weights=bf16" };
    const f2b_case_setting setting = { cuda, overrides, 2, true };
    snprintf(models, sizeof models, "tests/golden/step/models/%s", model);
    snprintf(config, sizeof config, "tests/golden/step/cases/%s/config.yaml", name);
    snprintf(batch, sizeof batch, "tests/golden/step/cases/%s/batch.json", name);
    f2b_step_case *c = f2b_step_case_open_as(models, config, batch, INT64_MAX, &setting);
    f2b_step_case_run(c);
    return c;
}

/* Of the gradient over all that is trained, beside `exact`: the error's length, and the cosine. */
static void compare(f2b_step_case *exact, f2b_step_case *c, double *error, double *cosine)
{
    static f2b_named_array want[F2B_CASE_ARRAYS], got[F2B_CASE_ARRAYS];
    const int64_t n = f2b_step_case_arrays(exact, want);
    assert_int_equal(n, f2b_step_case_arrays(c, got));
    double dot = 0, a = 0, b = 0;
    for (int64_t i = 0; i < n; i++) {
        if (strncmp(want[i].name, "loss", 4) == 0) continue;
        const float *p = want[i].data, *q = got[i].data;
        for (int64_t k = 0; k < f2b_named_array_count(&want[i]); k++)
            dot += (double)p[k] * q[k], a += (double)p[k] * p[k], b += (double)q[k] * q[k];
    }
    *error = sqrt((a + b - 2 * dot) / a), *cosine = dot / sqrt(a * b);
}

/* e4m3 has four bits fewer than bf16, so that its errors are up to 16 times as large. */
static void gradients(void **state)
{
    (void)state;
    static const char *const names[] = { "gqa_conversation", "gqa_both" };
    for (int k = 0; k < 2; k++) {
        f2b_step_case *f32 = run_case("gqa", names[k], "train.precision=f32");
        f2b_step_case *bf16 = run_case("gqa", names[k], "train.precision=bf16");
        f2b_step_case *fp8 = run_case("gqa", names[k], "train.precision=fp8");
        assert_true(fp8->model->weights.n_fp8 > 0);
        const double x = f32->result.loss_ar + f32->result.loss_disc;
        const double y = fp8->result.loss_ar + fp8->result.loss_disc;
        double error[2], cosine[2];
        compare(f32, bf16, &error[0], &cosine[0]);
        compare(f32, fp8, &error[1], &cosine[1]);
        print_message("[   fp8    ] %s: loss %.4f, in f32 %.4f; gradient off by %.3f, bf16's by %.3f; cosine "
                      "%.4f, %.4f\n", names[k], y, x, error[1], error[0], cosine[1], cosine[0]);
        assert_true(fabs(y - x) < 0.05 * x && y != x);
        assert_true(error[1] < 16 * error[0] && cosine[1] > 0.9);
        f2b_step_case_close(f32);
        f2b_step_case_close(bf16);
        f2b_step_case_close(fp8);
    }
}

/* What fp8 cannot take stays, is counted, and works. */
static void odd_sizes(void **state)
{
    (void)state;
    f2b_step_case *c = run_case("odd", "odd_conversation_pre_norm", "train.precision=fp8");
    const f2b_weight_builder *w = &c->model->weights;
    assert_true(w->n_not_fp8 > 0);
    assert_int_equal(w->first_not_fp8->dtype, F2B_BF16);
    assert_false(f2b_fp8_takes(w->first_not_fp8->shape[0], w->first_not_fp8->shape[1]));
    f2b_step_case_close(c);
}

/* ---- A training ---- */

/* Of the batches with a loss, its mean over the last third of the run. */
typedef struct losses { double ar[MOST_STEPS], ar_end, disc_end; } losses;

static losses train(const char *precision, int seed, int steps)
{
    const f2b_trainer_events events = { note, step, stop, NULL };
    f2b_session *s = open_run(cuda, precision, seed, "bf16", steps);
    if (s == NULL || f2b_train_run(s, F2B_RESUME_NONE, NULL, &events) != F2B_OK)
        fail_msg("%s", f2b_last_error());
    assert_int_equal(n_rows, steps);
    losses l = { .ar_end = 0 };
    int n_ar = 0, n_disc = 0;
    for (int i = 0; i < steps; i++) {
        l.ar[i] = rows[i].kind != F2B_BATCH_CAPTION ? rows[i].loss_ar : NAN;
        if (i < steps - steps / 3) continue;
        if (rows[i].kind != F2B_BATCH_CAPTION) l.ar_end += rows[i].loss_ar, n_ar++;
        if (rows[i].kind != F2B_BATCH_CONVERSATION) l.disc_end += rows[i].loss_disc, n_disc++;
    }
    l.ar_end /= n_ar, l.disc_end /= n_disc;
    f2b_session_close(s);
    return l;
}

static void training(void **state)
{
    (void)state;
    enum { STEPS = 6 };
    const losses bf16 = train("bf16", 1, STEPS), fp8 = train("fp8", 1, STEPS);
    double most = 0;
    for (int i = 0; i < STEPS; i++)
        if (!isnan(bf16.ar[i])) most = fmax(most, fabs(fp8.ar[i] / bf16.ar[i] - 1));
    print_message("[   fp8    ] autoregressive loss at the end %.4f, in bf16 %.4f; a step differs by up to "
                  "%.4f\n", fp8.ar_end, bf16.ar_end, most);
    assert_true(fp8.ar_end < 0.95 * fp8.ar[0]);
    assert_true(most > 0 && most < 0.05);
}

/* STEPS SEEDS: no test, but the table of docs/benchmarks.md. */
static int print_table(int steps, int seeds)
{
    static const char *const precisions[] = { "f32", "bf16", "fp8" };
    if (steps < 6 || steps > MOST_STEPS || make_world(NULL) != 0) return 1;
    puts("| seed | precision | L_AR, first step | L_AR, last third | L_disc, last third |\n"
         "| --- | --- | --- | --- | --- |");
    for (int seed = 1; seed <= seeds; seed++)
        for (int p = 0; p < 3; p++) {
            const losses l = train(precisions[p], seed, steps);
            double first = NAN;
            for (int i = steps - 1; i >= 0; i--) first = isnan(l.ar[i]) ? first : l.ar[i];
            printf("| %d | %s | %.4f | %.4f | %.4f |\n", seed, precisions[p], first, l.ar_end, l.disc_end);
            fflush(stdout);
        }
    return remove_world(NULL);
}

int main(int argc, char **argv)
{
    if (argc == 3) return print_table(atoi(argv[1]), atoi(argv[2]));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_may_have_it), cmocka_unit_test(what_it_takes), cmocka_unit_test(gradients),
        cmocka_unit_test(odd_sizes), cmocka_unit_test(training),
    };
    return cmocka_run_group_tests(tests, make_world, remove_world);
}
