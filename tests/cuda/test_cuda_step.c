/*
 * The whole training step on the CUDA device: the golden cases within their tolerance, and what the
 * method and its settings can be beside the host's losses and gradients, f32 within 3e-5 and bf16 as
 * near to f32 as the host's bf16 is. The bits are the same in every order of blocks and threads, and
 * the host waits once a step.
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

#include "autograd/core/profile.h"
#include "tests/emulation/emulation.h"
#include "tests/support/step_case.h"

static const f2b_device cuda = { F2B_CUDA, 0 };
enum { MOST_OVERRIDES = 4 };

/* A golden case with other settings. */
typedef struct variant {
    const char *name, *model;
    int64_t rows;               /* of a micro-batch */
    const char *overrides[MOST_OVERRIDES];
} variant;

static f2b_step_case *open_case(const variant *v, f2b_device device, bool drawn, const char *more)
{
    char config[256], batch[256], folder[256];
    const char *overrides[MOST_OVERRIDES + 1];
    int n = 0;
    for (int i = 0; i < MOST_OVERRIDES && v->overrides[i] != NULL; i++) overrides[n++] = v->overrides[i];
    if (more != NULL) overrides[n++] = more;
    snprintf(folder, sizeof folder, "tests/golden/step/models/%s", v->model);
    snprintf(config, sizeof config, "tests/golden/step/cases/%s/config.yaml", v->name);
    snprintf(batch, sizeof batch, "tests/golden/step/cases/%s/batch.json", v->name);
    const f2b_case_setting setting = { device, overrides, n, drawn };
    return f2b_step_case_open_as(folder, config, batch, v->rows, &setting);
}

static double length(const float *a, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)a[i] * (double)a[i];
    return sqrt(sum);
}

static double distance(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    return sqrt(sum);
}

/* ---- Golden values ---- */

static void check_golden(const variant *v)
{
    static f2b_named_array arrays[F2B_CASE_ARRAYS];
    char expected[256];
    snprintf(expected, sizeof expected, "tests/golden/step/cases/%s/expected.safetensors", v->name);
    f2b_step_case *c = open_case(v, cuda, false, NULL);
    f2b_step_case_run(c);
    f2b_safetensors *want = f2b_safetensors_open(expected);
    assert_non_null(want);
    const int64_t n = f2b_step_case_arrays(c, arrays);
    assert_int_equal(n, f2b_safetensors_count(want));       /* no gradient is not a zero gradient */
    for (int64_t i = 0; i < n; i++) {
        const f2b_safetensor *t = f2b_safetensors_find(want, arrays[i].name);
        assert_non_null(t);
        assert_int_equal(t->bytes, f2b_named_array_bytes(&arrays[i]));
        const double size = length(t->data, t->bytes / 4);
        const double error = distance(arrays[i].data, t->data, t->bytes / 4) / (size > 0 ? size : 1);
        if (!(error < 1e-4)) fail_msg("%s, %s: %g", v->name, arrays[i].name, error);
    }
    f2b_safetensors_close(want);
    f2b_step_case_close(c);
}

