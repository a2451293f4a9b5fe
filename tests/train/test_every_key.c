/*
 * No key is accepted and ignored: for every key of the table, a run with another value of it differs
 * in what the key is for. A key that is new in the table fails here until it has a line.
 */
#include "tests/support/check_op.h"

#include <dirent.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "autograd/core/rng.h"
#include "checkpoints/atomic_file.h"
#include "data/image/image.h"
#include "tests/support/tiny_world.h"
#include "train/config_internal.h"
#include "train/trainer.h"

/* What of a run is compared. */
typedef enum aspect {
    VALUES,         /* losses, gradients, and what was trained */
    RATES,          /* lr of each step */
    BATCHES,        /* kind, samples, labelled tokens of each step */
    STEPS,          /* how many */
    NAMES,          /* what is trained */
    QUESTIONS,      /* how often the run asks whether to stop: micro-batches */
    THREADS,        /* of this process, at the last step */
    MEMORY,         /* layers are computed again */
    CHECKPOINTS,    /* in the run folder */
    LOG,            /* lines of metrics.jsonl without what the clock says */
    EVALUATIONS,
    FEATURES,       /* files of DIR/features */
    STATUS,         /* how the run ends */
    ASPECTS
} aspect;

typedef struct observation {
    f2b_text is[ASPECTS];
} observation;

static char folder[64];
static observation *current;
static int64_t questions;

static void add(aspect which, const char *format, ...) F2B_PRINTF(2, 3);
static void add(aspect which, const char *format, ...)
{
    char text[512];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (f2b_text_add(&current->is[which], text) != F2B_OK) fail_msg("%s", f2b_last_error());
}

static int64_t entries(const char *path)
{
    DIR *dir = opendir(path);
    int64_t n = 0;
    while (dir != NULL && readdir(dir) != NULL) n++;
    if (dir != NULL) closedir(dir);
    return n;
}

static void quiet(void *user, const char *text) { (void)user, (void)text; }

static void on_step(void *user, const f2b_metrics_row *row, int64_t steps)
{
    (void)user;
    add(VALUES, "%.9g %.9g %.9g\n", row->loss_ar, row->loss_disc, row->grad_norm);
    add(RATES, "%.9g\n", row->lr);
    add(BATCHES, "%d %lld %lld\n", (int)row->kind, (long long)row->samples,
        (long long)row->labelled_tokens);
    if (row->step < steps) return;
    add(STEPS, "%lld", (long long)steps);
    add(THREADS, "%lld", (long long)entries("/proc/self/task"));
}

static bool asked(void *user)
{
    (void)user;
    questions++;
    return false;
}

static const f2b_trainer_events events = { quiet, on_step, asked, NULL };

static void add_file(aspect which, const char *run, const char *name)
{
    char *path = f2b_path_join(run, name), *text = f2b_read_file(path, 1 << 20, NULL);
    for (char *line = text; line != NULL && *line != '\0';) {
        char *end = strchr(line, '\n'), *clock = strstr(line, "\"seconds\""),
             *ids = strstr(line, "\"sample_ids\"");
        if (clock == NULL || clock > end) clock = end;
        add(which, "%.*s", (int)(clock - line), line);
        if (ids != NULL && ids < end) add(which, "ids");
        add(which, "\n");
        line = end + 1;
    }
    f2b_free(text);
    f2b_free(path);
}

static void add_folder(aspect which, const char *run, const char *name)
{
    char *path = f2b_path_join(run, name);
    DIR *dir = opendir(path);
    for (const struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;)
        if (e->d_name[0] != '.') add(which, "%s\n", e->d_name);
    if (dir != NULL) closedir(dir);
    f2b_free(path);
}

static void add_parameters(const f2b_parameters *list)
{
    for (int64_t i = 0; i < list->n; i++) {
        const f2b_tensor *t = list->items[i].tensor;
        uint64_t hash = 0;
        for (int64_t k = 0; k < f2b_numel(t); k++)
            hash = f2b_hash_mix(hash ^ ((const uint32_t *)t->data)[k]);
        add(NAMES, "%s %lld\n", t->name, (long long)f2b_numel(t));
        add(VALUES, "%llx\n", (unsigned long long)hash);
    }
}

/* Run with `also` (overrides divided by `; `, or NULL) and one more (or NULL); each DIR in them is
 * the test's folder. */
