/* f2b-answer: one question, or a file of them, in groups that go through the model together. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"
#include "cli/answer_tasks.h"

/* A question as it was read; its texts belong to `object` (one on the command line: to argv). */
typedef struct question {
    json_t *object, *id;        /* id: ours */
    int64_t line;               /* of the file, from 1 */
    const char *text, *image;   /* the image's path, or id in the store; NULL: none */
    char *path;                 /* image, where it was joined to a folder */
    f2b_turn *turns;            /* history and question */
    int64_t n_turns;
} question;

typedef struct question_list {
    const char *file;           /* how messages name it; NULL: the command line */
    question *items;
    int64_t n, capacity;
} question_list;

static void list_clear(question_list *list)
{
    for (int64_t i = 0; i < list->n; i++) {
        question *q = &list->items[i];
        json_decref(q->object);
        json_decref(q->id);
        f2b_free(q->path);
        f2b_free(q->turns);
    }
    f2b_free(list->items);
}

/* Put where the question stands before the error. */
static f2b_status at(const question_list *list, const question *q)
{
    if (list->file == NULL) return f2b_last_status();
    return f2b_fail_context("%s:%lld", list->file, (long long)q->line);
}

static question *list_add(question_list *list, int64_t line)
{
    if (list->n == list->capacity) {
        const int64_t capacity = list->capacity > 0 ? 2 * list->capacity : 64;
        question *grown = f2b_realloc(list->items, (size_t)capacity * sizeof *grown, F2B_TAG_DATA);
        if (grown == NULL) return NULL;
        list->items = grown, list->capacity = capacity;
    }
    question *q = &list->items[list->n++];
    *q = (question){ .line = line };
    return q;
}

/* ---- A line of the file ---- */

static f2b_status bad(const char *text) { return f2b_fail(F2B_ERR_FORMAT, "%s", text); }

static f2b_status check_keys(const json_t *object)
{
    static const char *const known[] = { "question", "text",    "image",   "id",
                                         "history",  "category", "question_id" };
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value) {
        size_t i = 0;
        while (i < sizeof known / sizeof *known && strcmp(key, known[i]) != 0) i++;
        if (i == sizeof known / sizeof *known)
            return f2b_fail(F2B_ERR_FORMAT, "unknown key %.100s (see f2b-answer --help)", key);
    }
    return F2B_OK;
}

/* The string under a key; NULL where the key is missing, or null. */
static f2b_status text_of(const json_t *object, const char *key, const char **text)
{
    const json_t *value = json_object_get(object, key);
    *text = json_string_value(value);
    if (value == NULL || json_is_null(value) || *text != NULL) return F2B_OK;
    return f2b_fail(F2B_ERR_FORMAT, "%s must be a string", key);
}

/* What was said before, and the question. */
static f2b_status read_turns(question *q, const json_t *history)
{
    const size_t n = json_array_size(history);
    if (history != NULL && !json_is_array(history))
        return bad("history must be an array of [question, answer]");
    q->turns = f2b_calloc(2 * n + 1, sizeof *q->turns, F2B_TAG_DATA);
    if (q->turns == NULL) return f2b_last_status();
    for (size_t i = 0; i < 2 * n; i++) {
        const json_t *round = json_array_get(history, i / 2);
        const char *text = json_string_value(json_array_get(round, i % 2));
        if (text == NULL || json_array_size(round) != 2)
            return bad("history must be an array of [question, answer]");
        q->turns[q->n_turns++] = (f2b_turn){ i % 2 == 0 ? "human" : "gpt", text };
    }
    q->turns[q->n_turns++] = (f2b_turn){ "human", q->text };
    return F2B_OK;
}

/* The image that the line names, else the command line's; null is none. */
static f2b_status read_image(const f2b_answer_settings *s, question *q, const char *folder)
{
    const char *image, *id;
    F2B_TRY(text_of(q->object, "image", &image));
    F2B_TRY(text_of(q->object, "id", &id));
    const bool store = s->store_path != NULL;
    if (store && image != NULL) return bad("an image, but --store is given: name its id");
    if (!store && id != NULL) return bad("an id, but no --store is given");
    const bool named = json_object_get(q->object, store ? "id" : "image") != NULL;
    q->image = store ? id : image;
    if (!named) q->image = store ? s->id : s->image;
    if (!named || store || image == NULL || image[0] == '/') return F2B_OK;
    q->path = f2b_path_join(folder, image);
    q->image = q->path;
    return q->path != NULL ? F2B_OK : f2b_last_status();
}

