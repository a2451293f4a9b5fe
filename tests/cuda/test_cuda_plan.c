/*
 * A run on a device: its steps wait once each. Its memory plan: what is planned for each tag is what the
 * device's memory then holds at most, to 5 %, and what the pool asks of CUDA stays within what is said to
 * be held; layers are computed again where the device is small.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/device/device.h"
#include "tests/emulation/emulation.h"
#include "tests/support/tiny_world.h"
#include "train/trainer.h"

static const f2b_device cuda = { F2B_CUDA, 0 };
static char folder[] = "/tmp/cuda_plan_XXXXXX";
enum { MOST_OVERRIDES = 12 };

static void quiet(void *user, const char *text) { (void)user, (void)text; }
static bool go_on(void *user) { (void)user; return false; }
static int64_t waits[16];           /* of the host, up to the end of each step of the last run */
static void on_step(void *user, const f2b_metrics_row *row, int64_t steps)
{
    (void)user, (void)steps;
    assert_in_range(row->step, 1, 15);
    waits[row->step] = f2b_emulation_read_counts().waits;
    assert_true(row->peak_bytes > 0 && row->peak_bytes <= f2b_bytes_peak_of(F2B_CUDA, F2B_TAG_COUNT));
}

static const f2b_trainer_events events = { .note = quiet, .step = on_step, .stop = go_on };

/* `also` is overrides divided by spaces. */
static f2b_session *open_run_on(f2b_device device, const char *also)
{
    char yaml[64], text[512], *rest = text;
    const char *list[MOST_OVERRIDES];
    int n = 0;
    snprintf(yaml, sizeof yaml, "%s/run.yaml", folder);
    snprintf(text, sizeof text, "train.steps=4 %s", also);
    for (char *one; (one = strtok_r(rest, " ", &rest)) != NULL;) {
        assert_true(n < MOST_OVERRIDES);
        list[n++] = one;
    }
    f2b_config *config = f2b_config_load(yaml, list, n);
    if (config == NULL) fail_msg("%s: %s", also, f2b_last_error());
    f2b_session *s = f2b_session_open(config, device, quiet, NULL);
    if (s == NULL) fail_msg("%s: %s", also, f2b_last_error());
    return s;
}

static f2b_session *open_run(const char *also) { return open_run_on(cuda, also); }

static void compare(f2b_device device, const char *what)
{
    f2b_alloc_trim();
    f2b_bytes_peak_reset();
    f2b_session *s = open_run_on(device, what);
    const f2b_memory_plan *plan = &s->memory;
    if (f2b_train_run(s, F2B_RESUME_NONE, NULL, &events) != F2B_OK)
        fail_msg("%s: %s", what, f2b_last_error());
    assert_int_equal(plan->kind, F2B_CUDA);
    for (int tag = 0; tag <= F2B_TAG_COUNT; tag++) {
        const int64_t fact = f2b_bytes_peak_of(F2B_CUDA, (f2b_tag)tag);
        const int64_t slack = tag == F2B_TAG_OTHER || tag == F2B_TAG_SCRATCH ? 16 << 10 : 0;
        if (llabs(plan->peak[tag] - fact) > fact / 20 + slack)
            fail_msg("%s: %s was planned as %lld, and is %lld", what, f2b_tag_name((f2b_tag)tag),
                     (long long)plan->peak[tag], (long long)fact);
    }
    const int64_t held = (int64_t)f2b_emulation_read_counts().bytes;
    if (held > f2b_memory_held(F2B_CUDA, plan->peak[F2B_TAG_COUNT]))
        fail_msg("%s: the device holds %lld bytes", what, (long long)held);
    f2b_session_close(s);
}

static void the_plan_is_what_comes(void **state)
{
    (void)state;
    static const char *const runs[] = {
        "train.precision=f32",
        "train.precision=bf16 model.weights=bf16 lora.r=16 train.micro_batch_tokens=1000",
        "train.precision=bf16 model.weights=nf4 train.activation_checkpointing=layer lora.dropout=0",
        "trainable.language_model=full trainable.projector=true trainable.vision_tower=true",
        "method.forward=single sampler.contrastive_batch=12",
    };
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) compare(cuda, runs[i]);
}

/* Of which one that is not sm_90 applies scales after the product. Each is a device of its own, because what
 * cuBLASLt takes is remembered. */
static void so_it_is_with_fp8(void **state)
{
    (void)state;
    static const char run[] = "train.precision=fp8 model.weights=bf16 train.micro_batch_tokens=2000";
    static const char *const also[] = {
        "", "lora.dropout=0 train.activation_checkpointing=layer",
        "method.loss=contrastive sampler.contrastive_batch=24",     /* without a head, whose logits hide it */
    };
    static const int capabilities[] = { 90, 89 };
    f2b_emulation_set_devices(2);
    for (int device = 0; device < 2; device++) {
        f2b_emulation_set_capability(capabilities[device]);
        for (size_t i = 0; i < sizeof also / sizeof *also; i++) {
            char text[256];
            snprintf(text, sizeof text, "%s %s", run, also[i]);
            compare((f2b_device){ F2B_CUDA, device }, text);
        }
    }
    f2b_emulation_set_capability(90);
    f2b_emulation_set_devices(1);
}

/* For the losses of all micro-batches and the norm together: from batch to update, GradCache or not. */
static void a_step_waits_once(void **state)
{
    (void)state;
    f2b_session *s = open_run("run.save_every=0 train.steps=6 train.micro_batch_tokens=60 "
                              "train.activation_checkpointing=layer method.temperature=learned");
    if (f2b_train_run(s, F2B_RESUME_NONE, NULL, &events) != F2B_OK) fail_msg("%s", f2b_last_error());
    for (int step = 2; step <= 6; step++) assert_int_equal(waits[step] - waits[step - 1], 1);
    f2b_session_close(s);
}

static void a_small_device_computes_layers_again(void **state)
{
    (void)state;
    f2b_session *s = open_run("train.micro_batch_tokens=2000");
    assert_int_equal(s->memory.checkpoint_layers, 0);
    const int64_t none = f2b_memory_held(F2B_CUDA, s->memory.most);
    f2b_session_close(s);
    f2b_alloc_trim();
    f2b_emulation_set_memory(f2b_emulation_read_counts().bytes + (size_t)none - 1);
    s = open_run("train.micro_batch_tokens=2000");
    assert_true(s->memory.checkpoint_layers > 0 && !s->memory.limited);
    f2b_session_close(s);
    f2b_emulation_set_memory((size_t)1 << 20);
    s = open_run("train.micro_batch_tokens=100");
    assert_int_equal(f2b_train_run(s, F2B_RESUME_NONE, NULL, &events), F2B_ERR_MEMORY);
    assert_non_null(strstr(f2b_last_error(), "what the device has"));
    f2b_session_close(s);
    f2b_emulation_set_memory((size_t)8 << 30);
}

static int make_world(void **state)
{
    (void)state;
    return mkdtemp(folder) != NULL && f2b_tiny_world_write(folder) == F2B_OK ? 0 : -1;
}

static int remove_world(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(the_plan_is_what_comes),
                                        cmocka_unit_test(so_it_is_with_fp8),
                                        cmocka_unit_test(a_step_waits_once),
                                        cmocka_unit_test(a_small_device_computes_layers_again) };
    return cmocka_run_group_tests(tests, make_world, remove_world);
}