static void observe(observation *o, const char *also, const char *one)
{
    char texts[8][512], *yaml = f2b_path_join(folder, "run.yaml"), run[128];
    const char *list[8];
    int n = 0;
    snprintf(run, sizeof run, "%s/run", folder);
    for (const char *from = also; from != NULL; n++) {
        const char *end = strstr(from, "; ");
        snprintf(texts[n], sizeof texts[n], "%.*s", end ? (int)(end - from) : 400, from);
        from = end ? end + 2 : NULL;
    }
    if (one != NULL) snprintf(texts[n++], sizeof texts[0], "%s", one);
    for (int i = 0; i < n; i++) {
        for (char *dir; (dir = strstr(texts[i], "DIR")) != NULL;) {
            char rest[512];
            strcpy(rest, dir + 3);
            snprintf(dir, sizeof texts[i] - (size_t)(dir - texts[i]), "%s%s", folder, rest);
        }
        list[i] = texts[i];
        if (strncmp(texts[i], "run.dir=", 8) == 0) snprintf(run, sizeof run, "%s", texts[i] + 8);
    }
    *o = (observation){ 0 };
    current = o, questions = 0;
    f2b_config *config = f2b_config_load(yaml, list, n);
    if (config == NULL) fail_msg("%s: %s", one, f2b_last_error());
    f2b_session *s = f2b_session_open(config, F2B_HOST, quiet, NULL);
    if (s == NULL) fail_msg("%s: %s", one, f2b_last_error());
    const f2b_status status = f2b_train_run(s, F2B_RESUME_NONE, NULL, &events);
    add(STATUS, "%d", (int)status);
    add(QUESTIONS, "%lld", (long long)questions);
    add(MEMORY, "%lld", (long long)s->memory.checkpoint_layers);
    add_parameters(&s->model->parameters);
    add_file(LOG, run, "metrics.jsonl");
    add_file(EVALUATIONS, run, "evaluations.jsonl");
    add_folder(CHECKPOINTS, run, "checkpoints");
    add_folder(FEATURES, folder, "features");
    f2b_session_close(s);
    if (f2b_folder_remove(run) != F2B_OK) fail_msg("%s", f2b_last_error());
    f2b_free(yaml);
}

static void forget(observation *o)
{
    for (int i = 0; i < ASPECTS; i++) f2b_text_free(&o->is[i]);
}

#define WIDE                                                                                       \
    "data.conversations=[{path: DIR/train.json, images: DIR/wide}]; data.captions=[{path: "        \
    "DIR/captions_train.tsv, images: DIR/wide}]"
#define BAD                                                                                        \
    "data.conversations=[{path: DIR/bad.json, images: DIR/images}]; "                              \
    "data.conversation_captions=[]; train.steps=24"

#define TWICE                                                                                      \
    "data.conversations=[{path: DIR/train.json, images: DIR/images}, {path: DIR/train.json, "      \
    "images: DIR/images}]; data.conversation_captions=[]"

