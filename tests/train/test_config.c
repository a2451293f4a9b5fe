/* The configuration: layers, types, messages with places, overrides, paths, round trip, resume; and
 * that the committed recipes and reference page are what the table says. */
#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"
#include "train/config.h"
#include "train/config_internal.h"

#define LEAST                                                                                      \
    "model: {path: base}\nrun: {dir: runs/a}\n"                                                    \
    "data: {conversations: [{path: c.json, images: pics/}], captions: [{path: \"{0..9}.tar\"}]}\n"

static f2b_config *parse(const char *text, const char *const *overrides)
{
    int64_t n = 0;
    while (overrides != NULL && overrides[n] != NULL) n++;
    return f2b_config_parse(text, "x.yaml", "/home/u/configs", overrides, n);
}

static f2b_config *good(const char *text, const char *const *overrides)
{
    f2b_config *c = parse(text, overrides);
    if (c == NULL) fail_msg("%s", f2b_last_error());
    return c;
}

/* The text is refused with exactly this message. */
static void bad(const char *text, const char *const *overrides, const char *message)
{
    f2b_config *c = parse(text, overrides);
    assert_null(c);
    assert_string_equal(f2b_last_error(), message);
    assert_int_equal(f2b_last_status(), F2B_ERR_CONFIG);
}

#define OVERRIDES(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void test_defaults(void **state)
{
    (void)state;
    f2b_config *c = good(LEAST, NULL);
    assert_string_equal(c->model.path, "/home/u/configs/base");
    assert_null(c->model.vision_path);
    assert_int_equal(c->model.weights, F2B_WEIGHTS_BF16);
    assert_int_equal(c->summary.tokens, 16);
    assert_string_equal(c->summary.prompt, "Summarize the image in a few words.");
    assert_int_equal(c->method.forward, F2B_FORWARD_DOUBLE);
    assert_true(c->method.temperature == 0.02);
    assert_int_equal(c->lora.targets, (1 << F2B_LORA_TARGETS) - 1);
    assert_int_equal(c->data.conversations.n, 1);
    assert_string_equal(c->data.conversations.items[0].images, "/home/u/configs/pics/");
    assert_string_equal(c->data.captions.items[0].path, "/home/u/configs/{0..9}.tar");
    assert_null(c->data.captions.items[0].images);
    assert_int_equal(c->data.conversation_captions.n, 0);
    assert_true(c->train.epochs == 1.0);
    assert_int_equal(c->train.steps, 0);
    assert_true(c->train.learning_rate == 2e-4 && c->train.adam.eps == 1e-8);
    assert_int_equal(c->train.precision, F2B_PRECISION_BF16);
    assert_int_equal(c->train.seed, 42);
    assert_false(c->run.log_sample_ids);
    f2b_config_free(c);
    assert_int_equal(f2b_bytes_in_use(F2B_TAG_OTHER), 0);
}

static void test_file(void **state)
{
    (void)state;
    f2b_config *c = good(
        LEAST "lora:\n  r: 8\n  targets: [v_proj, q_proj]\n"
              "method: {temperature: learned, forward: single}\n"
              "summary: {prompt: 'It''s: \"so\"\\'}\n"
              "train:\n  steps: 7\n  adam: {beta1: .5}\n  seed: 7 # comment\n  max_grad_norm: 0\n"
              "sampler:\n"
              "trainable: {start_from: ../../old, projector: true}\n",
        NULL);
    assert_int_equal(c->lora.r, 8);
    assert_int_equal(c->lora.targets, 1 << F2B_LORA_Q | 1 << F2B_LORA_V);
    assert_true(c->method.temperature == 0);
    assert_string_equal(c->summary.prompt, "It's: \"so\"\\");
    assert_int_equal(c->train.steps, 7);
    assert_true(c->train.epochs == 0);
    assert_true(c->train.adam.beta1 == 0.5 && c->train.adam.beta2 == 0.999);
    assert_string_equal(c->trainable.start_from, "/home/old");
    const f2b_method m = f2b_config_method(c);
    assert_true(m.temperature_learned && m.lora.r == 8 && m.forward == F2B_FORWARD_SINGLE);
    f2b_config_free(c);
}

