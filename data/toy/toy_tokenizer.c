/*
 * A vocabulary for the toy world. BPE reaches a piece only by merging two pieces, so every word comes
 * with all its beginnings. Three levels, the higher merging first:
 *   words after a space      "_c", "_co", ..., "_color"
 *   words at a line's start  "W", "Wh", ..., "What"
 *   runs of words            "_top" "_left" -> "_top_left", and the fixed sentences of the prompts
 * Because all beginnings of level one start with the space mark and those of level two with a capital
 * letter, a word is built from its left end and nothing can merge across it before it is complete.
 * The fixed sentences (LLaVA's system line, the instructions) become single pieces: they carry no
 * information, and their rows would be half of what a step computes.
 */
#include <string.h>

#include "autograd/core/alloc.h"
#include "data/tokenizer/tokenizer.h"
#include "data/toy/toy_internal.h"

#define SPACE "\xE2\x96\x81"            /* U+2581 */

enum { MAX_PIECES = 2048, MAX_BYTES = 1024 };

typedef struct vocabulary {
    char *texts[MAX_PIECES];
    int64_t n;
    f2b_status status;
} vocabulary;

static const char *const words[] = {
    "a", "at", "the", "is", "on", "of", "or", "there", "color", "shape", "size", "object", "objects",
    "many", "are", "there?", "object?", "background?", "shape?", "left", "right", "top", "bottom",
    "center", "above", "below", "yes", "no", "USER:", "ASSISTANT:", "What", "Where", "How", "Is",
};

/* What may follow a newline or an end token, where no space goes before it. */
static const char *const starts[] = { "USER:", "What", "Where", "How", "Is" };

/* LLaVA's system line, the usual prompt of pass 1, the format prompts; then runs that
 * occur everywhere in questions and captions. */
static const char *const runs[] = {
    " A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions.",
    "Summarize the image in a few words.",
    "Answer the question using a single word or phrase.",
    "Provide a one-sentence caption for the provided image.",
    " top left", " top right", " bottom left", " bottom right", " at the", " left of", " right of",
};

/* Add a piece unless it is there. */
static void add(vocabulary *v, const char *text, size_t bytes)
{
    for (int64_t i = 0; i < v->n; i++) {
        if (strncmp(v->texts[i], text, bytes) == 0 && v->texts[i][bytes] == '\0') return;
    }
    if (v->status != F2B_OK) return;
    F2B_CHECK(v->n < MAX_PIECES);
    v->texts[v->n] = f2b_sprintf(F2B_TAG_DATA, "%.*s", (int)bytes, text);
    if (v->texts[v->n] == NULL) v->status = f2b_last_status();
    else v->n++;
}

/* All beginnings of a word of ASCII letters, from two symbols on; `spaced` puts the mark before it. */
static void add_word(vocabulary *v, const char *word, size_t bytes, bool spaced)
{
    char text[MAX_BYTES];
    const size_t mark = spaced ? strlen(SPACE) : 0;
    F2B_CHECK(mark + bytes < sizeof text);
    memcpy(text, SPACE, mark);
    memcpy(text + mark, word, bytes);
    for (size_t n = spaced ? 1 : 2; n <= bytes; n++) add(v, text, mark + n);
}

static void add_spaced(vocabulary *v, const char *const *list, int n)
{
    for (int i = 0; i < n; i++) add_word(v, list[i], strlen(list[i]), true);
}

/* The words of a run; or (merged) its beginnings that end where a word ends, spaces as marks. */
static void add_run(vocabulary *v, const char *run, bool spaced, bool merged)
{
    char text[MAX_BYTES];
    size_t at = 0;
    for (const char *p = run; *p != '\0';) {
        const bool space = *p == ' ';
        const char *word = p + space;
        const size_t bytes = strcspn(word, " ");
        if (!merged && space == spaced) add_word(v, word, bytes, space);
        F2B_CHECK(at + strlen(SPACE) + bytes < sizeof text);
        if (space) memcpy(text + at, SPACE, strlen(SPACE)), at += strlen(SPACE);
        memcpy(text + at, word, bytes), at += bytes;
        if (merged && p != run) add(v, text, at);
        p = word + bytes;
    }
}

static void fill(vocabulary *v)
{
    const int n_runs = (int)(sizeof runs / sizeof *runs);
    add_spaced(v, words, (int)(sizeof words / sizeof *words));
    add_spaced(v, f2bi_toy_colours, F2BI_TOY_COLOURS);
    add_spaced(v, f2bi_toy_shapes, F2BI_TOY_SHAPES);
    add_spaced(v, f2bi_toy_sizes, F2BI_TOY_SIZES);
    add_spaced(v, f2bi_toy_backgrounds, F2BI_TOY_BACKGROUNDS);
    add_spaced(v, f2bi_toy_numbers, F2BI_TOY_MAX_OBJECTS + 1);
    for (int i = 0; i < n_runs; i++) add_run(v, runs[i], true, false);
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        add_word(v, starts[i], strlen(starts[i]), false);
    }
    for (int i = 0; i < n_runs; i++) add_run(v, runs[i], false, false);
    for (int i = 0; i < n_runs; i++) add_run(v, runs[i], false, true);
    add(v, SPACE, strlen(SPACE));
    for (char c = '!'; c <= '~'; c++) add(v, &c, 1);
}

f2b_status f2bi_toy_tokenizer(const char *path, int64_t *pieces)
{
    vocabulary *v = f2b_calloc(1, sizeof *v, F2B_TAG_DATA);
    if (v == NULL) return f2b_last_status();
    fill(v);
    f2b_piece *list = f2b_calloc((size_t)v->n, sizeof *list, F2B_TAG_DATA);
    f2b_status status = list == NULL ? f2b_last_status() : v->status;
    if (status == F2B_OK) {
        for (int64_t i = 0; i < v->n; i++) list[i] = (f2b_piece){ v->texts[i], -(float)i };
        status = f2b_tokenizer_write(path, list, v->n);
        *pieces = 3 + 256 + v->n;
    }
    f2b_free(list);
    for (int64_t i = 0; i < v->n; i++) f2b_free(v->texts[i]);
    f2b_free(v);
    return status;
}
