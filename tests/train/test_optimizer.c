/* The optimiser over a registry: schedules, and five updates as torch.optim.AdamW makes them. */
#include "tests/support/check_op.h"

#include <math.h>
#include <string.h>

#include "train/optimizer.h"

static f2b_config *config_with(const char *train)
{
    char *text = f2b_sprintf(F2B_TAG_OTHER, "model: {path: m}\nrun: {dir: r}\n"
                             "data: {conversations: [{path: c}]}\n"
                             "method: {loss: autoregressive}\ntrain: {%s}\n", train);
    assert_non_null(text);
    f2b_config *config = f2b_config_parse(text, "x", "/base", NULL, 0);
    f2b_free(text);
    if (config == NULL) fail_msg("%s", f2b_last_error());
    return config;
}

static void near(double got, double want)
{
    if (!(fabs(got - want) <= 1e-12)) fail_msg("%.17g instead of %.17g", got, want);
}

/* T = 1000 with 3 %: the rate rises over 30 updates; T = 10 with 0.25 over ceil(2.5) = 3. */
static void schedules(void **state)
{
    (void)state;
    const f2b_lr_scheduler all[] = { F2B_LR_COSINE, F2B_LR_LINEAR, F2B_LR_CONSTANT };
    for (int i = 0; i < 3; i++) {
        near(f2b_learning_rate_factor(all[i], 0.03, 0, 1000), 0);
        near(f2b_learning_rate_factor(all[i], 0.03, 15, 1000), 0.5);
        near(f2b_learning_rate_factor(all[i], 0.03, 30, 1000), 1);
        near(f2b_learning_rate_factor(all[i], 0.25, 2, 10), 2.0 / 3);
        near(f2b_learning_rate_factor(all[i], 0.25, 3, 10), 1);
        near(f2b_learning_rate_factor(all[i], 0, 0, 10), 1);
        near(f2b_learning_rate_factor(all[i], 1, 9, 10), 0.9);
        near(f2b_learning_rate_factor(all[i], 0.03, 1000, 1000), all[i] == F2B_LR_CONSTANT);
    }
    near(f2b_learning_rate_factor(F2B_LR_COSINE, 0.03, 515, 1000), 0.5);
    near(f2b_learning_rate_factor(F2B_LR_COSINE, 0.25, 5, 10), 0.5 * (1 + cos(2 * M_PI / 7)));
    near(f2b_learning_rate_factor(F2B_LR_LINEAR, 0.03, 515, 1000), 0.5);
    near(f2b_learning_rate_factor(F2B_LR_LINEAR, 0.25, 5, 10), 5.0 / 7);
    near(f2b_learning_rate_factor(F2B_LR_CONSTANT, 0.25, 9, 10), 1);
}

enum { A, B, SUMMARY, PROJECTOR, TEMPERATURE, N };

static void add(f2b_parameters *list, const char *name, f2b_parameter_group group, bool decay,
                int64_t rows, const double *values)
{
    const int64_t shape[] = { rows, 2 }, one[] = { 1 };
    const bool scalar = group == F2B_GROUP_TEMPERATURE;
    f2b_tensor *t = f2b_check_leaf(F2B_F32, scalar ? 1 : 2, scalar ? one : shape, values, true);
    assert_int_equal(f2b_parameters_add(list, t, name, group, decay), F2B_OK);
}

static f2b_parameters registry(void)
{
    f2b_parameters list = { 0 };
    add(&list, "a.compression.lora_A", F2B_GROUP_LORA, true, 2, (double[]){ 1, -2, 0.5, 3 });
    add(&list, "a.generation.lora_A", F2B_GROUP_LORA, true, 1, (double[]){ 0.25, -0.75 });
    add(&list, "summary_tokens", F2B_GROUP_SUMMARY, false, 1, (double[]){ 2, -1 });
    add(&list, "multi_modal_projector.w", F2B_GROUP_PROJECTOR, true, 1, (double[]){ 0.5, 0.5 });
    add(&list, "log_temperature", F2B_GROUP_TEMPERATURE, false, 1, (double[]){ -4.55 });
    return list;
}

static void set_gradient(f2b_parameters *list, int which, const double *values, double factor)
{
    f2b_tensor *t = list->items[which].tensor;
    assert_int_equal(f2b_tensor_zero_grad(t), F2B_OK);
    for (int64_t i = 0; i < f2b_numel(t); i++) ((float *)t->grad)[i] = (float)(values[i] * factor);
}

/* The gradients of update s; the generation adapter has none in updates 1 and 3. */
static void set_gradients(f2b_parameters *list, int s)
{
    f2b_optimizer_clear_gradients(list);
    for (int i = 0; i < N; i++) assert_null(list->items[i].tensor->grad);
    set_gradient(list, A, (double[]){ 0.3, -0.1, 0.2, 0.4 }, s + 1);
    if (s != 1 && s != 3) set_gradient(list, B, (double[]){ 0.5, -0.25 }, s + 1);
    set_gradient(list, SUMMARY, (double[]){ -0.2, 0.6 }, s + 1);
    set_gradient(list, PROJECTOR, (double[]){ 0.1, -0.3 }, 1);
    set_gradient(list, TEMPERATURE, (double[]){ 0.7 }, 1);
}

static f2b_config *five_of_ten(void)
{
    return config_with("learning_rate: 0.1, projector_learning_rate: 0.02, warmup_ratio: 0.2, "
                       "weight_decay: 0.1, max_grad_norm: 1, steps: 10");
}

/* Golden: torch 1.13 AdamW and clip_grad_norm_ in f64, decay 0.1 on a.* and the projector alone,
 * log_temperature clamped to ln 0.01 after each step. */