static void test_messages(void **state)
{
    (void)state;
    bad("modle:\n  path: x\n", NULL, "x.yaml:1: unknown key modle; did you mean model?");
    bad(LEAST "train:\n  epochs: 1\n  sed: 3\n", NULL,
        "x.yaml:6: unknown key train.sed; did you mean train.seed?");
    bad(LEAST "train: {r: 3}\n", NULL, "x.yaml:4: unknown key train.r; did you mean lora.r?");
    bad(LEAST "train: {zzzzzz: 3}\n", NULL,
        "x.yaml:4: unknown key train.zzzzzz; docs/configuration.md lists all");
    bad(LEAST "train: {seed: 1, seed: 1}\n", NULL,
        "x.yaml:4: train.seed is given twice; first in line 4");
    bad(LEAST "run: {keep: 1}\n", NULL, "x.yaml:4: run is given twice; first in line 2");
    bad(LEAST "train: 3\n", NULL, "x.yaml:4: train is a group of keys, not a value");
    bad(LEAST "train: {seed: [1]}\n", NULL, "x.yaml:4: train.seed is a single value, not a list");
    bad(LEAST "train: {seed: 1.5}\n", NULL, "x.yaml:4: train.seed is a whole number, not \"1.5\"");
    bad(LEAST "train: {seed: }\n", NULL, "x.yaml:4: train.seed has no value; it cannot be null");
    bad(LEAST "train: {learning_rate: fast}\n", NULL,
        "x.yaml:4: train.learning_rate is a number, not \"fast\"");
    bad(LEAST "train: {learning_rate: nan}\n", NULL,
        "x.yaml:4: train.learning_rate is a number, not \"nan\"");
    bad(LEAST "train: {warmup_ratio: 1.5}\n", NULL,
        "x.yaml:4: train.warmup_ratio is from 0 to 1, not 1.5");
    bad(LEAST "method: {temperature: 0}\n", NULL,
        "x.yaml:4: method.temperature is above 0 and at most 100, not 0");
    bad(LEAST "method: {temperature: lerned}\n", NULL,
        "x.yaml:4: method.temperature is a number or learned, not \"lerned\"");
    bad(LEAST "data: {}\n", NULL, "x.yaml:4: data is given twice; first in line 3");
    bad(LEAST "train: {precision: bf61}\n", NULL,
        "x.yaml:4: train.precision is one of bf16|f32|fp8, not \"bf61\"; did you mean bf16?");
    bad(LEAST "train: {lr_scheduler: Cosin}\n", NULL,
        "x.yaml:4: train.lr_scheduler is one of cosine|linear|constant, not \"Cosin\"; did you "
        "mean "
        "cosine?");
    bad(LEAST "trainable: {projector: yes}\n", NULL,
        "x.yaml:4: trainable.projector is true or false, not \"yes\"");
    bad(LEAST "lora: {targets: [q_proj, lm_head]}\n", NULL,
        "x.yaml:4: lora.targets is one of q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj, "
        "not "
        "\"lm_head\"");
    bad(LEAST "lora: {targets: [q_proj, q_proj]}\n", NULL,
        "x.yaml:4: lora.targets names q_proj twice");
    bad(LEAST "lora: {targets: q_proj}\n", NULL, "x.yaml:4: lora.targets is a list: [name, name]");
    bad(LEAST "lora: {r: 0}\n", NULL, "x.yaml:4: lora.r is from 1 to 65536, not 0");
    bad("model: {path: a}\n", NULL, "x.yaml: run.dir is missing; it has no default");
    bad("", NULL, "x.yaml: model.path is missing; it has no default");
    bad("- a\n", NULL, "x.yaml: a configuration is a group of keys: `model:`, ...");
    bad(LEAST "---\n" LEAST, NULL, "x.yaml: more than one YAML document");
}