static f2b_status read_question(const f2b_answer_settings *s, question *q, int64_t number,
                                const char *text, size_t bytes, const char *folder)
{
    json_error_t error;
    q->object = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (q->object == NULL)
        return f2b_fail(F2B_ERR_FORMAT, "column %d: %s", error.column, error.text);
    if (!json_is_object(q->object)) return bad("a line must be a JSON object");
    F2B_TRY(check_keys(q->object));
    const char *other;
    F2B_TRY(text_of(q->object, "question", &q->text));
    F2B_TRY(text_of(q->object, "text", &other));
    if ((q->text == NULL) == (other == NULL))
        return bad(other == NULL ? "no question" : "question and text: only one of them");
    if (q->text == NULL) q->text = other;
    json_t *id = json_object_get(q->object, "question_id");
    if (id != NULL && !json_is_string(id) && !json_is_integer(id))
        return bad("question_id must be a string or a whole number");
    q->id = id != NULL ? json_incref(id) : json_integer(number);
    F2B_TRY(read_turns(q, json_object_get(q->object, "history")));
    return read_image(s, q, folder);
}

/* ---- The file ---- */

static f2b_status read_lines(const f2b_answer_settings *s, FILE *in, const char *folder,
                             question_list *list)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t bytes;
    f2b_status status = F2B_OK;
    for (int64_t number = 1; status == F2B_OK; number++) {
        errno = 0;
        if ((bytes = getline(&line, &capacity, in)) < 0) break;
        if (strspn(line, " \t\r\n") == (size_t)bytes) continue;
        question *q = list_add(list, number);
        status = q != NULL ? read_question(s, q, list->n - 1, line, (size_t)bytes, folder)
                           : f2b_last_status();
        if (status != F2B_OK && q != NULL) status = at(list, q);
    }
    if (status == F2B_OK && !feof(in))
        status = f2b_fail_errno(F2B_ERR_IO, "reading %s", list->file);
    free(line); /* getline's own */
    return status;
}

/* The folder of a file's name. f2b_free. */
static char *folder_of(const char *file)
{
    const char *slash = strrchr(file, '/');
    if (slash == NULL) return f2b_strdup(".", F2B_TAG_DATA);
    return f2b_sprintf(F2B_TAG_DATA, "%.*s", slash == file ? 1 : (int)(slash - file), file);
}

static f2b_status read_file(const f2b_answer_settings *s, question_list *list)
{
    const bool standard = strcmp(s->questions, "-") == 0;
    list->file = standard ? "standard input" : s->questions;
    FILE *in = standard ? stdin : fopen(s->questions, "r");
    if (in == NULL)
        return f2b_fail_errno(errno == ENOENT ? F2B_ERR_NOT_FOUND : F2B_ERR_IO, "cannot open %s",
                              s->questions);
    char *folder = s->images != NULL ? f2b_strdup(s->images, F2B_TAG_DATA)
                                     : folder_of(standard ? "" : s->questions);
    f2b_status status = folder != NULL ? read_lines(s, in, folder, list) : f2b_last_status();
    f2b_free(folder);
    if (!standard) fclose(in);
    if (status == F2B_OK && list->n == 0)
        return f2b_fail(F2B_ERR_DATA, "%s has no questions", list->file);
    return status;
}

/* The one of the command line. */
static f2b_status read_one(const f2b_answer_settings *s, question_list *list)
{
    question *q = list_add(list, 0);
    if (q == NULL) return f2b_last_status();
    q->text = s->question;
    q->image = s->store_path != NULL ? s->id : s->image;
    q->id = json_integer(0);
    return read_turns(q, NULL);
}

/* ---- A group ---- */

/* Arrays of a group; [n] each. */
typedef struct group {
    const question_list *list;
    const question *questions;
    int64_t n, n_images;
    const char **images;        /* different ones */
    f2b_sequence *prompts;
    f2b_pack_item *items;
    f2b_ids *ids;
    bool *ended;
} group;

static f2b_status group_new(group *g, int64_t n)
{
    g->images = f2b_calloc((size_t)n, sizeof *g->images, F2B_TAG_DATA);
    g->prompts = f2b_calloc((size_t)n, sizeof *g->prompts, F2B_TAG_DATA);
    g->items = f2b_calloc((size_t)n, sizeof *g->items, F2B_TAG_DATA);
    g->ids = f2b_calloc((size_t)n, sizeof *g->ids, F2B_TAG_DATA);
    g->ended = f2b_calloc((size_t)n, sizeof *g->ended, F2B_TAG_DATA);
    return g->images && g->prompts && g->items && g->ids && g->ended ? F2B_OK : f2b_last_status();
}

static void group_clear(group *g)
{
    for (int64_t i = 0; i < g->n; i++) {
        if (g->prompts != NULL) f2b_free(g->prompts[i].ids), f2b_free(g->prompts[i].labels);
        if (g->ids != NULL) f2b_ids_free(&g->ids[i]);
    }
    f2b_free(g->images);
    f2b_free(g->prompts);
    f2b_free(g->items);
    f2b_free(g->ids);
    f2b_free(g->ended);
}

