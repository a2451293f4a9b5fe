/*
 * The state of a run on a device, under emulation: copied beside its work, written by another thread
 * while the device goes on, read back to the bit.
 */
#include "tests/support/check_op.h"

#include <stdlib.h>
#include <string.h>

#include "checkpoints/atomic_file.h"
#include "tests/emulation/emulation.h"
#include "train/saver.h"

enum { TENSORS = 3, PARTS = 3 };                /* a parameter and its moments */

static const f2b_device cuda = { F2B_CUDA, 0 };
static const int64_t rows[TENSORS] = { 5, 1, 700 };
static const char *const names[TENSORS] = { "z.lora_A", "summary_tokens", "a.lora_B" };
static char folder[64];

typedef struct device_run {
    f2b_parameters list;
    f2b_tensor *m[TENSORS], *v[TENSORS];
    int64_t updates[TENSORS];
    f2b_optimizer optimizer;
} device_run;

static f2b_tensor *part(const device_run *r, int64_t i, int k)
{
    return k == 0 ? r->list.items[i].tensor : k == 1 ? r->m[i] : r->v[i];
}

static float value(float first, int64_t i, int k, int64_t at)
{
    return first + (float)i + (float)k / 3 + (float)at / 1024;
}

static void fill(const device_run *r, float first)
{
    for (int64_t i = 0; i < TENSORS; i++)
        for (int k = 0; k < PARTS; k++) {
            float values[2100];
            const int64_t n = f2b_numel(part(r, i, k));
            for (int64_t at = 0; at < n; at++) values[at] = value(first, i, k, at);
            assert_int_equal(f2b_tensor_write(part(r, i, k), values), F2B_OK);
        }
}

static void open_device_run(device_run *r)
{
    memset(r, 0, sizeof *r);
    for (int64_t i = 0; i < TENSORS; i++) {
        const int64_t shape[] = { rows[i], 3 };
        f2b_tensor *t = f2b_tensor_new(cuda, F2B_F32, 2, shape, F2B_TAG_PARAMETERS);
        r->m[i] = f2b_tensor_new(cuda, F2B_F32, 2, shape, F2B_TAG_OPTIMIZER);
        r->v[i] = f2b_tensor_new(cuda, F2B_F32, 2, shape, F2B_TAG_OPTIMIZER);
        assert_true(t != NULL && r->m[i] != NULL && r->v[i] != NULL);
        assert_int_equal(f2b_parameters_add(&r->list, t, names[i], F2B_GROUP_LORA, true), F2B_OK);
        r->updates[i] = 10 + i;
    }
    r->optimizer.parameters = &r->list;
    r->optimizer.m = r->m, r->optimizer.v = r->v, r->optimizer.updates = r->updates;
}

static void close_device_run(device_run *r)
{
    for (int i = 0; i < TENSORS; i++) f2b_tensor_free(r->m[i]), f2b_tensor_free(r->v[i]);
    f2b_parameters_clear(&r->list);
}

static f2b_config *config_of_folder(void)
{
    char *text = f2b_sprintf(F2B_TAG_OTHER, "model: {path: base}\nrun: {dir: %s, keep: 2}\n"
                             "data: {conversations: [{path: c}]}\ntrain: {steps: 10}\n"
                             "method: {loss: autoregressive}\n", folder);
    f2b_config *config = f2b_config_parse(text, "x", "/somewhere", NULL, 0);
    f2b_free(text);
    if (config == NULL) fail_msg("%s", f2b_last_error());
    return config;
}

static void quiet(void *user, const char *text) { (void)user, (void)text; }

static void is_what_was_saved(const f2b_config *config, int64_t step, float first)
{
    device_run r;
    f2b_run_position at;
    open_device_run(&r);
    f2b_state_file *file = f2b_state_open(folder, NULL, NULL);
    if (file == NULL ||
        f2b_checkpoint_resume(file, config, "base-1", &r.list, &r.optimizer, &at) != F2B_OK)
        fail_msg("%s", f2b_last_error());
    f2b_state_close(file);
    assert_int_equal(at.step, step);
    for (int64_t i = 0; i < TENSORS; i++)
        for (int k = 0; k < PARTS; k++) {
            float values[2100];
            assert_int_equal(f2b_tensor_read(part(&r, i, k), values), F2B_OK);
            for (int64_t j = 0; j < f2b_numel(part(&r, i, k)); j++)
                assert_true(values[j] == value(first, i, k, j));
        }
    close_device_run(&r);
}

static void saved_while_the_device_goes_on(void **state)
{
    (void)state;
    f2b_config *config = config_of_folder();
    device_run r;
    open_device_run(&r);
    f2b_snapshot *snapshot = f2b_snapshot_new(config, "base-1", &r.list, &r.optimizer);
    const f2b_saver_events events = { quiet, NULL, NULL };
    f2b_saver *saver = f2b_saver_new(snapshot, &events);
    assert_true(snapshot != NULL && saver != NULL);
    for (int64_t step = 1; step <= 3; step++) {
        fill(&r, (float)step);
        const int64_t waits = f2b_emulation_read_counts().waits;
        assert_int_equal(f2b_snapshot_take(snapshot, &(f2b_run_position){ step, 0, 0 }, true), F2B_OK);
        assert_int_equal(f2b_emulation_read_counts().waits, waits);     /* the host does not wait */
        assert_int_equal(f2b_emulation_read_counts().pinned, 1);
        assert_int_equal(f2b_saver_save(saver, &(f2b_run_position){ step, 0, 0 }, true), F2B_OK);
        fill(&r, -1);                                       /* the next update */
        if (f2b_saver_wait(saver) != F2B_OK) fail_msg("%s", f2b_last_error());
        is_what_was_saved(config, step, (float)step);
    }
    fill(&r, 9);
    assert_int_equal(f2b_saver_save(saver, &(f2b_run_position){ 4, 0, 0 }, false), F2B_OK);
    is_what_was_saved(config, 4, 9);
    f2b_saver_free(saver);
    f2b_snapshot_free(snapshot);
    assert_int_equal(f2b_emulation_read_counts().pinned, 0);
    close_device_run(&r);
    f2b_config_free(config);
}

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/f2b_cuda_checkpoint_XXXXXX");
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    (void)state;
    return f2b_folder_remove(folder) != F2B_OK;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(saved_while_the_device_goes_on) };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
