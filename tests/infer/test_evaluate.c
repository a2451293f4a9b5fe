/* Evaluations on files: what is asked, counted and left out; batches change nothing. */
#include "tests/checkpoints/fixtures.h"

#include <jansson.h>
#include <math.h>

#include "data/toy/toy.h"
#include "infer/answer.h"
#include "infer/evaluate.h"
#include "infer/generate.h"
#include "infer/nll.h"
#include "infer/trained_model.h"
#include "tests/infer/make_run.h"

static char base[96], images[96];
static f2b_trained_model *model;        /* K = 4 on a toy base */

static int open_model(void **state)
{
    if (make_temp_folder(state) != 0) return -1;
    f2b_toy_options o = f2b_toy_defaults();
    o.train = o.val = 3;
    o.image_size = 16;
    snprintf(base, sizeof base, "%s/model", temp_folder);
    snprintf(images, sizeof images, "%s/images", temp_folder);
    const f2b_method method = {
        .tokens = 4, .prompt = "Summarize the image in a few words.", .temperature = 0.02,
        .lora = { .r = 3, .alpha = 6, .targets = 0x7f },
    };
    const f2b_trained_model_options open = { .checkpoint = in_temp("run"),
                                             .storage = F2B_STORAGE_OF_FILE };
    if (f2b_toy_write(temp_folder, &o, NULL, NULL) != F2B_OK ||
        make_weights(base, in_temp("model/model.safetensors")) != F2B_OK ||
        make_run(base, open.checkpoint, &method, 4, false, false) != F2B_OK)
        return -1;
    model = f2b_trained_model_open(&open);
    return model != NULL ? 0 : -1;
}

static int close_model(void **state)
{
    f2b_trained_model_close(model);
    return remove_temp_folder(state);
}

static f2b_infer whole(void)
{
    return (f2b_infer){ model->model, model->tokenizer, &model->image };
}

static f2b_source *open_source(const char *path, f2b_source_role role)
{
    const f2b_source_options o = { .role = role, .name = "data", .path = path, .images = images };
    f2b_source *source = f2b_source_open(&o);
    if (source == NULL) fail_msg("%s", f2b_last_error());
    return source;
}

/* ---- Questions ---- */

enum { MOST = 16 };

typedef struct collected {
    int n, skipped;
    int64_t record[MOST], question[MOST];
    char text[MOST][256], prompt[MOST][128], reason[MOST][256];
    bool correct[MOST];
} collected;

static f2b_status collect(void *context, const f2b_vqa_answer *a)
{
    collected *c = context;
    c->record[c->n] = a->record, c->question[c->n] = a->question, c->correct[c->n] = a->correct;
    snprintf(c->text[c->n], sizeof c->text[0], "%s", a->text);
    snprintf(c->prompt[c->n++], sizeof c->prompt[0], "%s", a->prompt);
    return F2B_OK;
}

static void leave_out(void *context, const char *source, int64_t record, const char *reason)
{
    collected *c = context;
    assert_string_equal(source, "data");
    snprintf(c->reason[c->skipped++], sizeof c->reason[0], "%lld %s", (long long)record, reason);
}

/* Turns are questions and answers in turn; the first may be preceded by one of gpt's. */
static void add_record(json_t *list, const char *image, int n, const char *const *turns,
                       bool gpt_first)
{
    json_t *conversation = json_array();
    if (gpt_first)
        json_array_append_new(conversation, json_pack("{s:s, s:s}", "from", "gpt", "value", "Hi"));
    for (int i = 0; i < n; i++)
        json_array_append_new(conversation, json_pack("{s:s, s:s}", "from", i % 2 ? "gpt" : "human",
                                                      "value", turns[i]));
    json_t *record = json_pack("{s:s, s:o}", "id", "x", "conversations", conversation);
    if (image != NULL) json_object_set_new(record, "image", json_string(image));
    json_array_append_new(list, record);
}

#define TURNS(...) (int)(sizeof(const char *[]){ __VA_ARGS__ } / sizeof(char *)), \
                   (const char *const[]){ __VA_ARGS__ }

static const char *write_questions(const char *truth)
{
    const char *path = in_temp("questions.json");
    json_t *list = json_array();
    add_record(list, "v000000.png", TURNS("<image>\nWhat color?", truth), false);
    add_record(list, "v000001.png", TURNS("What shape? \n<image>", "square", "And where?", "left"),
               false);
    add_record(list, NULL, TURNS("How are you?", "fine"), false);
    add_record(list, "gone.png", TURNS("<image>\nWhat?", "it"), false);
    add_record(list, "v000002.png", TURNS("<image>\nWhat <image>?", "it"), false);
    add_record(list, "v000002.png", TURNS("<image>\nHow many?", "two"), true);
    add_record(list, "v000002.png", TURNS("<image>\nNo answer?"), false);
    assert_int_equal(json_dump_file(list, path, 0), 0);
    json_decref(list);
    return path;
}

