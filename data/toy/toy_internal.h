/* What the files of data/toy share: a scene, how it is drawn, what is said about it. */
#ifndef F2B_DATA_TOY_TOY_INTERNAL_H
#define F2B_DATA_TOY_TOY_INTERNAL_H

#include <stdbool.h>

#include "autograd/core/rng.h"
#include "data/toy/toy.h"

enum {
    F2BI_TOY_MAX_GRID = 3,
    F2BI_TOY_MAX_OBJECTS = F2BI_TOY_MAX_GRID * F2BI_TOY_MAX_GRID,
    F2BI_TOY_COLOURS = 10, F2BI_TOY_SHAPES = 8, F2BI_TOY_SIZES = 2, F2BI_TOY_BACKGROUNDS = 3,
    F2BI_TOY_TEXT = 1024,           /* bytes that hold any caption or question with its zero */
};

/* One object. Colours differ within a scene, places too. */
typedef struct f2bi_toy_object {
    int colour, shape, size, place; /* place = row * grid + column */
    int dx, dy;                     /* off the middle of its place, in % of the room; not in the texts */
    int tint[3];                    /* off its colour; likewise */
} f2bi_toy_object;

typedef struct f2bi_toy_scene {
    int grid, n, background;
    f2bi_toy_object objects[F2BI_TOY_MAX_OBJECTS];      /* in order of place */
} f2bi_toy_scene;

typedef enum f2bi_toy_part { F2BI_TOY_TRAIN, F2BI_TOY_VAL } f2bi_toy_part;

/*
 * Scene `index` of a part, attempt `attempt`: a pure function of options, part, index and attempt. A
 * scene's content (f2bi_toy_scene_key) decides the part it may be in, so that no validation scene
 * is ever trained on.
 */
f2bi_toy_scene f2bi_toy_scene_draw(const f2b_toy_options *options, f2bi_toy_part part, int64_t index,
                                   int attempt);

/* Equal exactly for scenes of which the full caption says the same. */
uint64_t f2bi_toy_scene_key(const f2bi_toy_scene *scene);

/* Pixels [size, size, 3]. Integer arithmetic only: the same bytes on every machine. */
void f2bi_toy_paint(const f2bi_toy_scene *scene, int size, uint8_t *rgb);

/* The words, for the texts and for the tokenizer. */
extern const char *const f2bi_toy_colours[F2BI_TOY_COLOURS];
extern const char *const f2bi_toy_shapes[F2BI_TOY_SHAPES];
extern const char *const f2bi_toy_sizes[F2BI_TOY_SIZES];
extern const char *const f2bi_toy_backgrounds[F2BI_TOY_BACKGROUNDS];
extern const char *const f2bi_toy_numbers[F2BI_TOY_MAX_OBJECTS + 1];
const char *f2bi_toy_place(int grid, int place);

/* A question that needs the picture, and its answer. */
typedef struct f2bi_toy_question {
    char question[F2BI_TOY_TEXT];
    const char *answer;
} f2bi_toy_question;

/* Kinds of question; ask returns false where the scene does not admit the kind. */
enum { F2BI_TOY_QUESTIONS = 8 };
bool f2bi_toy_ask(const f2bi_toy_scene *scene, const f2b_toy_options *options, int kind, f2b_rng *rng,
                  f2bi_toy_question *out);

/* A question on words alone, for the text-only records. */
void f2bi_toy_ask_text(const f2b_toy_options *options, f2b_rng *rng, f2bi_toy_question *out);

/* The whole caption; `variant` 0 names the objects in reading order, others in another order. */
void f2bi_toy_caption(const f2bi_toy_scene *scene, int variant, char out[F2BI_TOY_TEXT]);

/* Write tokenizer.model for the world's texts; *pieces receives the size of its vocabulary. */
f2b_status f2bi_toy_tokenizer(const char *path, int64_t *pieces) F2B_MUST_USE;

/* Write model/ (config.json and the small files beside it) for a tokenizer of so many pieces. */
f2b_status f2bi_toy_model(const char *dir, const f2b_toy_options *options, int64_t pieces) F2B_MUST_USE;

/* A text file. errors: F2B_ERR_IO with the path. */
f2b_status f2bi_toy_text_file(const char *dir, const char *name, const char *text) F2B_MUST_USE;

#endif
