/* Prompts and texts of answers; conversations over a cache against the whole asked at once. */
#include "tests/checkpoints/fixtures.h"

#include "data/toy/toy.h"
#include "infer/chat.h"
#include "infer/trained_model.h"
#include "tests/infer/make_run.h"

enum { NEW = 10 };

static f2b_trained_model *model;        /* K = 4 on a toy base */

static int open_model(void **state)
{
    if (make_temp_folder(state) != 0) return -1;
    f2b_toy_options o = f2b_toy_defaults();
    o.train = o.val = 1;
    o.image_size = 16;
    const f2b_method method = {
        .tokens = 4, .prompt = "Summarize the image in a few words.", .temperature = 0.02,
        .lora = { .r = 3, .alpha = 6, .targets = 0x7f },
    };
    const f2b_trained_model_options open = { .checkpoint = in_temp("run"),
                                             .storage = F2B_STORAGE_OF_FILE };
    if (f2b_toy_write(temp_folder, &o, NULL, NULL) != F2B_OK ||
        make_weights(in_temp("model"), in_temp("model/model.safetensors")) != F2B_OK ||
        make_run(in_temp("model"), open.checkpoint, &method, 4, false, false) != F2B_OK)
        return -1;
    model = f2b_trained_model_open(&open);
    return model != NULL ? 0 : -1;
}

static int close_model(void **state)
{
    f2b_trained_model_close(model);
    return remove_temp_folder(state);
}

static f2b_answerer answerer_of(f2b_vqa_tokens tokens)
{
    const f2b_infer in = { model->model, model->tokenizer, &model->image };
    f2b_answerer a;
    assert_ok(f2b_answerer_init(&a, &in, tokens, NULL));
    return a;
}

static f2b_tensor *image_rows(const f2b_answerer *a)
{
    const size_t side = (size_t)model->image.size;
    uint8_t *pixels = f2b_alloc_host(side * side * 3, F2B_TAG_IMAGES);
    for (size_t i = 0; i < side * side * 3; i++) pixels[i] = (uint8_t)(i * 7);
    const uint8_t *const one = pixels;
    f2b_tensor *rows;
    assert_ok(f2b_answerer_images(a, &one, 1, &rows));
    f2b_free(pixels);
    return rows;
}

/* ---- Prompts ---- */

static void assert_same_prompt(const f2b_turn *a, bool image, const f2b_turn *b, int64_t n)
{
    f2b_sequence x = { 0 }, y = { 0 };
    assert_ok(f2b_answer_prompt(model->tokenizer, a, n, image, &x, NULL));
    assert_ok(f2b_prompt_open(model->tokenizer, b, n, image, &y, NULL, NULL));
    assert_int_equal(x.n, y.n);
    assert_memory_equal(x.ids, y.ids, (size_t)x.n * sizeof *x.ids);
    f2b_free(x.ids);
    f2b_free(y.ids);
}

static void test_marks(void **state)
{
    (void)state;
    const f2b_turn plain[] = { { "human", "What is it?" }, { "gpt", "yes" }, { "human", "No?" } };
    const f2b_turn first[] = { { "human", "<image>\nWhat is it?" }, plain[1], plain[2] };
    const f2b_turn behind[] = { plain[0], plain[1], { "human", "No?\n<image>" } };
    assert_same_prompt(plain, true, first, 3);
    assert_same_prompt(plain, true, first, 1);
    assert_same_prompt(first, true, first, 3);
    assert_same_prompt(behind, true, behind, 3);
    assert_same_prompt(plain, false, plain, 3);
    assert_same_prompt(first, false, plain, 3);
    assert_same_prompt(behind, false, plain, 3);
    f2b_sequence none = { 0 };
    f2b_prompt_fault fault;
    const f2b_turn blank = { "human", " \n" }, mark = { "human", "<image>" };
    assert_int_equal(f2b_answer_prompt(model->tokenizer, &blank, 1, true, &none, &fault),
                     F2B_ERR_DATA);
    assert_int_equal(fault, F2B_PROMPT_EMPTY_QUESTION);
    assert_int_equal(f2b_answer_prompt(model->tokenizer, &mark, 1, false, &none, &fault),
                     F2B_ERR_DATA);
    assert_int_equal(fault, F2B_PROMPT_EMPTY_QUESTION);
}

