/* Norms of adapters against the product formed in full; charts. */
#include "tests/infer/svg_check.h"

#include <math.h>

#include "data/toy/toy.h"
#include "infer/export_model.h"
#include "infer/inspect/lora_norms.h"
#include "infer/svg/chart.h"
#include "tests/infer/make_run.h"

static char base[96];

static int make_base(void **state)
{
    if (make_temp_folder(state) != 0) return -1;
    f2b_toy_options o = f2b_toy_defaults();
    o.train = o.val = 2;
    o.image_size = 16;
    snprintf(base, sizeof base, "%s/model", temp_folder);
    if (f2b_toy_write(temp_folder, &o, NULL, NULL) != F2B_OK) return -1;
    return make_weights(base, in_temp("model/model.safetensors")) == F2B_OK ? 0 : -1;
}

static f2b_method method_of(f2b_forward forward, f2b_adapters adapters, double alpha)
{
    return (f2b_method){
        .tokens = 4, .prompt = "Summarize.", .forward = forward, .adapters = adapters,
        .temperature = 0.02, .lora = { .r = 3, .alpha = alpha, .targets = 0x7f },
    };
}

/* |s B A| by forming B A. */
static double in_full(f2b_trained *file, const f2b_lora_norm *item, double s)
{
    f2b_named_array a = { 0 }, b = { 0 };
    for (int64_t i = 0; i < f2b_trained_count(file); i++) {
        char name[2][256];
        snprintf(name[0], sizeof name[0], "%s.%s.lora_A", item->module, item->stage);
        snprintf(name[1], sizeof name[1], "%s.%s.lora_B", item->module, item->stage);
        if (strcmp(f2b_trained_name(file, i), name[0]) == 0) assert_ok(f2b_trained_at(file, i, &a));
        if (strcmp(f2b_trained_name(file, i), name[1]) == 0) assert_ok(f2b_trained_at(file, i, &b));
    }
    assert_true(a.data != NULL && b.data != NULL);
    assert_true(a.shape[0] == item->r && a.shape[1] == item->in && b.shape[0] == item->out);
    const float *A = a.data, *B = b.data;
    double sum = 0;
    for (int64_t i = 0; i < item->out; i++)
        for (int64_t j = 0; j < item->in; j++) {
            double x = 0;
            for (int64_t r = 0; r < item->r; r++)
                x += (double)B[i * item->r + r] * (double)A[r * item->in + j];
            sum += x * x;
        }
    return s * sqrt(sum);
}

static void check_run(const char *run, double s, int64_t per_layer)
{
    f2b_lora_norms norms = { 0 };
    assert_ok(f2b_lora_norms_read(run, NULL, NULL, &norms));
    assert_true(norms.scale == s && norms.step == 7);
    f2b_trained *file = f2b_trained_open(run, NULL, NULL, NULL);
    assert_non_null(file);
    int64_t on_layer0 = 0;
    for (int64_t i = 0; i < norms.n; i++) {
        const double want = in_full(file, &norms.items[i], s);
        assert_true(fabs(norms.items[i].norm - want) <= 1e-12 * want);
        on_layer0 += norms.items[i].layer == 0;
        if (i > 0 && norms.items[i].tower == norms.items[i - 1].tower)
            assert_true(norms.items[i].layer >= norms.items[i - 1].layer);
    }
    assert_int_equal(on_layer0, per_layer);
    assert_ok(f2b_lora_norms_draw(&norms, in_temp("norms.svg")));
    char *svg = read_svg(in_temp("norms.svg"));
    assert_true(count_of(svg, "q_proj") == 1 && count_of(svg, "adapter") >= 1);
    f2b_free(svg);
    f2b_trained_close(file);
    f2b_lora_norms_clear(&norms);
}

static void test_against_product(void **state)
{
    (void)state;
    const f2b_method stage = method_of(F2B_FORWARD_DOUBLE, F2B_ADAPTERS_STAGE, 6);
    const f2b_method shared = method_of(F2B_FORWARD_DOUBLE, F2B_ADAPTERS_SINGLE, 1);
    const f2b_method tower = method_of(F2B_FORWARD_SINGLE, F2B_ADAPTERS_STAGE, 3);
    assert_ok(make_run(base, in_temp("stage"), &stage, 3, false, false));
    assert_ok(make_run(base, in_temp("shared"), &shared, 4, false, false));
    assert_ok(make_run(base, in_temp("tower"), &tower, 5, false, false));
    check_run(in_temp("stage"), 2, 14);
    check_run(in_temp("shared"), 1.0 / 3, 7);
    check_run(in_temp("tower"), 1, 13);
}