static f2b_vqa_result ask(const char *path, f2b_vqa_tokens tokens, int64_t batch, collected *c)
{
    const f2b_infer in = whole();
    f2b_source *source = open_source(path, F2B_SOURCE_CONVERSATIONS);
    memset(c, 0, sizeof *c);
    const f2b_vqa_options o = { .tokens = tokens, .batch = batch, .max_new_tokens = 10,
                                .answer = collect,
                                .hooks = { .skipped = leave_out, .context = c } };
    f2b_vqa_result r;
    assert_ok(f2b_evaluate_vqa(&in, source, &o, &r));
    f2b_source_free(source);
    return r;
}

static void test_what_is_asked(void **state)
{
    (void)state;
    static collected c, again;
    const char *path = write_questions("red");
    static const f2b_vqa_tokens modes[] = { F2B_VQA_COMPRESSED, F2B_VQA_FULL, F2B_VQA_NONE };
    static const int64_t rows[] = { 4, 64, 0 };
    char first[3][256];
    for (int k = 0; k < 3; k++) {
        const f2b_vqa_result r = ask(path, modes[k], 8, &c);
        assert_int_equal(r.records, 7);
        assert_int_equal(r.text_only, 1);
        assert_int_equal(r.skipped, 3);
        assert_int_equal(r.questions, 4);
        assert_int_equal(r.image_rows, rows[k]);
        static const int64_t record[] = { 0, 1, 1, 5 }, question[] = { 0, 0, 1, 0 };
        for (int i = 0; i < 4; i++) {
            assert_int_equal(c.record[i], record[i]);
            assert_int_equal(c.question[i], question[i]);
        }
        assert_string_equal(c.prompt[1], "What shape?");
        assert_string_equal(c.prompt[2], "And where?");
        assert_non_null(strstr(c.reason[0], "3 missing_image"));
        assert_non_null(strstr(c.reason[1], "4 two_image_marks"));
        assert_non_null(strstr(c.reason[2], "6 "));
        strcpy(first[k], c.text[0]);
        for (int64_t batch = 1; batch <= 3; batch++) {
            ask(path, modes[k], batch, &again);
            assert_int_equal(again.n, c.n);
            for (int i = 0; i < c.n; i++) assert_string_equal(again.text[i], c.text[i]);
        }
    }
    assert_string_not_equal(first[0], first[1]);
    assert_string_not_equal(first[0], first[2]);
    assert_string_not_equal(first[1], first[2]);
}

/* The file's answer made the model's own is right, and only that one. */
static void test_right_answers_are_counted(void **state)
{
    (void)state;
    static collected c, again;
    ask(write_questions("red"), F2B_VQA_COMPRESSED, 8, &c);
    assert_true(c.text[0][0] != '\0');
    char truth[260];
    snprintf(truth, sizeof truth, " %s.", c.text[0]);
    const f2b_vqa_result r = ask(write_questions(truth), F2B_VQA_COMPRESSED, 8, &again);
    assert_true(again.correct[0]);
    assert_int_equal(r.correct, 1);
}

/* The answer from compressed tokens is that of pass 1 and pass 2 done by hand. */
static void test_compressed_answer_by_hand(void **state)
{
    (void)state;
    static collected c;
    ask(write_questions("red"), F2B_VQA_COMPRESSED, 8, &c);
    const f2b_infer in = whole();
    f2b_image image = { 0 };
    uint8_t pixels[16 * 16 * 3];
    f2b_compressed z;
    assert_ok(f2b_image_open(in_temp("images/v000000.png"), &image));
    assert_ok(f2b_infer_prepare(&in, &image, pixels));
    assert_ok(f2b_compress_images(&in, (const uint8_t *const[]){ pixels }, 1, true, &z));
    assert_int_equal(z.tokens->shape[0], 4);
    const int64_t d = z.tokens->shape[1];
    const float *t = z.tokens->data, *e = z.embeddings->data;
    for (int64_t j = 0; j < d; j++)
        assert_true(fabsf((t[j] + t[d + j] + t[2 * d + j] + t[3 * d + j]) / 4 - e[j]) < 1e-5f);
    f2b_sequence prompt;
    const f2b_turn turn = { "human", "<image>\nWhat color?" };
    assert_ok(f2b_prompt_open(model->tokenizer, &turn, 1, true, &prompt, NULL, NULL));
    const f2b_pack_item item = { .ids = prompt.ids, .n = prompt.n };
    const f2b_generate_options o = { .stage = F2B_STAGE_GENERATION, .max_new_tokens = 10,
                                     .eos_id = f2b_tokenizer_eos(model->tokenizer) };
    f2b_ids ids = { 0 };
    assert_ok(f2b_generate(model->model, &item, 1, z.tokens, &o, &ids));
    char *text = f2b_answer_text(model->tokenizer, ids.ids, ids.n);
    assert_non_null(text);
    assert_true(strncmp(text, c.text[0], strlen(c.text[0])) == 0 && c.text[0][0] != '\0');
    f2b_free(text);
    f2b_ids_free(&ids);
    f2b_free(prompt.ids);
    f2b_compressed_clear(&z);
    f2b_image_free(&image);
}

