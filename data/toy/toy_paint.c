/*
 * Scenes to pixels: shapes as integer inequalities, sixteen samples a pixel for smooth edges.
 * Lengths are in 1/16 pixel.
 */
#include <stdlib.h>

#include "data/toy/toy_internal.h"

enum { UNIT = 16, SAMPLES = 4 };

static const uint8_t colour_rgb[F2BI_TOY_COLOURS][3] = {
    { 225, 25, 25 }, { 25, 170, 40 }, { 30, 60, 230 }, { 240, 220, 30 }, { 190, 40, 200 },
    { 240, 135, 25 }, { 35, 205, 220 }, { 245, 140, 190 }, { 120, 75, 40 }, { 20, 110, 110 },
};
static const uint8_t background_rgb[F2BI_TOY_BACKGROUNDS][3] = {
    { 16, 16, 16 }, { 128, 128, 128 }, { 240, 240, 240 },
};

/* Whether the point (u, v) from the centre, v downwards, is in the shape of radius r. In the order of
 * f2bi_toy_shapes. */
static bool inside(int shape, int u, int v, int r)
{
    const int au = abs(u), av = abs(v);
    switch (shape) {
    case 0: return u * u + v * v <= r * r;                              /* circle */
    case 1: return au * 8 <= r * 7 && av * 8 <= r * 7;                  /* square */
    case 2: return v * 8 <= r * 7 && au * 15 <= (v + r) * 8;            /* triangle, point upwards */
    case 3: return (au * 3 <= r && av <= r) || (av * 3 <= r && au <= r); /* cross */
    case 4: return au + av <= r;                                        /* diamond */
    case 5: return u * u + v * v <= r * r && 4 * (u * u + v * v) >= r * r;  /* ring */
    case 6: return au <= r && av * 3 <= r;                              /* bar */
    default: return av <= r && au <= av;                                /* hourglass */
    }
}

static void paint_object(const f2bi_toy_scene *scene, const f2bi_toy_object *o, int size, uint8_t *rgb)
{
    const int cell = size * UNIT / scene->grid;
    const int r = o->size == 0 ? cell * 9 / 32 : cell * 14 / 32;
    const int room = cell / 2 - r;                      /* the object stays within its place */
    const int cx = o->place % scene->grid * cell + cell / 2 + o->dx * room / 100;
    const int cy = o->place / scene->grid * cell + cell / 2 + o->dy * room / 100;
    const int x0 = (cx - r) / UNIT, x1 = (cx + r) / UNIT, y0 = (cy - r) / UNIT, y1 = (cy + r) / UNIT;
    for (int y = y0 < 0 ? 0 : y0; y <= y1 && y < size; y++) {
        for (int x = x0 < 0 ? 0 : x0; x <= x1 && x < size; x++) {
            int hits = 0;
            for (int s = 0; s < SAMPLES * SAMPLES; s++) {
                const int u = x * UNIT + s % SAMPLES * 4 + 2 - cx, v = y * UNIT + s / SAMPLES * 4 + 2 - cy;
                hits += inside(o->shape, u, v, r);
            }
            uint8_t *pixel = rgb + ((int64_t)y * size + x) * 3;
            for (int c = 0; c < 3; c++) {
                int value = colour_rgb[o->colour][c] + o->tint[c];
                value = value < 0 ? 0 : value > 255 ? 255 : value;
                pixel[c] = (uint8_t)((value * hits + pixel[c] * (16 - hits) + 8) / 16);
            }
        }
    }
}

void f2bi_toy_paint(const f2bi_toy_scene *scene, int size, uint8_t *rgb)
{
    for (int64_t i = 0; i < (int64_t)size * size * 3; i++) {
        rgb[i] = background_rgb[scene->background][i % 3];
    }
    for (int i = 0; i < scene->n; i++) paint_object(scene, &scene->objects[i], size, rgb);
}