static void test_broken_yaml(void **state)
{
    (void)state;
    const char *const texts[] = { "model: {path: a\n", "model:\n\tpath: a\n",
                                  "a: *b\n",           "\xff\xfe",
                                  "model: \"a\n",      "? [a]\n: b\n",
                                  "&a {x: *a}",        "\x01" };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        assert_null(parse(texts[i], NULL));
        assert_int_equal(f2b_last_status(), F2B_ERR_CONFIG);
        assert_non_null(strstr(f2b_last_error(), "x.yaml"));
    }
    char *large = calloc(1, 1 << 18);
    assert_non_null(large);
    memset(large, '#', (1 << 18) - 1);
    bad(large, NULL, "x.yaml: larger than 131072 bytes; that is no configuration");
    free(large);
    /* Deep nesting is an error, not a deep recursion. */
    enum { DEEP = 5000 };
    char *deep = malloc(DEEP + 1);
    assert_non_null(deep);
    memset(deep, '[', DEEP);
    deep[DEEP] = '\0';
    assert_null(parse(deep, NULL));
    free(deep);
}

static void test_sources(void **state)
{
    (void)state;
#define WITH(data) "model: {path: b}\nrun: {dir: r}\nmethod: {loss: autoregressive}\ndata:\n" data
    bad(WITH("  conversations: [{images: x}]\n"), NULL,
        "x.yaml:5: data.conversations[0] has no path");
    bad(WITH("  conversations: [{path: x, path: y}]\n"), NULL,
        "x.yaml:5: data.conversations[0].path is given twice");
    bad(WITH("  conversations:\n    - path: x\n    - {file: y}\n"), NULL,
        "x.yaml:7: unknown key data.conversations[1].file; an item has path and images");
    bad(WITH("  conversation_captions: [{path: x, images: y}]\n"), NULL,
        "x.yaml:5: unknown key data.conversation_captions[0].images; an item has path");
    bad(WITH("  conversations: x.json\n"), NULL,
        "x.yaml:5: data.conversations is a list: [{path: FILE}, {path: FILE}]");
    bad(WITH("  conversations: [x.json]\n"), NULL,
        "x.yaml:5: data.conversations is a list of {path: FILE, images: FOLDER}");
    f2b_config *c =
        good(WITH("  conversations:\n    - path: x\n    - {path: /y, images: ~}\n"), NULL);
    assert_int_equal(c->data.conversations.n, 2);
    assert_string_equal(c->data.conversations.items[1].path, "/y");
    assert_null(c->data.conversations.items[1].images);
    f2b_config_free(c);
#undef WITH
}

static void test_overrides(void **state)
{
    (void)state;
    char here[4096], expected[4200];
    assert_non_null(getcwd(here, sizeof here));
    f2b_config *c = good(
        LEAST "train: {epochs: 3}\n",
        OVERRIDES("train.seed=1", "train.seed=9", "lora.targets=[q_proj,v_proj]", "run.dir=out",
                  "summary.prompt=Say: it, # now", "data.captions[0].path=/z.tsv",
                  "data.captions[0].images=pics", "data.captions[1].path=/second.json",
                  "method.temperature=learned", "train.steps=5", "train.adam={beta1: 0.5}",
                  "data.conversation_captions=[{path: cc.json}]", "trainable.start_from=null"));
    assert_int_equal(c->train.seed, 9);
    assert_int_equal(c->lora.targets, 1 << F2B_LORA_Q | 1 << F2B_LORA_V);
    snprintf(expected, sizeof expected, "%s/out", here);
    assert_string_equal(c->run.dir, expected);
    assert_string_equal(c->summary.prompt, "Say: it, # now");
    assert_int_equal(c->data.captions.n, 2);
    assert_string_equal(c->data.captions.items[0].path, "/z.tsv");
    snprintf(expected, sizeof expected, "%s/pics", here);
    assert_string_equal(c->data.captions.items[0].images, expected);
    snprintf(expected, sizeof expected, "%s/cc.json", here);
    assert_string_equal(c->data.conversation_captions.items[0].path, expected);
    assert_true(c->method.temperature == 0 && c->train.adam.beta1 == 0.5);
    assert_int_equal(c->train.steps, 5);
    assert_true(c->train.epochs == 0);
    f2b_config_free(c);

    c = good(LEAST "train: {steps: 3}\n", OVERRIDES("train.epochs=0.5"));
    assert_true(c->train.epochs == 0.5 && c->train.steps == 0);
    f2b_config_free(c);
}

