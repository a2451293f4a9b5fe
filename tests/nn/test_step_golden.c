/* The training step on the committed golden cases: losses and every gradient within 1e-4 of the
 * oracle's f64 results, with micro-batches of one sample, of some and of all (tests/oracle/README.md;
 * test_step_parity.py has all cases where Python is there). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/step_case.h"

static double distance(const float *a, const float *b, int64_t n)
{
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)b[i] * b[i];
    }
    return size > 0 ? sqrt(difference / size) : sqrt(difference);
}

static void check_case(const char *name, const char *model, int64_t rows)
{
    static f2b_named_array arrays[F2B_CASE_ARRAYS];
    char config[256], batch[256], expected[256], folder[256];
    snprintf(folder, sizeof folder, "tests/golden/step/models/%s", model);
    snprintf(config, sizeof config, "tests/golden/step/cases/%s/config.yaml", name);
    snprintf(batch, sizeof batch, "tests/golden/step/cases/%s/batch.json", name);
    snprintf(expected, sizeof expected, "tests/golden/step/cases/%s/expected.safetensors", name);
    f2b_step_case *c = f2b_step_case_open(folder, config, batch, rows);
    f2b_step_case_run(c);
    f2b_safetensors *want = f2b_safetensors_open(expected);
    assert_non_null(want);
    const int64_t n = f2b_step_case_arrays(c, arrays);
    assert_int_equal(n, f2b_safetensors_count(want));       /* no gradient is not a zero gradient */
    for (int64_t i = 0; i < n; i++) {
        const f2b_safetensor *t = f2b_safetensors_find(want, arrays[i].name);
        assert_non_null(t);
        assert_int_equal(t->bytes, f2b_named_array_bytes(&arrays[i]));
        const double error = distance(arrays[i].data, t->data, t->bytes / 4);
        if (!(error < 1e-4)) fail_msg("%s, %s: %g", name, arrays[i].name, error);
    }
    f2b_safetensors_close(want);
    f2b_step_case_close(c);
}

static void golden_cases(void **state)
{
    (void)state;
    static const struct { const char *name, *model; } cases[] = {
        { "gqa_conversation", "gqa" }, { "gqa_caption", "gqa" }, { "gqa_both", "gqa" },
        { "gqa_both_system", "gqa" },
        { "odd_both_shared_bidirectional", "odd" }, { "odd_conversation_pre_norm", "odd" },
        { "f16_both_projector", "sharded_f16" },
    };
    static const int64_t rows[] = { 1, 60, INT64_MAX };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int r = 0; r < 3; r++) check_case(cases[i].name, cases[i].model, rows[r]);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(golden_cases) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
