/*
 * A base whose projector is new (Table 13): a LLaVA folder that lacks its tensors, and a plain
 * Llama with a tower in another folder. Training starts a fresh one where it trains it, else never.
 */
#include <math.h>
#include "tests/support/check_op.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/atomic_file.h"
#include "checkpoints/safetensors.h"
#include "infer/export_merged.h"
#include "tests/support/tiny_world.h"
#include "train/trainer.h"

static char folder[64];

static char noted[512];                 /* the last note */

static void quiet(void *user, const char *text)
{
    (void)user;
    snprintf(noted, sizeof noted, "%s", text);
}
static void step(void *user, const f2b_metrics_row *row, int64_t steps)
{
    (void)user, (void)row, (void)steps;
}
static bool go_on(void *user) { (void)user; return false; }
static const f2b_trainer_events events = { quiet, step, go_on, NULL };

/* run.yaml with overrides (NULL ends them), of which each %s is the test's folder; not opened
 * where that fails. */
static f2b_session *open_run(const char *const *overrides)
{
    char text[8][512], *yaml = f2b_path_join(folder, "run.yaml");
    const char *list[8];
    int n = 0;
    for (; overrides[n] != NULL; n++) {
        const char *mark = strstr(overrides[n], "%s");
        const int before = mark ? (int)(mark - overrides[n]) : (int)strlen(overrides[n]);
        snprintf(text[n], sizeof text[n], "%.*s%s%s", before, overrides[n], mark ? folder : "",
                 mark ? mark + 2 : "");
        list[n] = text[n];
    }
    f2b_config *config = f2b_config_load(yaml, list, n);
    if (config == NULL) fail_msg("%s", f2b_last_error());
    f2b_free(yaml);
    return f2b_session_open(config, F2B_HOST, quiet, NULL);
}
#define OPEN(...) open_run((const char *const[]){ __VA_ARGS__, NULL })

static void train(f2b_session *s)
{
    if (s == NULL || f2b_train_run(s, F2B_RESUME_AUTO, NULL, &events) != F2B_OK)
        fail_msg("%s", f2b_last_error());
}

/* Tensors of `from` whose names begin as in `keep`, into `to`, without the first `cut` letters. */
static void take(const char *from, const char *to, const char *const keep[2], size_t cut)
{
    f2b_model_folder *whole = f2b_model_folder_open(from, NULL);
    char names[256][128], *file = f2b_path_join(to, "model.safetensors");
    f2b_named_array arrays[256];
    int64_t n = 0;
    assert_non_null(whole);
    for (int64_t i = 0; i < f2b_model_folder_count(whole); i++) {
        const char *name = f2b_model_folder_name(whole, i);
        if (strncmp(name, keep[0], strlen(keep[0])) != 0 &&
            (keep[1] == NULL || strncmp(name, keep[1], strlen(keep[1])) != 0))
            continue;
        assert_true(n < 256);
        assert_int_equal(f2b_model_folder_get(whole, i, &arrays[n]), F2B_OK);
        snprintf(names[n], sizeof names[n], "%s", name + cut);
        arrays[n].name = names[n], n++;
    }
    assert_true(n > 0);
    if (f2b_safetensors_write(file, arrays, n, NULL, 0) != F2B_OK) fail_msg("%s", f2b_last_error());
    f2b_model_folder_close(whole);
    f2b_free(file);
}

static void shell(const char *command)
{
    char text[1024];
    snprintf(text, sizeof text, "cd %s && %s", folder, command);
    if (system(text) != 0) fail_msg("%s", text);
}