static void test_bad_overrides(void **state)
{
    (void)state;
    bad(LEAST, OVERRIDES("train.sede=1"),
        "override \"train.sede=1\": unknown key train.sede; did you mean train.seed?");
    bad(LEAST, OVERRIDES("seed=1"),
        "override \"seed=1\": unknown key seed; did you mean train.seed?");
    bad(LEAST, OVERRIDES("train.seed"),
        "override \"train.seed\": an override reads KEY=VALUE, such as train.seed=7");
    bad(LEAST, OVERRIDES("train.seed="),
        "override \"train.seed=\": train.seed has no value; it cannot be null");
    bad(LEAST, OVERRIDES("lora.targets=[q_proj"),
        "override \"lora.targets=[q_proj\": broken YAML: did not find expected ',' or ']' while "
        "parsing "
        "a flow sequence");
    bad(LEAST, OVERRIDES("data.captions[3].path=x"),
        "override \"data.captions[3].path=x\": data.captions has 1 items, so there is no [3] (at "
        "most "
        "1000)");
    bad(LEAST, OVERRIDES("data.captions[1].images=x"),
        "override \"data.captions[1].images=x\": data.captions[1] has no path");
    bad(LEAST, OVERRIDES("data.captions[x].path=x"),
        "override \"data.captions[x].path=x\": data.captions[x].path is no item of a list; write "
        "data.captions[0].path=FILE");
    bad(LEAST, OVERRIDES("train.seed[0].path=x"),
        "override \"train.seed[0].path=x\": train.seed[0].path is no item of a list; write "
        "data.captions[0].path=FILE");
    assert_null(parse(LEAST, OVERRIDES("summary.prompt=\xff")));
    assert_int_equal(f2b_last_status(), F2B_ERR_CONFIG);
}

static void test_across_keys(void **state)
{
    (void)state;
    bad(LEAST "train: {steps: 3, epochs: 1}\n", NULL,
        "x.yaml:4: train.epochs and train.steps are both given; keep one");
    bad(LEAST "train: {epochs: null}\n", NULL,
        "x.yaml:4: train.epochs and train.steps are both null; give one");
    bad(LEAST "summary: {tokens: 0}\n", NULL,
        "x.yaml:4: summary.tokens is at least 1 unless method.forward is base");
    bad(LEAST, OVERRIDES("summary.tokens=0"),
        "override \"summary.tokens=0\": summary.tokens is at least 1 unless method.forward is "
        "base");
    bad(LEAST "summary: {tokens: 3000}\n", NULL,
        "x.yaml:4: data.max_length (2048) leaves no room for text after summary.tokens (3000)");
    bad(LEAST "method: {forward: base, loss: both}\n", NULL,
        "x.yaml:4: method.forward: base makes no compressed tokens, so it has the autoregressive "
        "loss "
        "alone; set method.loss: autoregressive");
    bad(LEAST
        "method: {forward: base, loss: autoregressive}\ntrainable: {language_model: frozen}\n",
        NULL,
        "x.yaml:5: nothing is trained: with method.forward: base, set trainable.language_model, "
        "projector or vision_tower");
    bad(LEAST "train: {precision: fp8}\n", OVERRIDES("model.weights=nf4"),
        "x.yaml:4: train.precision: fp8 stores the frozen matrices as 8-bit floats, and "
        "model.weights the rest: set model.weights: bf16, or train.precision: bf16 with weights that "
        "are smaller still");
    bad(LEAST "method: {forward: single}\nsummary: {attention: bidirectional}\n", NULL,
        "x.yaml:5: summary.attention: bidirectional needs the compression pass of method.forward: "
        "double");
    bad("model: {path: b}\nrun: {dir: r}\ndata: {conversations: [{path: x}]}\n", NULL,
        "data.captions: the contrastive loss needs data.captions or data.conversation_captions; "
        "without it, set method.loss: autoregressive");
    bad("model: {path: b}\nrun: {dir: r}\ndata: {captions: [{path: x}]}\n", NULL,
        "data.conversations: the autoregressive loss needs data.conversations");
    f2b_config_free(
        good(LEAST "method: {forward: base, loss: autoregressive}\nsummary: {tokens: 0}\n", NULL));
}

