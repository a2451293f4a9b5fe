/* A conversation over one slot of a key/value cache. See chat.h for the contract. */
#include "infer/chat.h"

#include <string.h>

#include "autograd/core/alloc.h"

struct f2b_chat {
    const f2b_answerer *answerer;
    f2b_tensor *image;
    f2b_turn *turns; /* their texts are ours */
    int64_t n, capacity;
    uint64_t asked;
    f2b_generator *generator; /* one slot of `room` rows, */
    int64_t room;
    f2b_ids held; /* which hold these ids */
};

f2b_chat *f2b_chat_new(const f2b_answerer *answerer, f2b_tensor *rows)
{
    f2b_chat *c = f2b_calloc(1, sizeof *c, F2B_TAG_OTHER);
    if (c != NULL) c->answerer = answerer, c->image = rows;
    return c;
}

static void drop_turn(f2b_chat *c)
{
    f2b_free((char *)(uintptr_t)c->turns[--c->n].value);
}

void f2b_chat_reset(f2b_chat *c)
{
    while (c->n > 0) drop_turn(c);
    c->asked = 0;
}

void f2b_chat_free(f2b_chat *c)
{
    if (c == NULL) return;
    f2b_chat_reset(c);
    f2b_free(c->turns);
    f2b_ids_free(&c->held);
    f2b_generator_free(c->generator);
    f2b_free(c);
}

void f2b_chat_reply_clear(f2b_chat_reply *reply)
{
    f2b_ids_free(&reply->ids);
    f2b_free(reply->text);
    *reply = (f2b_chat_reply){ 0 };
}

static f2b_status add_turn(f2b_chat *c, const char *from, const char *value)
{
    if (c->n == c->capacity) {
        const int64_t capacity = c->capacity > 0 ? 2 * c->capacity : 16;
        f2b_turn *grown = f2b_realloc(c->turns, (size_t)capacity * sizeof *grown, F2B_TAG_DATA);
        if (grown == NULL) return f2b_last_status();
        c->turns = grown, c->capacity = capacity;
    }
    char *copy = f2b_strdup(value, F2B_TAG_DATA);
    if (copy == NULL) return f2b_last_status();
    c->turns[c->n++] = (f2b_turn){ from, copy };
    return F2B_OK;
}

enum { LEAST_ROOM = 512 };

/* A slot with room for `rows` prompt rows and an answer; a larger one is a new one, and empty. */
static f2b_status make_room(f2b_chat *c, int64_t rows, int64_t max_new_tokens)
{
    const int64_t context = c->answerer->view.config.text.max_positions;
    const int64_t need = max_new_tokens - 1 > context - rows ? context : rows + max_new_tokens - 1;
    if (need <= c->room) return F2B_OK;
    int64_t room = need < LEAST_ROOM / 2 ? LEAST_ROOM : 2 * need;
    if (room > context) room = context;
    f2b_generator_free(c->generator);
    c->room = c->held.n = 0;
    c->generator = f2b_generator_new(&c->answerer->view, c->answerer->stage, 1, room);
    if (c->generator == NULL) return f2b_last_status();
    c->room = room;
    return F2B_OK;
}

/* How many ids of the prompt the slot holds already; one at least is left to read. */
static int64_t common(const f2b_chat *c, const f2b_sequence *prompt)
{
    int64_t n = 0;
    while (n < c->held.n && n + 1 < prompt->n && c->held.ids[n] == prompt->ids[n]) n++;
    return n;
}

static f2b_status read_and_answer(f2b_chat *c, const f2b_sequence *prompt,
                                  const f2b_generate_options *o, f2b_chat_reply *reply)
{
    const f2b_pack_item whole = { .ids = prompt->ids, .n = prompt->n };
    F2B_TRY(f2b_generate_check(&c->answerer->view, &whole));
    reply->prompt_rows = f2b_answerer_rows(c->answerer, &whole, &reply->image_rows);
    F2B_TRY(make_room(c, reply->prompt_rows, o->max_new_tokens));
    const int64_t known = common(c, prompt);
    const f2b_pack_item rest = { .ids = prompt->ids + known, .n = prompt->n - known,
                                 .key = c->asked };
    reply->read_rows = f2b_answerer_rows(c->answerer, &rest, &reply->read_image_rows);
    f2b_generator_rewind(c->generator, 0, reply->prompt_rows - reply->read_rows);
    c->held.n = 0; /* until it is known again */
    const f2b_status status =
        f2b_generator_answer(c->generator, &rest, 1, c->image, o, &reply->ids);
    if (status != F2B_OK && status != F2B_ERR_STOPPED) return status;
    reply->stopped = status == F2B_ERR_STOPPED;
    const int64_t answered = f2b_generator_rows(c->generator, 0) - reply->prompt_rows;
    F2B_TRY(f2b_ids_append(&c->held, prompt->ids, prompt->n));
    return f2b_ids_append(&c->held, reply->ids.ids, answered);
}

static f2b_status ask(f2b_chat *c, const f2b_generate_options *o, f2b_chat_reply *reply)
{
    const f2b_tokenizer *tokenizer = c->answerer->in.tokenizer;
    f2b_sequence prompt = { 0 };
    F2B_TRY(f2b_answer_prompt(tokenizer, c->turns, c->n, c->image != NULL, &prompt, NULL));
    const f2b_status status = read_and_answer(c, &prompt, o, reply);
    f2b_free(prompt.ids);
    f2b_free(prompt.labels);
    F2B_TRY(status);
    reply->text = f2b_answer_text(tokenizer, reply->ids.ids, reply->ids.n);
    return reply->text != NULL ? F2B_OK : f2b_last_status();
}

f2b_status f2b_chat_ask(f2b_chat *c, const char *question, const f2b_generate_options *o,
                        f2b_chat_reply *reply)
{
    *reply = (f2b_chat_reply){ 0 };
    F2B_TRY(add_turn(c, "human", question));
    f2b_status status = ask(c, o, reply);
    if (status == F2B_OK && reply->text[0] != '\0') status = add_turn(c, "gpt", reply->text);
    if (c->n % 2 != 0) drop_turn(c); /* the question alone: no answer, or none that says anything */
    if (status == F2B_OK) c->asked++;
    else f2b_chat_reply_clear(reply);
    return status;
}