static bool stop_now(void *context)
{
    (void)context;
    return true;
}

static void test_refusals(void **state)
{
    (void)state;
    const f2b_trained_model_options open = { .model = base, .storage = F2B_STORAGE_OF_FILE };
    f2b_trained_model *untrained = f2b_trained_model_open(&open);
    const f2b_infer in = { untrained->model, untrained->tokenizer, &untrained->image };
    const f2b_infer good = whole();
    f2b_source *source = open_source(write_questions("red"), F2B_SOURCE_CONVERSATIONS);
    f2b_vqa_options o = { .batch = 4, .max_new_tokens = 2 };
    f2b_vqa_result r;
    assert_int_equal(f2b_evaluate_vqa(&in, source, &o, &r), F2B_ERR_CONFIG);
    assert_failed(F2B_ERR_CONFIG, "base model", "--tokens full");
    o.tokens = F2B_VQA_FULL;
    assert_ok(f2b_evaluate_vqa(&in, source, &o, &r));
    o.hooks.stop = stop_now;
    assert_int_equal(f2b_evaluate_vqa(&good, source, &o, &r), F2B_ERR_STOPPED);
    f2b_retrieval_options ro = { .batch = 2, .max_caption_ids = 77 };
    f2b_retrieval_result rr;
    assert_int_equal(f2b_evaluate_retrieval(&in, source, &ro, &rr), F2B_ERR_CONFIG);
    f2b_source_free(source);
    write_text(in_temp("text.json"), "[{\"id\": 1, \"conversations\": [{\"from\": \"human\", "
               "\"value\": \"Hi\"}, {\"from\": \"gpt\", \"value\": \"Hi\"}]}]");
    source = open_source(in_temp("text.json"), F2B_SOURCE_CONVERSATIONS);
    o.hooks.stop = NULL;
    assert_int_equal(f2b_evaluate_vqa(&good, source, &o, &r), F2B_ERR_DATA);
    assert_failed(F2B_ERR_DATA, "no question", "1 without image");
    f2b_source_free(source);
    f2b_trained_model_close(untrained);
}

/* ---- Retrieval ---- */