static void test_round_trip(void **state)
{
    (void)state;
    f2b_config *a =
        good(LEAST "method: {temperature: 0.1}\nlora: {dropout: 0.1, alpha: 1e-7}\n",
             OVERRIDES("summary.prompt=\"a\\tb \\\\ \\\"q\\\" #: é\\u2028\\x07\"",
                       "train.learning_rate=0.30000000000000004", "train.steps=100",
                       "data.captions[0].images=/with space/é: #", "model.path=/a'b\"c"));
    char *text = f2b_config_write(a);
    assert_non_null(text);
    f2b_config *b = f2b_config_parse(text, "again", "/elsewhere", NULL, 0);
    if (b == NULL) fail_msg("%s\n%s", f2b_last_error(), text);
    for (int i = 0; i < f2bi_n_fields; i++)
        if (!f2bi_field_equal(a, b, &f2bi_fields[i])) fail_msg("%s differs", f2bi_fields[i].name);
    char *again = f2b_config_write(b);
    assert_string_equal(text, again);
    assert_non_null(strstr(text, "  learning_rate: 0.30000000000000004\n"));
    assert_non_null(strstr(text, "  alpha: 1.0e-07\n"));
    assert_non_null(strstr(text, "    eps: 1.0e-08\n  max_grad_norm: 1.0\n"));
    assert_non_null(strstr(text, "  epochs: null\n  steps: 100\n"));
    f2b_free(text);
    f2b_free(again);
    f2b_config_free(a);
    f2b_config_free(b);
}

static void test_resume(void **state)
{
    (void)state;
    f2b_config *saved = good(LEAST, OVERRIDES("train.steps=100"));
    f2b_config *now = good(LEAST, OVERRIDES("train.steps=100", "run.dir=elsewhere", "run.keep=9",
                                            "data.workers=7", "model.path=/moved",
                                            "train.activation_checkpointing=layer"));
    assert_int_equal(f2b_config_check_resume(saved, now), F2B_OK);
    f2b_config_free(now);
    now = good(LEAST, OVERRIDES("train.steps=200", "data.captions[0].path=/x",
                                "train.micro_batch_tokens=100"));
    assert_int_equal(f2b_config_check_resume(saved, now), F2B_ERR_CONFIG);
    const char *text = f2b_last_error();
    assert_non_null(strstr(text, "train.steps was 100, is now 200; "));
    assert_non_null(strstr(text,
                           "data.captions was [{path: \"/home/u/configs/{0..9}.tar\"}], is now "
                           "[{path: \"/x\"}]; "));
    assert_non_null(strstr(text, "train.micro_batch_tokens was 16384, is now 100. Set them back"));
    f2b_config_free(now);
    f2b_config_free(saved);
}

