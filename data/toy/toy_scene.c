/*
 * What is in a scene. Scenes are drawn by counter-based random numbers; the content's hash assigns a
 * scene to training or validation.
 */
#include "data/toy/toy_internal.h"

enum { VAL_SHARE = 4 };         /* one in so many contents belongs to validation */

/* Streams of F2B_RNG_TOY: a = part, b = index, c = attempt. */
static void shuffle(f2b_rng *rng, int *items, int n)
{
    for (int i = n - 1; i > 0; i--) {
        const int j = (int)f2b_rng_below(rng, (uint64_t)i + 1), keep = items[i];
        items[i] = items[j];
        items[j] = keep;
    }
}

static int below(f2b_rng *rng, int n) { return (int)f2b_rng_below(rng, (uint64_t)n); }

/* One draw a statement: within an initialiser their order would be the compiler's choice. */
static f2bi_toy_scene draw_once(const f2b_toy_options *o, f2b_rng *rng)
{
    const int places = o->grid * o->grid;
    f2bi_toy_scene scene = { .grid = o->grid };
    scene.n = 1 + below(rng, o->objects);
    scene.background = below(rng, F2BI_TOY_BACKGROUNDS);
    int place[F2BI_TOY_MAX_OBJECTS] = { 0 }, colour[F2BI_TOY_COLOURS] = { 0 };
    for (int i = 0; i < places; i++) place[i] = i;
    for (int i = 0; i < o->colours; i++) colour[i] = i;
    shuffle(rng, place, places);
    shuffle(rng, colour, o->colours);
    bool taken[F2BI_TOY_MAX_OBJECTS] = { false };
    for (int i = 0; i < scene.n; i++) taken[place[i]] = true;
    for (int p = 0, i = 0; p < places; p++) {
        if (!taken[p]) continue;
        f2bi_toy_object *object = &scene.objects[i];
        *object = (f2bi_toy_object){ .colour = colour[i], .place = p };
        object->shape = below(rng, o->shapes);
        object->size = below(rng, F2BI_TOY_SIZES);
        object->dx = (below(rng, 201) - 100) * o->jitter / 100;
        object->dy = (below(rng, 201) - 100) * o->jitter / 100;
        for (int c = 0; c < 3; c++) object->tint[c] = below(rng, 25) - 12;
        i++;
    }
    return scene;
}

uint64_t f2bi_toy_scene_key(const f2bi_toy_scene *scene)
{
    uint64_t key = (uint64_t)scene->background * 31 + (uint64_t)scene->n;
    for (int i = 0; i < scene->n; i++) {
        const f2bi_toy_object *o = &scene->objects[i];
        key = f2b_hash_mix(key * 4096 + (uint64_t)(((o->colour * 8 + o->shape) * 2 + o->size) * 9
                                                   + o->place));
    }
    return f2b_hash_mix(key);
}

f2bi_toy_scene f2bi_toy_scene_draw(const f2b_toy_options *options, f2bi_toy_part part, int64_t index,
                                   int attempt)
{
    f2b_rng rng = f2b_rng_new(options->seed, F2B_RNG_TOY, part, (uint64_t)index, (uint64_t)attempt);
    for (;;) {                  /* three contents of four are for training: this ends */
        const f2bi_toy_scene scene = draw_once(options, &rng);
        const bool val = f2bi_toy_scene_key(&scene) % VAL_SHARE == 0;
        if (val == (part == F2BI_TOY_VAL)) return scene;
    }
}