static const struct {
    const char *key, *value, *also;
    aspect aspect;
} cases[] = {
    { "model.path", "DIR/other", NULL, VALUES },
    { "model.vision_path", "DIR/clip", NULL, VALUES },
    { "model.weights", "bf16", NULL, VALUES },
    { "model.weights", "int8", NULL, VALUES },
    { "model.weights", "nf4", NULL, VALUES },
    { "model.image_aspect_ratio", "crop", WIDE, VALUES },
    { "summary.tokens", "3", NULL, NAMES },
    { "summary.prompt", "What?", NULL, VALUES },
    { "summary.template", "plain", NULL, VALUES },
    { "summary.attention", "bidirectional", NULL, VALUES },
    { "summary.hidden_state", "pre_norm", NULL, VALUES },
    { "summary.init", "vocabulary", NULL, VALUES },
    { "method.forward", "single", NULL, NAMES },
    { "method.loss", "contrastive", NULL, BATCHES },
    { "method.adapters", "single", NULL, NAMES },
    { "method.temperature", "learned", NULL, NAMES },
    { "method.temperature", "0.5", NULL, VALUES },
    { "trainable.language_model", "full", NULL, NAMES },
    { "trainable.projector", "true", NULL, NAMES },
    { "trainable.vision_tower", "true", NULL, NAMES },
    { "trainable.start_from", "DIR/start", NULL, VALUES },
    { "lora.r", "3", NULL, NAMES },
    { "lora.alpha", "9", NULL, VALUES },
    { "lora.dropout", "0", NULL, VALUES },
    { "lora.targets", "[q_proj, down_proj]", NULL, NAMES },
    { "data.conversations", "[{path: DIR/val.json, images: DIR/images}]",
      "data.conversation_captions=[]", VALUES },
    { "data.captions", "[]", NULL, BATCHES },
    { "data.conversation_captions", "[]", NULL, BATCHES },
    { "data.max_length", "28", "data.max_bad_fraction=1", BATCHES },
    { "data.max_caption_length", "2", NULL, VALUES },
    { "data.bad_records", "error", BAD "; data.max_bad_fraction=1", STATUS },
    { "data.max_bad_fraction", "1", BAD, STATUS },
    { "data.workers", "5", NULL, THREADS },
    { "data.feature_cache", "DIR/features", NULL, FEATURES },
    { "sampler.conversation_batch", "3", NULL, BATCHES },
    { "sampler.contrastive_batch", "6", NULL, BATCHES },
    { "sampler.ratio", "4", NULL, BATCHES },
    { "sampler.group_images", "true", TWICE, VALUES },
    { "train.epochs", "2", NULL, STEPS },
    { "train.steps", "4", NULL, STEPS },
    { "train.learning_rate", "0.02", NULL, RATES },
    { "train.learning_rate", "0.02", NULL, VALUES },
    { "train.projector_learning_rate", "0.1", "trainable.projector=true", VALUES },
    { "train.lr_scheduler", "constant", NULL, RATES },
    { "train.warmup_ratio", "0.5", NULL, RATES },
    { "train.weight_decay", "0.5", NULL, VALUES },
    { "train.adam.beta1", "0.5", NULL, VALUES },
    { "train.adam.beta2", "0.5", NULL, VALUES },
    { "train.adam.eps", "0.1", NULL, VALUES },
    { "train.max_grad_norm", "0.01", NULL, VALUES },
    { "train.precision", "bf16", NULL, VALUES },
    { "train.micro_batch_tokens", "10000", NULL, QUESTIONS },
    { "train.activation_checkpointing", "layer", NULL, MEMORY },
    { "train.memory_limit", "1MiB", NULL, STATUS },
    { "train.seed", "5", NULL, VALUES },
    { "run.dir", "DIR/elsewhere", NULL, ASPECTS },          /* observe() looks there */
    { "run.save_every", "2", NULL, CHECKPOINTS },
    { "run.keep", "1", "run.save_every=1", CHECKPOINTS },
    { "run.log_every", "3", NULL, LOG },
    { "run.eval_every", "2", NULL, EVALUATIONS },
    { "run.log_sample_ids", "true", NULL, LOG },
};

/* The values may change what is named, but not these. */
static const struct {
    const char *key;
    aspect same;
} keeps[] = {
    { "train.activation_checkpointing", VALUES }, { "data.workers", VALUES },
    { "data.feature_cache", VALUES }, { "data.feature_cache", BATCHES },
    { "data.feature_cache", QUESTIONS },
    { "run.dir", VALUES }, { "run.dir", LOG }, { "run.save_every", VALUES },
    { "run.eval_every", VALUES }, { "run.log_every", VALUES }, { "run.log_sample_ids", VALUES },
    { "train.micro_batch_tokens", BATCHES }, { "train.lr_scheduler", BATCHES },
    { "lora.dropout", BATCHES }, { "method.temperature", BATCHES }, { "model.weights", BATCHES },
};

static void every_key_is_here(void **state)
{
    (void)state;
    for (int i = 0; i < f2bi_n_fields; i++) {
        bool found = false;
        for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
            found = found || strcmp(cases[c].key, f2bi_fields[i].name) == 0;
        if (!found) fail_msg("%s is a key without a test of its effect", f2bi_fields[i].name);
    }
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        assert_true(f2bi_field_find(cases[c].key) >= 0);
}

static const char *text_of(const observation *o, aspect which)
{
    return o->is[which].n > 0 ? o->is[which].text : "";
}

static void every_key_has_its_effect(void **state)
{
    (void)state;
    observation plain, with, base;
    observe(&plain, NULL, NULL);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        char one[512];
        snprintf(one, sizeof one, "%s=%s", cases[c].key, cases[c].value);
        if (cases[c].also != NULL) observe(&base, cases[c].also, NULL);
        observe(&with, cases[c].also, one);
        const observation *before = cases[c].also != NULL ? &base : &plain;
        if (cases[c].aspect != ASPECTS &&
            strcmp(text_of(before, cases[c].aspect), text_of(&with, cases[c].aspect)) == 0)
            fail_msg("%s makes no difference to %d:\n%s", one, cases[c].aspect,
                     text_of(&with, cases[c].aspect));
        for (size_t k = 0; k < sizeof keeps / sizeof *keeps; k++)
            if (strcmp(keeps[k].key, cases[c].key) == 0 &&
                strcmp(text_of(before, keeps[k].same), text_of(&with, keeps[k].same)) != 0)
                fail_msg("%s makes a difference to %d:\n%s\n%s", one, keeps[k].same,
                         text_of(before, keeps[k].same), text_of(&with, keeps[k].same));
        forget(&with);
        if (cases[c].also != NULL) forget(&base);
    }
    forget(&plain);
}