static int64_t limit_of(const char *override)
{
    f2b_config *c = good(LEAST, OVERRIDES(override));
    const int64_t bytes = c->train.memory_limit;
    char *yaml = f2b_config_write(c);
    f2b_config *again = f2b_config_parse(yaml, "again", "/", NULL, 0);
    assert_non_null(again);
    assert_int_equal(again->train.memory_limit, bytes);     /* as written, so read */
    f2b_config_free(again);
    f2b_free(yaml);
    f2b_config_free(c);
    return bytes;
}

static void test_sizes(void **state)
{
    (void)state;
    assert_int_equal(limit_of("train.memory_limit=0"), 0);
    assert_int_equal(limit_of("train.memory_limit=20GiB"), (int64_t)20 << 30);
    assert_int_equal(limit_of("train.memory_limit=1.5 gib"), (int64_t)3 << 29);
    assert_int_equal(limit_of("train.memory_limit=24GB"), 24000000000);
    assert_int_equal(limit_of("train.memory_limit=800MiB"), 800 << 20);
    assert_int_equal(limit_of("train.memory_limit=123457B"), 123457);
    static const char *const wrong[] = { "20", "GiB", "-1GiB", "1.2.3GiB", "20GiBs", "1e3KiB", "nan",
                                         "99999999999999TiB", "''" };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char text[128];
        snprintf(text, sizeof text, "train.memory_limit=%s", wrong[i]);
        assert_null(parse(LEAST, OVERRIDES(text)));
        assert_int_equal(f2b_last_status(), F2B_ERR_CONFIG);
        assert_non_null(strstr(f2b_last_error(), "train.memory_limit "));
    }
}

/* The words of the table are in the order of the enums. */
static void test_words(void **state)
{
    (void)state;
    f2b_config *c = good(
        LEAST, OVERRIDES("summary.template=plain", "summary.attention=bidirectional",
                         "summary.hidden_state=pre_norm", "method.adapters=single",
                         "trainable.language_model=frozen", "model.weights=nf4",
                         "model.image_aspect_ratio=crop", "train.precision=f32",
                         "summary.init=vocabulary", "data.bad_records=error",
                         "train.lr_scheduler=constant", "train.activation_checkpointing=layer"));
    assert_int_equal(c->summary.template_, F2B_SUMMARY_PLAIN);
    assert_int_equal(c->summary.attention, F2B_SUMMARY_BIDIRECTIONAL);
    assert_int_equal(c->summary.hidden_state, F2B_SUMMARY_PRE_NORM);
    assert_int_equal(c->summary.init, F2B_SUMMARY_INIT_VOCABULARY);
    assert_int_equal(c->method.adapters, F2B_ADAPTERS_SINGLE);
    assert_int_equal(c->trainable.language_model, F2B_LANGUAGE_MODEL_FROZEN);
    assert_int_equal(c->model.weights, F2B_WEIGHTS_NF4);
    assert_int_equal(c->model.image_aspect_ratio, F2B_ASPECT_CROP);
    assert_int_equal(c->data.bad_records, F2B_BAD_RECORDS_ERROR);
    assert_int_equal(c->train.lr_scheduler, F2B_LR_CONSTANT);
    assert_int_equal(c->train.precision, F2B_PRECISION_F32);
    assert_int_equal(c->train.activation_checkpointing, F2B_CHECKPOINTING_LAYER);
    f2b_config_free(c);
    const char *targets = f2bi_fields[f2bi_field_find("lora.targets")].choices;
#define F2B_X(target, name) assert_int_equal(f2bi_choice_find(targets, name), target);
    F2B_LORA_TARGET_LIST(F2B_X)
#undef F2B_X
}