static void golden_cases(void **state)
{
    (void)state;
    static const variant cases[] = {
        { "gqa_conversation", "gqa", INT64_MAX, { NULL } }, { "gqa_caption", "gqa", INT64_MAX, { NULL } },
        { "gqa_both", "gqa", INT64_MAX, { NULL } }, { "gqa_both", "gqa", 60, { NULL } },
        { "gqa_both_system", "gqa", INT64_MAX, { NULL } }, { "gqa_both_system", "gqa", 100, { NULL } },
        { "odd_both_shared_bidirectional", "odd", 1, { NULL } },
        { "odd_conversation_pre_norm", "odd", 60, { NULL } },
        { "f16_both_projector", "sharded_f16", INT64_MAX, { NULL } },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_golden(&cases[i]);
}

/* ---- Beside the host ---- */

static const variant variants[] = {
    { "gqa_both", "gqa", 60, { "lora.dropout=0.3" } },
    { "gqa_both", "gqa", INT64_MAX, { "train.activation_checkpointing=layer", "lora.dropout=0.2" } },
    { "gqa_caption", "gqa", 1, { "method.temperature=learned" } },
    { "gqa_both_system", "gqa", 100, { "train.activation_checkpointing=layer", "lora.dropout=0.3" } },
    { "gqa_both", "gqa", 80, { "method.forward=single", "lora.dropout=0.2", "method.temperature=learned",
                               "train.activation_checkpointing=layer" } },
    { "gqa_conversation", "gqa", INT64_MAX, { "method.forward=base", "method.loss=autoregressive",
                                              "trainable.projector=true" } },
    { "odd_both_shared_bidirectional", "odd", 60, { "trainable.language_model=full" } },
    { "f16_both_projector", "sharded_f16", INT64_MAX, { "trainable.vision_tower=true" } },
    { "gqa_both", "gqa", INT64_MAX, { "model.weights=f16" } },
};

/* Parameters whose gradients are 0 by theory hold noise alone. */
static double noise(const f2b_named_array *arrays, int64_t n)
{
    double largest = 0;
    for (int64_t i = 0; i < n; i++) {
        const double size = length(arrays[i].data, f2b_named_array_count(&arrays[i]));
        if (strncmp(arrays[i].name, "loss", 4) != 0 && size > largest) largest = size;
    }
    return 1e-3 * largest;
}

static void f32_is_the_hosts(void **state)
{
    (void)state;
    static f2b_named_array host[F2B_CASE_ARRAYS], device[F2B_CASE_ARRAYS];
    for (size_t k = 0; k < sizeof variants / sizeof *variants; k++) {
        f2b_step_case *a = open_case(&variants[k], F2B_HOST, true, NULL);
        f2b_step_case *b = open_case(&variants[k], cuda, true, NULL);
        f2b_step_case_run(a);
        f2b_step_case_run(b);
        const int64_t n = f2b_step_case_arrays(a, host);
        assert_int_equal(n, f2b_step_case_arrays(b, device));
        assert_int_equal(a->result.tokens, b->result.tokens);
        for (int64_t i = 0; i < n; i++) {
            const int64_t count = f2b_named_array_count(&host[i]);
            const double size = fmax(length(host[i].data, count), noise(host, n));
            const double error = distance(device[i].data, host[i].data, count) / size;
            assert_string_equal(host[i].name, device[i].name);
            if (!(error < 3e-5)) fail_msg("variant %d, %s: %g", (int)k, host[i].name, error);
        }
        f2b_step_case_close(a);
        f2b_step_case_close(b);
    }
}

/* Losses and gradients in a row; *n of them. */
static float *row_of(const variant *v, f2b_device device, const char *more, int64_t *n)
{
    static f2b_named_array arrays[F2B_CASE_ARRAYS];
    f2b_step_case *c = open_case(v, device, true, more);
    f2b_step_case_run(c);
    const int64_t k = f2b_step_case_arrays(c, arrays);
    float *row = NULL;
    *n = 0;
    for (int64_t i = 0; i < k; i++) {
        const int64_t count = f2b_named_array_count(&arrays[i]);
        row = realloc(row, (size_t)(*n + count) * sizeof *row);
        memcpy(row + *n, arrays[i].data, (size_t)count * sizeof *row);
        *n += count;
    }
    f2b_step_case_close(c);
    return row;
}

static void bf16_is_as_near_as_the_hosts(void **state)
{
    (void)state;
    static const variant cases[] = {
        { "gqa_both", "gqa", 60, { "train.precision=bf16", "model.weights=bf16", "lora.dropout=0.2" } },
        { "gqa_both", "gqa", INT64_MAX, { "train.precision=bf16", "model.weights=nf4" } },
        { "gqa_both_system", "gqa", INT64_MAX, { "train.precision=bf16", "model.weights=bf16" } },
        { "gqa_conversation", "gqa", INT64_MAX, { "train.precision=bf16", "model.weights=int8" } },
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        int64_t n, m;
        float *exact = row_of(&cases[k], F2B_HOST, "train.precision=f32", &n);
        float *host = row_of(&cases[k], F2B_HOST, NULL, &m);
        assert_int_equal(n, m);
        float *device = row_of(&cases[k], cuda, NULL, &m);
        assert_int_equal(n, m);
        const double rounding = distance(host, exact, n) / length(exact, n);
        const double error = distance(device, exact, n) / length(exact, n);
        if (!(rounding < 0.1 && error < 1.5 * rounding + 1e-3))
            fail_msg("case %d: %g from f32 on the device, %g on the host", (int)k, error, rounding);
        free(exact), free(host), free(device);
    }
}

static void order_does_not_matter(void **state)
{
    (void)state;
    static const variant cases[] = {
        { "gqa_both", "gqa", 60, { "lora.dropout=0.3", "method.temperature=learned" } },
        { "gqa_both", "gqa", INT64_MAX, { "train.precision=bf16", "model.weights=bf16" } },
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        int64_t n, m;
        f2b_emulation_set_order(F2B_ASCENDING, 0);
        float *first = row_of(&cases[k], cuda, NULL, &n);
        for (int order = F2B_DESCENDING; order < F2B_EMULATION_ORDERS; order++) {
            f2b_emulation_set_order((f2b_emulation_order)order, 7);
            float *other = row_of(&cases[k], cuda, NULL, &m);
            assert_int_equal(n, m);
            assert_memory_equal(first, other, (size_t)n * sizeof *first);
            free(other);
        }
        free(first);
    }
    f2b_emulation_set_order(F2B_ASCENDING, 0);
}

/* ---- The profile ---- */

/* What the profile says of a step; -1: too many rows. */
static int profile_of(const variant *v, f2b_device device, f2b_profile_row rows[64])
{
    const f2b_profile_row *found;
    f2b_step_case *c = open_case(v, device, true, NULL);
    f2b_profile_enable(true);
    f2b_step_case_run(c);
    f2b_profile_enable(false);
    const int n = f2b_profile_rows(&found);
    if (n <= 64) memcpy(rows, found, (size_t)n * sizeof *rows);
    f2b_profile_reset();
    f2b_step_case_close(c);
    return n <= 64 ? n : -1;
}

static f2b_profile_row *find_row(f2b_profile_row *rows, int n, const char *op, bool backward)
{
    for (int i = 0; i < n; i++)
        if (strcmp(rows[i].name, op) == 0 && rows[i].backward == backward) return &rows[i];
    return NULL;
}

/* down_proj with SwiGLU in it, gated_linear, is one op of the host and two of a device. Of x = silu(gate) * up, which
 * is between those, a device moves more: silu_mul moves 3 x forward, and again in backward, and 5 x backward; linear
 * then 1 and 2 where the host's op moves 2 and 4 for gate and up. Both sides' rows become linear's, as the host's are;
 * how many are left. */
static int to_linear(f2b_profile_row *host, f2b_profile_row *device, int n)
{
    const double forward = find_row(device, n, "silu_mul", false)->bytes;
    const double backward = find_row(device, n, "silu_mul", true)->bytes;
    const double missing[2] = { forward / 3 - backward / 5, 2 * backward / 5 };
    for (int side = 0; side < 2; side++) {
        const f2b_profile_row *gated = find_row(host, n, "gated_linear", side);
        const f2b_profile_row *silu = find_row(device, n, "silu_mul", side);
        f2b_profile_row *to = find_row(host, n, "linear", side);
        const int64_t again = side == 0 ? find_row(host, n, "gated_linear", true)->calls : 0;
        assert_int_equal(silu->calls, gated->calls + again);
        to->calls += gated->calls, to->flops += gated->flops, to->bytes += gated->bytes;
        find_row(device, n, "linear", side)->bytes += missing[side];
    }
    for (int side = 0; side < 2; side++, n--) {
        *find_row(host, n, "gated_linear", side) = host[n - 1];
        *find_row(device, n, "silu_mul", side) = device[n - 1];
    }
    return n;
}

/* The same, but that a device copies keys and values of which sequences share some: two copies an attention,
 * which reads less than twice as many. */
static bool counts_fit(const f2b_profile_row *device, const f2b_profile_row *host, int64_t attentions)
{
    if (device->calls == host->calls && device->bytes == host->bytes) return true;
    if (strcmp(host->name, "attention") == 0)
        return device->calls == host->calls && device->bytes > host->bytes && device->bytes < 2 * host->bytes;
    return strcmp(host->name, "rows_gather") == 0 && device->calls > host->calls &&
           device->calls <= host->calls + 2 * attentions && device->bytes > host->bytes;
}

/* The ops of a step are the host's, and so are their calls, operations and bytes; the seconds are the
 * device's own. */
static void the_profile_counts_what_the_hosts_does(void **state)
{
    (void)state;
    static const variant cases[] = {
        { "gqa_both", "gqa", 60, { "train.activation_checkpointing=layer", "lora.dropout=0.2" } },
        { "f16_both_projector", "sharded_f16", INT64_MAX, { "trainable.vision_tower=true" } },
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        f2b_profile_row host[64], device[64];
        int n = profile_of(&cases[k], F2B_HOST, host);
        assert_true(n > 10);
        assert_int_equal(profile_of(&cases[k], cuda, device), n);
        n = to_linear(host, device, n);
        for (int i = 0; i < n; i++) {
            int j = 0;
            while (j < n && (strcmp(device[j].name, host[i].name) != 0 ||
                             device[j].backward != host[i].backward))
                j++;
            if (j == n) fail_msg("case %d: no %s on the device", (int)k, host[i].name);
            const f2b_profile_row *attention = find_row(host, n, "attention", host[i].backward);
            if (!counts_fit(&device[j], &host[i], attention->calls) ||
                fabs(device[j].flops - host[i].flops) > 1e-9 * host[i].flops ||
                !(device[j].seconds > 0))
                fail_msg("case %d, %s %s: %lld calls, %g operations, %g bytes, %g s; on the host %lld, %g, "
                         "%g", (int)k, host[i].name, host[i].backward ? "backward" : "forward",
                         (long long)device[j].calls, device[j].flops, device[j].bytes,
                         device[j].seconds, (long long)host[i].calls, host[i].flops, host[i].bytes);
        }
    }
}

/* One read of the losses, whatever the micro-batches; nothing else waits, nor is memory asked for once
 * the sizes are known. */
static void the_host_waits_once(void **state)
{
    (void)state;
    static const variant cases[] = {
        { "gqa_both", "gqa", 1, { "lora.dropout=0.3", "train.activation_checkpointing=layer" } },
        { "gqa_both", "gqa", 60, { "method.forward=single", "train.precision=bf16" } },
        { "odd_both_shared_bidirectional", "odd", 60, { "trainable.language_model=full" } },
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        f2b_step_case *c = open_case(&cases[k], cuda, true, NULL);
        f2b_step_case_run(c);
        const f2b_emulation_counts before = f2b_emulation_read_counts();
        f2b_step_case_run(c);
        const f2b_emulation_counts after = f2b_emulation_read_counts();
        assert_int_equal(after.waits - before.waits, 1);
        assert_int_equal(after.host_mallocs - before.host_mallocs, 0);
#if !defined(__SANITIZE_ADDRESS__)
        assert_int_equal(after.mallocs - before.mallocs, 0);
#endif
        assert_true(c->result.micro_batches > 1 && after.launches > before.launches);
        f2b_step_case_close(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_cases),
        cmocka_unit_test(f32_is_the_hosts),
        cmocka_unit_test(bf16_is_as_near_as_the_hosts),
        cmocka_unit_test(order_does_not_matter),
        cmocka_unit_test(the_profile_counts_what_the_hosts_does),
        cmocka_unit_test(the_host_waits_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