/* An export has the same, without its base. */
static void test_export(void **state)
{
    (void)state;
    const f2b_method method = method_of(F2B_FORWARD_DOUBLE, F2B_ADAPTERS_STAGE, 6);
    f2b_export_proof proof;
    assert_ok(make_run(base, in_temp("run"), &method, 3, false, false));
    assert_ok(export_run(in_temp("run"), in_temp("export"), &proof));
    f2b_lora_norms a = { 0 }, b = { 0 };
    assert_ok(f2b_lora_norms_read(in_temp("run"), NULL, NULL, &a));
    assert_ok(f2b_lora_norms_read(in_temp("export"), NULL, NULL, &b));
    assert_int_equal(a.n, b.n);
    for (int64_t i = 0; i < a.n; i++) {
        assert_string_equal(a.items[i].module, b.items[i].module);
        assert_true(a.items[i].norm == b.items[i].norm);
    }
    f2b_lora_norms_clear(&a);
    f2b_lora_norms_clear(&b);
}

/* A new adapter changes nothing; a run without adapters is told so. */
static void test_zero_and_none(void **state)
{
    (void)state;
    f2b_method method = method_of(F2B_FORWARD_DOUBLE, F2B_ADAPTERS_STAGE, 6);
    f2b_lora_norms norms = { 0 };
    assert_ok(make_run(base, in_temp("new"), &method, 0, false, false));
    assert_ok(f2b_lora_norms_read(in_temp("new"), NULL, NULL, &norms));
    for (int64_t i = 0; i < norms.n; i++) assert_true(norms.items[i].norm == 0);
    assert_ok(f2b_lora_norms_draw(&norms, in_temp("new.svg")));
    f2b_lora_norms_clear(&norms);
    method.language_model = F2B_LANGUAGE_MODEL_FROZEN;
    assert_ok(make_run(base, in_temp("frozen"), &method, 3, false, false));
    assert_int_equal(f2b_lora_norms_read(in_temp("frozen"), NULL, NULL, &norms), F2B_ERR_DATA);
    assert_failed(F2B_ERR_DATA, "frozen", "no LoRA adapters");
    f2b_lora_norms_clear(&norms);
}

/* ---- Charts ---- */

static void test_chart(void **state)
{
    (void)state;
    enum { N = 20000 };
    static double x[N], y[N];
    for (int i = 0; i < N; i++) x[i] = i + 1, y[i] = i % 7 == 0 ? 5 : sin(i);
    y[3] = NAN, y[4] = INFINITY, y[5] = -1e308;
    const double odd_x[] = { 1 }, odd_y[] = { -2 };
    const f2b_series series[] = { { x, y, N, 0, true }, { odd_x, odd_y, 1, 9, false } };
    const f2b_panel panels[] = { { "first <&>", series, 2 }, { "none", series, 0 } };
    const char *const legend[] = { "run \"a\" \x01\xff<b>", "b" };
    const f2b_chart chart = { .title = "T", .x_label = "step", .legend = legend, .n_legend = 2,
                              .panels = panels, .n_panels = 2, .marks = false };
    assert_ok(f2b_chart_write(&chart, in_temp("chart.svg")));
    char *svg = read_svg(in_temp("chart.svg"));
    assert_non_null(strstr(svg, "run &quot;a&quot; \xef\xbf\xbd\xef\xbf\xbd&lt;b&gt;"));
    assert_non_null(strstr(svg, "first &lt;&amp;&gt;"));
    assert_true(strlen(svg) < 60000); /* not a point for each of the values */
    f2b_free(svg);
    const f2b_chart empty = { .title = "T", .x_label = "x", .panels = panels + 1, .n_panels = 1 };
    assert_int_equal(f2b_chart_write(&empty, in_temp("empty.svg")), F2B_ERR_DATA);
    assert_int_equal(f2b_chart_write(&chart, "/nowhere/x.svg"), F2B_ERR_IO);
}

/* Values that differ by rounding, or not at all, still get axes that end. */
static void test_flat(void **state)
{
    (void)state;
    const double x[] = { 1, 2 };
    const double ys[][2] = { { 0, 0 }, { 1e17, 1e17 + 16 }, { -3, -3 }, { 1e-300, 2e-300 },
                             { -1e299, 1e299 } };
    for (size_t i = 0; i < sizeof ys / sizeof *ys; i++) {
        const f2b_series s = { x, ys[i], 2, 0, false };
        const f2b_panel p = { "p", &s, 1 };
        const f2b_chart c = { .title = "T", .x_label = "x", .panels = &p, .n_panels = 1 };
        assert_ok(f2b_chart_write(&c, in_temp("flat.svg")));
        f2b_free(read_svg(in_temp("flat.svg")));
    }
}

static void test_steps(void **state)
{
    (void)state;
    assert_true(f2b_chart_step(0, 10, 5) == 2);
    assert_true(f2b_chart_step(0, 100, 8) == 10);
    assert_true(fabs(f2b_chart_step(0, 0.31, 5) - 0.05) < 1e-12);
    assert_true(f2b_chart_step(0, 4, 5) == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_product), cmocka_unit_test(test_export),
        cmocka_unit_test(test_zero_and_none), cmocka_unit_test(test_chart),
        cmocka_unit_test(test_flat), cmocka_unit_test(test_steps),
    };
    return cmocka_run_group_tests_name("inspect_norms", tests, make_base, remove_temp_folder);
}