static void test_texts(void **state)
{
    (void)state;
    const f2b_tokenizer *t = model->tokenizer;
    f2b_ids ids = { 0 };
    const char words[] = " yes or\nno  ";
    assert_ok(f2b_tokenizer_encode(t, words, sizeof words - 1, F2B_ENCODE_PLAIN, &ids));
    assert_ok(f2b_ids_push(&ids, f2b_tokenizer_unk(t)));
    assert_ok(f2b_ids_push(&ids, f2b_tokenizer_find(t, "<0x00>")));
    assert_ok(f2b_ids_push(&ids, f2b_tokenizer_find(t, "<0x41>")));
    assert_ok(f2b_ids_push(&ids, f2b_tokenizer_pieces(t)));
    assert_ok(f2b_ids_push(&ids, f2b_tokenizer_eos(t)));
    char *text = f2b_answer_text(t, ids.ids, ids.n);
    assert_string_equal(text, "yes or\nno  A");
    f2b_free(text);
    text = f2b_answer_text(t, NULL, 0);
    assert_string_equal(text, "");
    f2b_free(text);
    f2b_ids_free(&ids);
}

/* ---- Conversations ---- */

static f2b_generate_options options(void)
{
    return (f2b_generate_options){ .stage = F2B_STAGE_GENERATION, .max_new_tokens = NEW,
                                   .eos_id = -1 };
}

/* What was said, as a test keeps it. */
typedef struct said {
    f2b_turn turns[16];
    int64_t n;
} said;

static void say(said *s, const char *from, const char *text)
{
    s->turns[s->n++] = (f2b_turn){ from, f2b_strdup(text, F2B_TAG_DATA) };
}

static void said_clear(said *s)
{
    while (s->n > 0) f2b_free((char *)(uintptr_t)s->turns[--s->n].value);
}

/* Ask in the chat and, with everything said before, without a cache: the same ids. */
static void ask_both(f2b_chat *chat, const f2b_answerer *a, f2b_tensor *rows, said *s,
                     const char *question, f2b_generate_options o, f2b_chat_reply *reply)
{
    say(s, "human", question);
    assert_ok(f2b_chat_ask(chat, question, &o, reply));
    f2b_sequence prompt = { 0 };
    assert_ok(f2b_answer_prompt(model->tokenizer, s->turns, s->n, rows != NULL, &prompt, NULL));
    const f2b_pack_item item = { .ids = prompt.ids, .n = prompt.n };
    f2b_ids whole = { 0 };
    o.stage = a->stage, o.stop = NULL;
    assert_ok(f2b_generate(&a->view, &item, 1, rows, &o, &whole));
    assert_true(reply->ids.n > 0 && reply->ids.n <= whole.n);
    assert_memory_equal(reply->ids.ids, whole.ids, (size_t)reply->ids.n * sizeof *whole.ids);
    int64_t visual;
    assert_int_equal(reply->prompt_rows, f2b_answerer_rows(a, &item, &visual));
    assert_int_equal(reply->image_rows, visual);
    assert_true(reply->read_rows <= reply->prompt_rows);
    say(s, "gpt", reply->text);
    f2b_ids_free(&whole);
    f2b_free(prompt.ids);
}

static void converse(f2b_vqa_tokens tokens, bool image)
{
    const f2b_answerer a = answerer_of(tokens);
    f2b_tensor *rows = image ? image_rows(&a) : NULL;
    f2b_chat *chat = f2b_chat_new(&a, rows);
    f2b_chat_reply reply;
    said s = { 0 };
    ask_both(chat, &a, rows, &s, "What color is it?", options(), &reply);
    assert_int_equal(reply.read_rows, reply.prompt_rows);
    assert_int_equal(reply.read_image_rows, rows != NULL ? rows->shape[0] : 0);
    f2b_chat_reply_clear(&reply);
    for (int i = 0; i < 3; i++) {
        ask_both(chat, &a, rows, &s, i == 1 ? "Is it yes or no?" : "Why?", options(), &reply);
        assert_int_equal(reply.read_image_rows, 0);         /* it is in the cache */
        f2b_chat_reply_clear(&reply);
    }
    said_clear(&s);
    f2b_chat_reset(chat);
    ask_both(chat, &a, rows, &s, "What color is it?", options(), &reply);
    assert_int_equal(reply.read_rows, 1);       /* the same prompt once more: its last row */
    f2b_chat_reply_clear(&reply);
    said_clear(&s);
    f2b_chat_free(chat);
    f2b_tensor_free(rows);
}

