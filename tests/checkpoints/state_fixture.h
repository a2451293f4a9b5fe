/* A small training state for the tests: tensors of several ranks, with and without moments. */
#ifndef F2B_TESTS_CHECKPOINTS_STATE_FIXTURE_H
#define F2B_TESTS_CHECKPOINTS_STATE_FIXTURE_H

#include "tests/checkpoints/fixtures.h"

#include "checkpoints/state.h"

enum { FIXTURE_TENSORS = 4 };

typedef struct state_fixture {
    float values[3][FIXTURE_TENSORS][64];       /* parameter, m, v */
    f2b_state_tensor tensors[FIXTURE_TENSORS];
    f2b_attribute attributes[5];
    f2b_state state;
} state_fixture;

/* Every value is a function of step, tensor and place. */
static inline void fill_state(state_fixture *f, int64_t step)
{
    static const char *const names[FIXTURE_TENSORS] = {
        "summary_tokens", "language_model.model.layers.0.self_attn.q_proj.compression.lora_A",
        "log_temperature", "frozen.but.saved",
    };
    static const int64_t shapes[FIXTURE_TENSORS][2] = { { 4, 16 }, { 2, 8 }, { 0, 0 }, { 5, 0 } };
    static const int ranks[FIXTURE_TENSORS] = { 2, 2, 0, 1 };
    memset(f, 0, sizeof *f);
    for (int t = 0; t < FIXTURE_TENSORS; ++t) {
        for (int k = 0; k < 3; ++k)
            for (int i = 0; i < 64; ++i)
                f->values[k][t][i] =
                    (float)step + (float)t * 0.1f + (float)i * 1e-3f + (float)k * 0.7f;
        f->tensors[t].parameter = (f2b_named_array){
            .name = names[t], .dtype = F2B_F32, .ndim = ranks[t],
            .shape = { shapes[t][0], shapes[t][1] }, .data = f->values[0][t] };
        f->tensors[t].m = t == 3 ? NULL : f->values[1][t];
        f->tensors[t].v = t == 3 ? NULL : f->values[2][t];
        f->tensors[t].updates = t == 3 ? 0 : step - t;
    }
    f->attributes[0] =
        (f2b_attribute){ "config", F2B_ATTRIBUTE_TEXT, 0, 0, "summary:\n  tokens: 4\n" };
    f->attributes[1] = (f2b_attribute){ "method", F2B_ATTRIBUTE_TEXT, 0, 0, "{}" };
    f->attributes[2] = (f2b_attribute){ "base_model", F2B_ATTRIBUTE_TEXT, 0, 0, "xxh3:0" };
    f->attributes[3] = (f2b_attribute){ "skipped", F2B_ATTRIBUTE_INTEGER, -7, 0, NULL };
    f->attributes[4] = (f2b_attribute){ "seconds", F2B_ATTRIBUTE_NUMBER, 0, 0.1, NULL };
    f->state = (f2b_state){ step, f->tensors, FIXTURE_TENSORS, f->attributes, 5 };
}

/* The open state is, bit for bit, what fill_state(step) gives. */
static inline void assert_state_is(f2b_state_file *file, int64_t step)
{
    if (!file) fail_msg("%s", f2b_last_error());
    static state_fixture want;
    fill_state(&want, step);
    assert_int_equal(f2b_state_step(file), step);
    assert_int_equal(f2b_state_count(file), FIXTURE_TENSORS);
    for (int t = 0; t < FIXTURE_TENSORS; ++t) {
        const f2b_state_tensor *w = &want.tensors[t];
        const int64_t i = f2b_state_find(file, w->parameter.name);
        assert_true(i >= 0);
        const f2b_state_tensor *have = f2b_state_at(file, i);
        assert_true(f2b_shape_equal(have->parameter.ndim, have->parameter.shape, w->parameter.ndim,
                                    w->parameter.shape));
        const size_t bytes = (size_t)f2b_named_array_bytes(&w->parameter);
        float p[64], m[64], v[64];
        assert_int_equal(f2b_state_has_moments(file, i), w->m != NULL);
        assert_ok(f2b_state_read(file, i, p, w->m ? m : NULL, w->m ? v : NULL));
        assert_memory_equal(p, w->parameter.data, bytes);
        if (!w->m) continue;
        assert_memory_equal(m, w->m, bytes);
        assert_memory_equal(v, w->v, bytes);
        assert_int_equal(have->updates, w->updates);
    }
}

/* Collects what a save or load reports. */
typedef struct notes {
    int n;
    char text[8][512];
} notes;

static inline void take_note(void *user, const char *text)
{
    notes *all = user;
    if (all->n < 8) snprintf(all->text[all->n], sizeof all->text[0], "%s", text);
    ++all->n;
}

#endif