/* The tiny world, a whole base from it, and what is left of that without a projector. */
static int make_world(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/f2b_projector_XXXXXX");
    if (mkdtemp(folder) == NULL || f2b_tiny_world_write(folder) != F2B_OK) return 1;
    f2b_session *s = OPEN("run.dir=%s/base-run", "method.forward=base", "train.steps=2",
                          "trainable.language_model=full", "trainable.projector=true",
                          "trainable.vision_tower=true");
    train(s);
    f2b_session_close(s);
    char *run = f2b_path_join(folder, "base-run"), *whole = f2b_path_join(folder, "whole");
    f2b_merge_result result;
    if (f2b_export_merged(&(f2b_merge_options){ .from = run, .to = whole, .stage = F2B_STAGE_NONE },
                          &result) != F2B_OK)
        fail_msg("%s", f2b_last_error());
    shell("cp -r model bare && cp -r model vicuna && mkdir clip && "
          "cp model/preprocessor_config.json clip");
    char *bare = f2b_path_join(folder, "bare"), *vicuna = f2b_path_join(folder, "vicuna");
    char *clip = f2b_path_join(folder, "clip");
    take(whole, bare, (const char *const[]){ "language_model.", "vision_tower." }, 0);
    take(whole, vicuna, (const char *const[]){ "language_model.", NULL }, 15);
    take(whole, clip, (const char *const[]){ "vision_tower.", NULL }, 13);
    /* The sizes of tiny_world.c, as their own kinds of folder say them. */
    shell("sed -n '/\"text_config\"/,/}/p' model/config.json | sed '1s/.*/{/; $s/},/}/' "
          ">vicuna/config.json && "
          "sed -n '/\"vision_config\"/,/}/p' model/config.json | sed '1s/.*/{/' >clip/config.json");
    f2b_free(run), f2b_free(whole), f2b_free(bare), f2b_free(vicuna), f2b_free(clip);
    return 0;
}

static int remove_world(void **state)
{
    (void)state;
    return f2b_folder_remove(folder) != F2B_OK;
}

static const f2b_tensor *projector(const f2b_session *s)
{
    const f2b_parameter *p =
        f2b_parameters_find(&s->model->parameters, "multi_modal_projector.linear_1.weight");
    assert_non_null(p);
    assert_int_equal(p->group, F2B_GROUP_PROJECTOR);
    return p->tensor;
}

static void is_refused_where_it_is_frozen(void **state)
{
    (void)state;
    static const char *const why[] = { "has no projector", "trainable.projector: true" };
    f2b_session *bare = OPEN("model.path=%s/bare"), *vicuna;
    assert_null(bare);
    for (int i = 0; i < 2; i++) assert_non_null(strstr(f2b_last_error(), why[i]));
    assert_int_equal(f2b_last_status(), F2B_ERR_FORMAT);
    vicuna = OPEN("model.path=%s/vicuna", "model.vision_path=%s/clip");
    assert_null(vicuna);
    for (int i = 0; i < 2; i++) assert_non_null(strstr(f2b_last_error(), why[i]));
    /* A Llama without a tower at all. */
    assert_null(OPEN("model.path=%s/vicuna", "trainable.projector=true"));
    assert_non_null(strstr(f2b_last_error(), "model.vision_path"));
    /* For use there is no fresh one. */
    char *path = f2b_path_join(folder, "bare");
    assert_null(f2b_trained_model_open(&(f2b_trained_model_options){
        .model = path, .device = F2B_HOST, .compute = F2B_F32, .storage = F2B_F32 }));
    assert_non_null(strstr(f2b_last_error(), why[0]));
    f2b_free(path);
}

/* A part of a projector is a damaged file, whatever is trained. */
static void is_not_mended(void **state)
{
    (void)state;
    shell("cp -r whole part");
    char *whole = f2b_path_join(folder, "whole"), *part = f2b_path_join(folder, "part");
    f2b_model_folder *from = f2b_model_folder_open(whole, NULL);
    char *file = f2b_path_join(part, "model.safetensors");
    f2b_named_array arrays[256];
    int64_t n = 0;
    for (int64_t i = 0; i < f2b_model_folder_count(from); i++)
        if (strcmp(f2b_model_folder_name(from, i), "multi_modal_projector.linear_2.bias") != 0)
            assert_int_equal(f2b_model_folder_get(from, i, &arrays[n++]), F2B_OK);
    assert_int_equal(n, f2b_model_folder_count(from) - 1);
    assert_int_equal(f2b_safetensors_write(file, arrays, n, NULL, 0), F2B_OK);
    f2b_model_folder_close(from);
    assert_null(OPEN("model.path=%s/part", "trainable.projector=true"));
    assert_non_null(strstr(f2b_last_error(), "multi_modal_projector.linear_2.bias is missing"));
    f2b_free(whole), f2b_free(part), f2b_free(file);
}