static void test_retrieval(void **state)
{
    (void)state;
    static const char *const captions[] = { "a red circle", "two blue squares", "a green star",
                                            "something red" };
    static const int of[] = { 0, 1, 2, 0 };
    write_text(in_temp("pairs.tsv"), "a red circle\tv000000.png\ntwo blue squares\tv000001.png\n"
               "lost\tgone.png\n  \tv000001.png\na green star\tv000002.png\n"
               "something red\tv000000.png\n");
    const f2b_infer in = whole();
    f2b_source *source = open_source(in_temp("pairs.tsv"), F2B_SOURCE_CAPTIONS);
    f2b_retrieval_result r[3];
    for (int64_t batch = 1; batch <= 3; batch++) {
        static collected c;
        memset(&c, 0, sizeof c);
        const f2b_retrieval_options o = { .batch = batch, .max_caption_ids = 77,
                                          .hooks = { .skipped = leave_out, .context = &c } };
        assert_ok(f2b_evaluate_retrieval(&in, source, &o, &r[batch - 1]));
        assert_int_equal(r[batch - 1].images, 3);
        assert_int_equal(r[batch - 1].captions, 4);
        assert_int_equal(r[batch - 1].skipped, 2);
        assert_non_null(strstr(c.reason[0], "2 missing_image"));
        assert_memory_equal(&r[batch - 1], &r[0], sizeof r[0]);
    }
    f2b_source_free(source);

    /* a caption that the model has no room for */
    static char words[20000];
    const char *const far_too_long = words;
    f2b_compressed none;
    memset(words, '.', sizeof words - 1);
    assert_int_equal(f2b_compress_captions(&in, &far_too_long, 1, 65536, &none), F2B_ERR_DATA);
    assert_non_null(strstr(f2b_last_error(), "caption 0 takes"));

    /* the same by hand, one at a time */
    float e[3 * 512], t[4 * 512];
    int64_t d = 0, image_of[4];
    for (int i = 0; i < 4; i++) {
        f2b_compressed z;
        assert_ok(f2b_compress_captions(&in, &captions[i], 1, 77, &z));
        d = z.embeddings->shape[1];
        memcpy(t + i * d, z.embeddings->data, (size_t)d * sizeof *t);
        image_of[i] = of[i];
        f2b_compressed_clear(&z);
        if (i == 3) break;
        char name[32];
        snprintf(name, sizeof name, "images/v%06d.png", i);
        f2b_image image = { 0 };
        uint8_t pixels[16 * 16 * 3];
        assert_ok(f2b_image_open(in_temp(name), &image));
        assert_ok(f2b_infer_prepare(&in, &image, pixels));
        assert_ok(f2b_compress_images(&in, (const uint8_t *const[]){ pixels }, 1, true, &z));
        memcpy(e + i * d, z.embeddings->data, (size_t)d * sizeof *e);
        f2b_compressed_clear(&z);
        f2b_image_free(&image);
    }
    f2b_tensor *E = f2b_tensor_borrow(F2B_HOST, F2B_F32, 2, (int64_t[]){ 3, d }, e);
    f2b_tensor *T = f2b_tensor_borrow(F2B_HOST, F2B_F32, 2, (int64_t[]){ 4, d }, t);
    f2b_retrieval_result by_hand = { 0 };
    assert_ok(f2b_retrieval_recall(E, T, image_of, &by_hand));
    assert_memory_equal(&by_hand.image_to_text, &r[0].image_to_text, sizeof by_hand.image_to_text);
    assert_memory_equal(&by_hand.text_to_image, &r[0].text_to_image, sizeof by_hand.text_to_image);
    f2b_tensor_free(E);
    f2b_tensor_free(T);
}

/* ---- Likelihood ---- */

typedef struct kept_logits {
    float *values;
    int64_t rows, vocab;
} kept_logits;

static f2b_status keep_logits(void *context, const float *values, int64_t rows)
{
    kept_logits *k = context;
    memcpy(k->values + k->rows * k->vocab, values, (size_t)(rows * k->vocab) * sizeof *values);
    k->rows += rows;
    return F2B_OK;
}

/* The mean follows from the logits; a text longer than the context is its chunks, one by one. */
static void test_nll(void **state)
{
    (void)state;
    const f2b_trained_model_options open = { .model = base, .storage = F2B_STORAGE_OF_FILE,
                                             .text_only = true };
    f2b_trained_model *m = f2b_trained_model_open(&open);
    assert_non_null(m);
    assert_null(m->model->clip);
    const int64_t V = m->model->config.text.vocab, size = m->model->config.text.max_positions - 1;
    const int64_t n = size + 40;
    int32_t *ids = malloc((size_t)n * sizeof *ids);
    for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)(3 + i * 31 % 200);
    kept_logits k = { malloc((size_t)((n + 2) * V) * sizeof(float)), 0, V };
    f2b_nll_result all, head, tail;
    assert_ok(f2b_nll(m->model, 1, ids, n, keep_logits, &k, &all));
    assert_int_equal(all.chunks, 2);
    assert_int_equal(k.rows, f2b_nll_rows(m->model, n));
    double sum = 0;
    for (int64_t i = 0, row = 0; i < n; i++, row++) {
        if (i == size) row++;           /* the first chunk's last row predicts nothing */
        double total = 0;
        for (int64_t v = 0; v < V; v++) total += exp((double)k.values[row * V + v]);
        sum += log(total) - (double)k.values[row * V + ids[i]];
    }
    assert_true(fabs(all.mean - sum / (double)n) < 1e-9 * all.mean);
    assert_ok(f2b_nll(m->model, 1, ids, size, NULL, NULL, &head));
    assert_ok(f2b_nll(m->model, 1, ids + size, 40, NULL, NULL, &tail));
    assert_true(fabs(all.mean * (double)n - head.mean * (double)size - tail.mean * 40) < 1e-6);
    assert_int_equal(f2b_nll(m->model, 1, ids, 0, NULL, NULL, &all), F2B_ERR_DATA);
    ids[5] = (int32_t)V;
    assert_int_equal(f2b_nll(m->model, 1, ids, n, NULL, NULL, &all), F2B_ERR_DATA);
    free(k.values);
    free(ids);
    f2b_trained_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_asked), cmocka_unit_test(test_right_answers_are_counted),
        cmocka_unit_test(test_compressed_answer_by_hand), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_retrieval), cmocka_unit_test(test_nll),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