static void test_files(void **state)
{
    (void)state;
    assert_null(f2b_config_load("no/such.yaml", NULL, 0));
    assert_int_equal(f2b_last_status(), F2B_ERR_CONFIG);
    assert_non_null(strstr(f2b_last_error(), "no/such.yaml"));
    assert_null(f2b_config_load("configs", NULL, 0));

    char folder[] = "/tmp/f2b_config_XXXXXX", path[64], other[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/a.yaml", folder);
    assert_int_equal(f2b_write_file(path, LEAST, strlen(LEAST)), F2B_OK);
    f2b_config *c = f2b_config_load(path, NULL, 0);
    assert_non_null(c);
    snprintf(other, sizeof other, "%s/base", folder);
    assert_string_equal(c->model.path, other);
    f2b_config_free(c);
    assert_int_equal(f2b_write_file(path, "a\0b", 3), F2B_OK);
    assert_null(f2b_config_load(path, NULL, 0));
    assert_non_null(strstr(f2b_last_error(), "zero byte"));

    /* For looking at data, what only training needs may be missing. */
    static const char data_only[] = "model: {path: m}\ndata: {captions: [{path: c.tsv}]}\n";
    assert_int_equal(f2b_write_file(path, data_only, strlen(data_only)), F2B_OK);
    assert_null(f2b_config_load(path, NULL, 0));
    c = f2b_config_load_data(path, NULL, 0);
    if (c == NULL) fail_msg("%s", f2b_last_error());
    assert_int_equal(c->method.loss, F2B_LOSS_CONTRASTIVE);
    assert_null(c->run.dir);
    f2b_config_free(c);
    assert_int_equal(f2b_write_file(path, "data: {captions: [{path: c.tsv}]}\n", 34), F2B_OK);
    assert_null(f2b_config_load_data(path, NULL, 0));
    assert_non_null(strstr(f2b_last_error(), "model.path is missing"));
    assert_int_equal(f2b_folder_remove(folder), F2B_OK);
}

static void test_reference_page(void **state)
{
    (void)state;
    char *page = f2b_config_reference();
    char *committed = f2b_read_file("docs/configuration.md", 1 << 20, NULL);
    assert_non_null(page);
    if (committed == NULL) fail_msg("%s", f2b_last_error());
    if (strcmp(page, committed) != 0)
        fail_msg("docs/configuration.md is not what the field table says: run "
                 "`f2b-train --help-config > docs/configuration.md`");
    f2b_free(page);
    f2b_free(committed);
}

/* Every recipe is a valid configuration, and opens with the command that runs it. */
static void test_recipes(void **state)
{
    (void)state;
    const char *const patterns[] = { "configs/*.yaml", "configs/*/*.yaml" };
    int64_t n = 0;
    for (int p = 0; p < 2; p++) {
        glob_t found;
        if (glob(patterns[p], 0, NULL, &found) != 0) continue;
        for (size_t i = 0; i < found.gl_pathc; i++, n++) {
            const char *path = found.gl_pathv[i];
            f2b_config *c = f2b_config_load(path, NULL, 0);
            if (c == NULL) fail_msg("%s", f2b_last_error());
            f2b_config_free(c);
            char *text = f2b_read_file(path, 1 << 20, NULL);
            if (text == NULL || text[0] != '#' || strstr(text, path) == NULL)
                fail_msg("%s does not open with the command that runs it", path);
            f2b_free(text);
        }
        globfree(&found);
    }
    assert_true(n >= 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),       cmocka_unit_test(test_file),
        cmocka_unit_test(test_messages),       cmocka_unit_test(test_broken_yaml),
        cmocka_unit_test(test_sources),        cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_bad_overrides),  cmocka_unit_test(test_across_keys),
        cmocka_unit_test(test_round_trip),     cmocka_unit_test(test_resume),
        cmocka_unit_test(test_sizes), cmocka_unit_test(test_words),          cmocka_unit_test(test_files),
        cmocka_unit_test(test_reference_page), cmocka_unit_test(test_recipes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