/* Fresh, trained, used, a base in turn: with LoRA, with the whole language model, by itself. */
static void starts_where_it_is_trained(void **state)
{
    (void)state;
    static const char *const bases[][2] = { { "model.path=%s/bare", "model.vision_path=null" },
                                            { "model.path=%s/vicuna",
                                              "model.vision_path=%s/clip" } };
    float fresh[2][32 * 32];
    for (int i = 0; i < 2; i++) {
        f2b_session *s = OPEN(bases[i][0], bases[i][1], "trainable.projector=true",
                              i ? "run.dir=%s/run-vicuna" : "run.dir=%s/run-bare",
                              "train.projector_learning_rate=0.01");
        if (s == NULL) fail_msg("%s", f2b_last_error());
        assert_non_null(strstr(noted, "has no projector; this run starts with a new one"));
        const f2b_tensor *p = projector(s);
        assert_int_equal(f2b_numel(p), 32 * 32);
        memcpy(fresh[i], p->data, sizeof fresh[i]);
        double squares = 0;
        for (int k = 0; k < 32 * 32; k++) squares += (double)fresh[i][k] * fresh[i][k];
        const double std = sqrt(squares / (32 * 32)), drawn = s->model->config.text.initializer_range;
        assert_true(std > 0.9 * drawn && std < 1.1 * drawn);
        train(s);
        assert_memory_not_equal(fresh[i], p->data, sizeof fresh[i]);
        f2b_session_close(s);
        /* What was trained is a whole model, its projector the trained one. */
        char *run = f2b_path_join(folder, i ? "run-vicuna" : "run-bare");
        f2b_trained_model *t = f2b_trained_model_open(&(f2b_trained_model_options){
            .checkpoint = run, .device = F2B_HOST, .compute = F2B_F32, .storage = F2B_F32 });
        if (t == NULL) fail_msg("%s", f2b_last_error());
        assert_memory_not_equal(fresh[i], t->model->projector.w1->data, sizeof fresh[i]);
        f2b_trained_model_close(t);
        /* And a base for what follows, in which the projector is frozen. */
        char *merged = f2b_path_join(folder, i ? "merged-vicuna" : "merged-bare");
        f2b_merge_result result;
        if (f2b_export_merged(&(f2b_merge_options){ .from = run, .to = merged,
                                                    .stage = F2B_STAGE_GENERATION },
                              &result) != F2B_OK)
            fail_msg("%s", f2b_last_error());
        noted[0] = '\0';
        s = OPEN(i ? "model.path=%s/merged-vicuna" : "model.path=%s/merged-bare");
        if (s == NULL) fail_msg("%s", f2b_last_error());
        assert_string_equal(noted, "");
        f2b_session_close(s);
        f2b_free(run), f2b_free(merged);
    }
    assert_memory_equal(fresh[0], fresh[1], sizeof fresh[0]);
    static const char *const others[] = { "trainable.language_model=full",
                                          "trainable.language_model=frozen",
                                          "method.forward=single", "method.forward=base" };
    for (int i = 0; i < 4; i++) {
        f2b_session *s = OPEN("model.path=%s/bare", "trainable.projector=true", others[i],
                              "train.steps=2", "run.dir=%s/other");
        if (s == NULL) fail_msg("%s", f2b_last_error());
        if (f2b_train_run(s, F2B_RESUME_NONE, NULL, &events) != F2B_OK)
            fail_msg("%s", f2b_last_error());
        f2b_session_close(s);
    }
}

/* The seed decides, so that a run that is stopped starts from the same values. */
static void follows_the_seed(void **state)
{
    (void)state;
    f2b_session *a = OPEN("model.path=%s/bare", "trainable.projector=true", "train.seed=7");
    f2b_session *b = OPEN("model.path=%s/bare", "trainable.projector=true", "train.seed=7");
    f2b_session *c = OPEN("model.path=%s/bare", "trainable.projector=true", "train.seed=8");
    assert_memory_equal(projector(a)->data, projector(b)->data, f2b_tensor_bytes(projector(a)));
    assert_memory_not_equal(projector(a)->data, projector(c)->data, f2b_tensor_bytes(projector(a)));
    f2b_session_close(a);
    f2b_session_close(b);
    f2b_session_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_refused_where_it_is_frozen), cmocka_unit_test(is_not_mended),
        cmocka_unit_test(starts_where_it_is_trained), cmocka_unit_test(follows_the_seed),
    };
    return cmocka_run_group_tests(tests, make_world, remove_world);
}