/* The number of the image among those of the group. */
static int64_t image_number(group *g, const char *image)
{
    int64_t i = 0;
    while (i < g->n_images && strcmp(g->images[i], image) != 0) i++;
    if (i == g->n_images) g->images[g->n_images++] = image;
    return i;
}

static f2b_status add_prompt(f2b_answer_settings *s, group *g, int64_t i)
{
    const question *q = &g->questions[i];
    const bool image = q->image != NULL && s->answerer.tokens != F2B_VQA_NONE;
    f2b_status status = f2b_answer_prompt(s->model->tokenizer, q->turns, q->n_turns, image,
                                          &g->prompts[i], NULL);
    g->items[i] = (f2b_pack_item){ .ids = g->prompts[i].ids,
                                   .n = g->prompts[i].n,
                                   .image = image ? image_number(g, q->image) : 0,
                                   .key = (uint64_t)(q - g->list->items) };
    if (status == F2B_OK) status = f2b_generate_check(&s->answerer.view, &g->items[i]);
    return status == F2B_OK ? F2B_OK : at(g->list, q);
}

/* The error of an image, with the line of the first question about it. */
static f2b_status image_failed(const group *g, int64_t image)
{
    for (int64_t i = 0; i < g->n; i++)
        if (g->questions[i].image != NULL && strcmp(g->questions[i].image, g->images[image]) == 0)
            return at(g->list, &g->questions[i]);
    return f2b_last_status();
}

static f2b_status print(f2b_answer_settings *s, const group *g, int64_t i)
{
    const question *q = &g->questions[i];
    const bool one = g->list->file == NULL;
    int64_t visual;
    const int64_t rows = f2b_answerer_rows(&s->answerer, &g->items[i], &visual);
    s->costs.questions++;
    s->costs.visual_rows += visual;
    s->costs.other_rows += rows - visual;
    if (one && !s->json) return F2B_OK;
    char *text = f2b_answer_text(s->model->tokenizer, g->ids[i].ids, g->ids[i].n);
    if (text == NULL) return f2b_last_status();
    const f2b_answered a = { .question_id = q->id,
                             .question = q->text,
                             .image = q->image,
                             .text = text,
                             .ids = &g->ids[i],
                             .image_rows = visual,
                             .prompt_rows = rows,
                             .ended = g->ended[i],
                             .costs = one ? &s->costs : NULL };
    const f2b_status status = f2b_answer_print_json(s, &a);
    f2b_free(text);
    return status;
}

static f2b_status answer_group(f2b_answer_settings *s, group *g)
{
    f2b_tensor *rows = NULL;
    int64_t failed = 0;
    for (int64_t i = 0; i < g->n; i++) F2B_TRY(add_prompt(s, g, i));
    if (f2b_answer_images(s, g->images, g->n_images, &rows, &failed) != F2B_OK)
        return image_failed(g, failed);
    const bool stream = g->list->file == NULL && !s->json;
    f2b_answer_watch watch = f2b_answer_watch_start(s, g->ended, stream);
    const f2b_generate_options o = f2b_answer_options(&watch);
    f2b_status status = f2b_generate(&s->answerer.view, g->items, g->n, rows, &o, g->ids);
    watch.stream = stream && status == F2B_OK;
    f2b_tensor_free(rows);
    const f2b_status shown = f2b_answer_watch_end(&watch);
    if (status == F2B_OK) status = shown;
    for (int64_t i = 0; status == F2B_OK && i < g->n; i++) status = print(s, g, i);
    return status;
}

static f2b_status answer_all(f2b_answer_settings *s, const question_list *list)
{
    for (int64_t i = 0; i < list->n; i += s->batch) {
        const int64_t left = list->n - i;
        group g = { .list = list, .questions = list->items + i };
        g.n = left < s->batch ? left : s->batch;
        f2b_status status = group_new(&g, g.n);
        if (status == F2B_OK) status = answer_group(s, &g);
        const int64_t done = i + g.n;
        group_clear(&g);
        F2B_TRY(status);
        if (list->file != NULL)
            f2b_progress_show(&s->progress, done == list->n, "%lld/%lld answers | ETA %s",
                              (long long)done, (long long)list->n,
                              f2b_format_duration(f2b_progress_eta(&s->progress, done, list->n))
                                  .text);
    }
    f2b_answer_tell_costs(s, &s->costs);
    return F2B_OK;
}

f2b_status f2b_answer_questions(f2b_answer_settings *s)
{
    question_list list = { 0 };
    f2b_status status = s->questions != NULL ? read_file(s, &list) : read_one(s, &list);
    if (status == F2B_OK) status = f2b_answer_open(s);
    if (status == F2B_OK) status = answer_all(s, &list);
    list_clear(&list);
    return status;
}
