/*
 * What is said about a scene: captions, questions, answers. Answers are balanced as far as the
 * scenes are: a kind of question is chosen first, yes and no are equally frequent, and what a question
 * names (a colour, a place) says nothing about its answer.
 */
#include <stdio.h>
#include <string.h>

#include "data/toy/toy_internal.h"

const char *const f2bi_toy_colours[F2BI_TOY_COLOURS] = {
    "red", "green", "blue", "yellow", "purple", "orange", "cyan", "pink", "brown", "teal",
};
const char *const f2bi_toy_shapes[F2BI_TOY_SHAPES] = {
    "circle", "square", "triangle", "cross", "diamond", "ring", "bar", "hourglass",
};
const char *const f2bi_toy_sizes[F2BI_TOY_SIZES] = { "small", "large" };
const char *const f2bi_toy_backgrounds[F2BI_TOY_BACKGROUNDS] = { "black", "gray", "white" };
const char *const f2bi_toy_numbers[F2BI_TOY_MAX_OBJECTS + 1] = {
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9",
};

const char *f2bi_toy_place(int grid, int place)
{
    static const char *const four[] = { "top left", "top right", "bottom left", "bottom right" };
    static const char *const nine[] = {
        "top left", "top", "top right", "left", "center", "right", "bottom left", "bottom",
        "bottom right",
    };
    return grid == 2 ? four[place] : nine[place];
}

static int below(f2b_rng *rng, int n) { return (int)f2b_rng_below(rng, (uint64_t)n); }

static const f2bi_toy_object *any(const f2bi_toy_scene *scene, f2b_rng *rng)
{
    return &scene->objects[below(rng, scene->n)];
}

#define SAY(...) (void)snprintf(out->question, sizeof out->question, __VA_ARGS__)

/* "Is there a red circle?" Half are there. Of the others half have the colour with another shape, half
 * a colour that is not in the scene, so that neither word alone gives the answer away. */
static void ask_there(const f2bi_toy_scene *scene, const f2b_toy_options *options, f2b_rng *rng,
                      f2bi_toy_question *out)
{
    const f2bi_toy_object *object = any(scene, rng);
    int colour = object->colour, shape = object->shape;
    const int which = below(rng, 4);
    if (which == 2 && options->shapes > 1) {
        shape = (shape + 1 + below(rng, options->shapes - 1)) % options->shapes;
    } else if (which >= 2) {
        for (bool used = true; used;) {
            colour = below(rng, options->colours);
            used = false;
            for (int i = 0; i < scene->n; i++) used = used || scene->objects[i].colour == colour;
        }
    }
    SAY("Is there a %s %s?", f2bi_toy_colours[colour], f2bi_toy_shapes[shape]);
    out->answer = which < 2 ? "yes" : "no";
}

/* "Is the red object above the blue object?": two objects that differ in row or column. */
static bool ask_relation(const f2bi_toy_scene *scene, f2b_rng *rng, f2bi_toy_question *out)
{
    if (scene->n < 2) return false;
    const int i = below(rng, scene->n), j = (i + 1 + below(rng, scene->n - 1)) % scene->n;
    const f2bi_toy_object *a = &scene->objects[i], *b = &scene->objects[j];
    const int across = b->place % scene->grid - a->place % scene->grid;
    const int down = b->place / scene->grid - a->place / scene->grid;
    const bool horizontal = down == 0 || (across != 0 && below(rng, 2) == 0);
    const int truth = horizontal ? across : down;           /* > 0: a is left of, above b */
    const bool first = below(rng, 2) == 0;
    SAY("Is the %s object %s the %s object?", f2bi_toy_colours[a->colour],
        horizontal ? first ? "left of" : "right of" : first ? "above" : "below",
        f2bi_toy_colours[b->colour]);
    out->answer = (truth > 0) == first ? "yes" : "no";
    return true;
}

bool f2bi_toy_ask(const f2bi_toy_scene *scene, const f2b_toy_options *options, int kind, f2b_rng *rng,
                  f2bi_toy_question *out)
{
    const f2bi_toy_object *object = any(scene, rng);
    const char *colour = f2bi_toy_colours[object->colour];
    const char *place = f2bi_toy_place(scene->grid, object->place);
    switch (kind) {
    case 0:
        SAY("What color is the object at the %s?", place);
        out->answer = colour;
        return true;
    case 1:
        SAY("What shape is the %s object?", colour);
        out->answer = f2bi_toy_shapes[object->shape];
        return true;
    case 2:
        SAY("Where is the %s object?", colour);
        out->answer = place;
        return true;
    case 3:
        SAY("What size is the %s object?", colour);
        out->answer = f2bi_toy_sizes[object->size];
        return true;
    case 4:
        ask_there(scene, options, rng, out);
        return true;
    case 5:
        SAY("How many objects are there?");
        out->answer = f2bi_toy_numbers[scene->n];
        return true;
    case 6:
        return ask_relation(scene, rng, out);
    default:
        SAY("What color is the background?");
        out->answer = f2bi_toy_backgrounds[scene->background];
        return true;
    }
}

void f2bi_toy_ask_text(const f2b_toy_options *options, f2b_rng *rng, f2bi_toy_question *out)
{
    const bool is_colour = below(rng, 2) == 0;
    SAY("Is %s a color or a shape?", is_colour ? f2bi_toy_colours[below(rng, options->colours)]
                                               : f2bi_toy_shapes[below(rng, options->shapes)]);
    out->answer = is_colour ? "color" : "shape";
}

void f2bi_toy_caption(const f2bi_toy_scene *scene, int variant, char out[F2BI_TOY_TEXT])
{
    size_t at = 0;
    for (int i = 0; i < scene->n; i++) {
        const f2bi_toy_object *o = &scene->objects[(i + variant) % scene->n];
        at += (size_t)snprintf(out + at, F2BI_TOY_TEXT - at, "%s%s %s %s %s", i ? ", " : "",
                               f2bi_toy_place(scene->grid, o->place), f2bi_toy_sizes[o->size],
                               f2bi_toy_colours[o->colour], f2bi_toy_shapes[o->shape]);
    }
    (void)snprintf(out + at, F2BI_TOY_TEXT - at, " on %s", f2bi_toy_backgrounds[scene->background]);
}