/* ---- The world, with what some keys need ---- */

static void edit(const char *name, const char *from, const char *to)
{
    char *path = f2b_path_join(folder, name), *text = f2b_read_file(path, 1 << 20, NULL);
    char *at = text != NULL ? strstr(text, from) : NULL;
    if (at == NULL) fail_msg("%s has no %s", name, from);
    char *edited = f2b_sprintf(F2B_TAG_OTHER, "%.*s%s%s", (int)(at - text), text, to,
                               at + strlen(from));
    assert_int_equal(f2b_write_file(path, edited, strlen(edited)), F2B_OK);
    f2b_free(edited);
    f2b_free(text);
    f2b_free(path);
}

/* The pictures of the world with their lower half cut off: pad and crop differ. */
static void write_wide(void)
{
    char *from = f2b_path_join(folder, "images"), *to = f2b_path_join(folder, "wide");
    assert_int_equal(f2b_make_folders(to), F2B_OK);
    DIR *dir = opendir(from);
    for (const struct dirent *e; (e = readdir(dir)) != NULL;) {
        if (e->d_name[0] == '.') continue;
        char *a = f2b_path_join(from, e->d_name), *b = f2b_path_join(to, e->d_name);
        f2b_image image;
        assert_int_equal(f2b_image_open(a, &image), F2B_OK);
        assert_int_equal(f2b_image_write_png(b, image.rgb, (int)image.width, (int)image.height / 2),
                         F2B_OK);
        f2b_image_free(&image);
        f2b_free(a), f2b_free(b);
    }
    closedir(dir);
    f2b_free(from), f2b_free(to);
}

static int make_world(void **state)
{
    (void)state;
    /* In memory where the system has that: sixty runs sync their files. */
    strcpy(folder, access("/dev/shm", W_OK) == 0 ? "/dev/shm/f2b_keys_XXXXXX"
                                                 : "/tmp/f2b_keys_XXXXXX");
    omp_set_num_threads(1);             /* so small a model's threads only wait for each other */
    if (mkdtemp(folder) == NULL || f2b_tiny_world_write(folder) != F2B_OK) return 1;
    edit("run.yaml", "steps: 16", "steps: 5");
    edit("run.yaml", "save_every: 2", "save_every: 0");
    char command[512];
    snprintf(command, sizeof command, "cd %s && cp -r model other && mkdir clip && "
             "cp model/preprocessor_config.json clip && "
             "sed -n '/\"vision_config\"/,/}/p' model/config.json | sed '1s/.*/{/' "
             ">clip/config.json", folder);
    assert_int_equal(system(command), 0);
    edit("other/config.json", "1e-05", "1e-02");
    edit("clip/config.json", "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4");
    write_wide();
    /* One record of four has no answer. */
    static const char bad[] =
        "[{\"id\": 0, \"conversations\": [{\"from\": \"human\", \"value\": \"What?\"}]},\n"
        " {\"id\": 1, \"conversations\": [{\"from\": \"human\", \"value\": \"What?\"}, {\"from\": "
        "\"gpt\", \"value\": \"red\"}]}]";
    char *path = f2b_path_join(folder, "bad.json");
    assert_int_equal(f2b_write_file(path, bad, sizeof bad - 1), F2B_OK);
    f2b_free(path);
    /* What trainable.start_from starts from: a run of its own. */
    char *yaml = f2b_path_join(folder, "run.yaml");
    char *dir = f2b_sprintf(F2B_TAG_OTHER, "run.dir=%s/start", folder);
    const char *overrides[] = { dir, "train.seed=9" };
    observation o = { 0 };
    current = &o;
    f2b_config *config = f2b_config_load(yaml, overrides, 2);
    assert_non_null(config);
    f2b_session *s = f2b_session_open(config, F2B_HOST, quiet, NULL);
    assert_non_null(s);
    assert_int_equal(f2b_train_run(s, F2B_RESUME_NONE, NULL, &events), F2B_OK);
    f2b_session_close(s);
    forget(&o);
    f2b_free(yaml), f2b_free(dir);
    return 0;
}

static int remove_world(void **state)
{
    (void)state;
    return f2b_folder_remove(folder) != F2B_OK;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_key_is_here), cmocka_unit_test(every_key_has_its_effect),
    };
    return cmocka_run_group_tests(tests, make_world, remove_world);
}