static void test_conversations(void **state)
{
    (void)state;
    converse(F2B_VQA_COMPRESSED, true);
    converse(F2B_VQA_FULL, true);
    converse(F2B_VQA_COMPRESSED, false);
}

static bool after_three(void *context) { return ++*(int *)context == 3; }

/* Stopped, the answer so far is part of the conversation, which goes on. */
static void test_stopped(void **state)
{
    (void)state;
    const f2b_answerer a = answerer_of(F2B_VQA_COMPRESSED);
    f2b_tensor *rows = image_rows(&a);
    f2b_chat *chat = f2b_chat_new(&a, rows);
    f2b_chat_reply reply;
    said s = { 0 };
    int asked = 0;
    f2b_generate_options o = options();
    o.stop = after_three, o.context = &asked;
    ask_both(chat, &a, rows, &s, "What color is it?", o, &reply);
    assert_true(reply.stopped);
    assert_int_equal(reply.ids.n, 3);
    f2b_chat_reply_clear(&reply);
    ask_both(chat, &a, rows, &s, "Why?", options(), &reply);
    assert_false(reply.stopped);
    assert_int_equal(reply.ids.n, NEW);
    f2b_chat_reply_clear(&reply);
    said_clear(&s);
    f2b_chat_free(chat);
    f2b_tensor_free(rows);
}

/* A question that cannot be asked leaves the conversation as it was. */
static void test_refused_questions(void **state)
{
    (void)state;
    const f2b_answerer a = answerer_of(F2B_VQA_COMPRESSED);
    f2b_tensor *rows = image_rows(&a);
    f2b_chat *chat = f2b_chat_new(&a, rows);
    f2b_chat_reply reply;
    said s = { 0 };
    const f2b_generate_options o = options();
    ask_both(chat, &a, rows, &s, "What color is it?", o, &reply);
    f2b_chat_reply_clear(&reply);
    const int64_t context = a.view.config.text.max_positions;
    char *many = f2b_calloc((size_t)context * 2 + 1, 1, F2B_TAG_OTHER);
    for (int64_t i = 0; i < 2 * context; i++) many[i] = i % 2 == 0 ? '#' : '1';
    assert_int_equal(f2b_chat_ask(chat, many, &o, &reply), F2B_ERR_DATA);
    assert_failed(F2B_ERR_DATA, "context", "max_position_embeddings");
    assert_null(reply.text);
    assert_int_equal(f2b_chat_ask(chat, "  ", &o, &reply), F2B_ERR_DATA);
    assert_int_equal(f2b_chat_ask(chat, "another <image>", &o, &reply), F2B_OK);
    f2b_chat_reply_clear(&reply);
    f2b_chat_reset(chat);
    said_clear(&s);
    ask_both(chat, &a, rows, &s, "Why?", o, &reply);
    f2b_chat_reply_clear(&reply);
    f2b_free(many);
    said_clear(&s);
    f2b_chat_free(chat);
    f2b_tensor_free(rows);
}

static void test_what_cannot_answer(void **state)
{
    (void)state;
    f2b_model base = f2b_model_base_view(model->model);
    const f2b_infer in = { &base, model->tokenizer, &model->image };
    f2b_answerer a;
    assert_int_equal(f2b_answerer_init(&a, &in, F2B_VQA_COMPRESSED, NULL), F2B_ERR_CONFIG);
    const f2b_token_choice some = { .to = 2 };
    assert_int_equal(f2b_answerer_init(&a, &in, F2B_VQA_FULL, &some), F2B_ERR_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_marks),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_conversations),
        cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_refused_questions),
        cmocka_unit_test(test_what_cannot_answer),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