static void equals_pytorch(void **state)
{
    (void)state;
    const double norms[] = { 1.2658988901172163, 1.841195263952197, 3.114883625434504,
                             3.433656942677879, 5.089449872039217 };
    f2b_parameters list = registry();
    f2b_config *config = five_of_ten();
    f2b_optimizer *o = f2b_optimizer_new(&list);
    assert_non_null(o);
    for (int s = 0; s < 5; s++) {
        f2b_update update;
        float before[2], after[2];
        memcpy(before, list.items[B].tensor->data, sizeof before);
        set_gradients(&list, s);
        assert_int_equal(f2b_optimizer_update(o, config, s, 10, &update), F2B_OK);
        assert_true(update.finite);
        assert_true(fabs(update.grad_norm - norms[s]) < 1e-6);
        near(update.learning_rate, 0.1 * f2b_learning_rate_factor(F2B_LR_COSINE, 0.2, s, 10));
        memcpy(after, list.items[B].tensor->data, sizeof after);
        if (s == 1 || s == 3) assert_memory_equal(before, after, sizeof before);
    }
    f2b_check_near(list.items[A].tensor, (double[]){ 0.6397713087148548, -1.6070186947873715,
                   0.15614763233927853, 2.574266033654623 }, 4, 1e-6);
    f2b_check_near(list.items[B].tensor, (double[]){ 0.0606254633399292, -0.5514003781770402 }, 2,
                   1e-6);
    f2b_check_near(list.items[SUMMARY].tensor,
                   (double[]){ 2.3314918651347276, -1.3314918763807355 }, 2, 1e-6);
    f2b_check_near(list.items[PROJECTOR].tensor,
                   (double[]){ 0.43756097359178037, 0.5558242073847082 }, 2, 1e-6);
    f2b_check_near(list.items[TEMPERATURE].tensor, (double[]){ log(0.01) }, 1, 1e-6);
    f2b_check_near(o->m[B], (double[]){ 0.124454553, -0.062227277 }, 2, 1e-7);
    f2b_check_near(o->v[B], (double[]){ 0.000628650, 0.000157163 }, 2, 1e-8);
    const int64_t updates[] = { 5, 3, 5, 5, 5 };
    assert_memory_equal(o->updates, updates, sizeof updates);
    f2b_optimizer_free(o);
    f2b_config_free(config);
    f2b_parameters_clear(&list);
}

/* One bad number anywhere: no tensor, moment or count changes. */
static void bad_numbers_change_nothing(void **state)
{
    (void)state;
    const float bad[] = { NAN, INFINITY, -INFINITY };
    f2b_config *config = five_of_ten();
    for (int i = 0; i < 3; i++) {
        f2b_parameters list = registry(), fresh = registry();
        f2b_optimizer *o = f2b_optimizer_new(&list);
        assert_non_null(o);
        set_gradients(&list, 0);
        ((float *)list.items[SUMMARY].tensor->grad)[1] = bad[i];
        f2b_update update;
        assert_int_equal(f2b_optimizer_update(o, config, 5, 10, &update), F2B_OK);
        assert_false(update.finite);
        for (int k = 0; k < N; k++) {
            const f2b_tensor *t = list.items[k].tensor;
            const float zeros[4] = { 0 };
            assert_memory_equal(t->data, fresh.items[k].tensor->data, f2b_tensor_bytes(t));
            assert_memory_equal(o->m[k]->data, zeros, f2b_tensor_bytes(t));
            assert_memory_equal(o->v[k]->data, zeros, f2b_tensor_bytes(t));
            assert_int_equal(o->updates[k], 0);
        }
        f2b_optimizer_free(o);
        f2b_parameters_clear(&list);
        f2b_parameters_clear(&fresh);
    }
    f2b_config_free(config);
}

/* max_grad_norm 0 leaves gradients as they are; a gradient beyond f32's square is still finite. */
static void clipping(void **state)
{
    (void)state;
    f2b_config *config = config_with("learning_rate: 0.1, warmup_ratio: 0, max_grad_norm: 0, "
                                     "adam: {beta1: 0, beta2: 0}, steps: 10");
    f2b_parameters list = registry();
    f2b_optimizer *o = f2b_optimizer_new(&list);
    f2b_update update;
    assert_non_null(o);
    set_gradient(&list, A, (double[]){ 30, 40, 0, 0 }, 1);
    assert_int_equal(f2b_optimizer_update(o, config, 0, 10, &update), F2B_OK);
    near(update.grad_norm, 50);
    f2b_check_near(o->m[A], (double[]){ 30, 40, 0, 0 }, 4, 1e-6);
    config->train.max_grad_norm = 5;
    assert_int_equal(f2b_optimizer_update(o, config, 1, 10, &update), F2B_OK);
    f2b_check_near(o->m[A], (double[]){ 3, 4, 0, 0 }, 4, 1e-5);
    set_gradient(&list, A, (double[]){ 3e30, 4e30, 0, 0 }, 1);
    assert_int_equal(f2b_optimizer_update(o, config, 2, 10, &update), F2B_OK);
    assert_true(update.finite && fabs(update.grad_norm / 5e30 - 1) < 1e-6);
    f2b_check_near(o->m[A], (double[]){ 3, 4, 0, 0 }, 4, 1e-5);
    f2b_optimizer_free(o);
    f2b_config_free(config);
    f2b_parameters_clear(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schedules), cmocka_unit_test(equals_pytorch),
        cmocka_unit_test(bad_numbers_change_nothing), cmocka_unit_test(clipping),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
