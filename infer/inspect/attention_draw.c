/* The picture of an attention map: f2b_attention_draw. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "infer/inspect/attention_map.h"
#include "infer/svg/svg.h"

/* Pixels. A heat map is a square of TILE; cells of the grid are CELL wide. */
enum { MARGIN = 28, TILE = 132, STEP_X = TILE + 14, STEP_Y = TILE + 32, COLUMNS = 6, CELL = 22,
       ROW = 20, LABEL = 150, LEVELS = 12, MOST_TILES = 64, MOST_ROWS = 64 };

/* 0 to LEVELS: the root of the weight relative to the greatest, so that weak parts show too. */
static int level_of(float p, float top)
{
    return top > 0 && p > 0 ? (int)ceil(LEVELS * sqrt((double)(p / top)) - 0.5) : 0;
}

static float greatest(const float *p, int64_t n)
{
    float top = 0;
    for (int64_t i = 0; i < n; i++) top = p[i] > top ? p[i] : top;
    return top;
}

static double sum_of(const float *p, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)p[i];
    return sum;
}

/* All patches of one level are one path, in units of a patch. */
static void draw_level(f2b_svg *svg, const float *p, int64_t side, float top, int level)
{
    bool any = false;
    for (int64_t i = 0; i < side * side; i++) {
        if (level_of(p[i], top) != level) continue;
        if (!any)
            f2b_svg_add(svg, "<path class=\"heat\" opacity=\"%.3g\" d=\"", 0.92 * level / LEVELS);
        any = true;
        f2b_svg_add(svg, "M%lld %lldh1v1h-1z", (long long)(i % side), (long long)(i / side));
    }
    if (any) f2b_svg_add(svg, "\"/>\n");
}

/* The image, dimmed, with the weights [side, side] over it. */
static void draw_tile(f2b_svg *svg, const f2b_attention_map *m, const float *p, double x, double y,
                      const char *label)
{
    const float top = greatest(p, m->side * m->side);
    f2b_svg_add(svg, "<g transform=\"translate(%g %g) scale(%.8g)\" opacity=\"0.6\">"
                "<use xlink:href=\"#picture\"/></g>\n", x, y, (double)TILE / m->size);
    f2b_svg_add(svg, "<g transform=\"translate(%g %g) scale(%.8g)\" "
                "shape-rendering=\"crispEdges\">\n", x, y, (double)TILE / (double)m->side);
    for (int level = 1; level <= LEVELS; level++) draw_level(svg, p, m->side, top, level);
    f2b_svg_add(svg, "</g>\n");
    f2b_svg_text(svg, x, y + TILE + 14, "soft small", label);
}

static void tile_place(int64_t i, double top, double *x, double *y)
{
    *x = MARGIN + (double)(i % COLUMNS) * STEP_X;
    *y = top + (double)(i / COLUMNS) * STEP_Y;
}

/* The image itself, the mean of `n` maps, and each of them. Returns where it ends. */
static double draw_tiles(f2b_svg *svg, const f2b_attention_map *m, const float *maps, int64_t n,
                         const char *title, const char *mean_label, char *const *names, double top)
{
    const int64_t P = m->side * m->side, shown = n < MOST_TILES ? n : MOST_TILES;
    float *mean = f2b_calloc((size_t)P, sizeof *mean, F2B_TAG_OTHER);
    double x, y;
    char label[96];
    f2b_svg_text(svg, MARGIN, top, "ink", title);
    top += 12;
    tile_place(0, top, &x, &y);
    f2b_svg_add(svg, "<g transform=\"translate(%g %g) scale(%.8g)\"><use xlink:href=\"#picture\"/>"
                "</g>\n", x, y, (double)TILE / m->size);
    f2b_svg_text(svg, x, y + TILE + 14, "soft small", "as the model sees it");
    for (int64_t i = 0; mean != NULL && i < n * P; i++) mean[i % P] += maps[i] / (float)n;
    tile_place(1, top, &x, &y);
    if (mean != NULL) draw_tile(svg, m, mean, x, y, mean_label);
    f2b_free(mean);
    for (int64_t i = 0; i < shown; i++) {
        tile_place(i + 2, top, &x, &y);
        snprintf(label, sizeof label, "%lld%s%.12s: %.1f %%", (long long)i + 1,
                 names != NULL ? " " : "", names != NULL ? names[i] : "",
                 100 * sum_of(maps + i * P, P));
        draw_tile(svg, m, maps + i * P, x, y, label);
    }
    return top + (double)((shown + 1) / COLUMNS + 1) * STEP_Y;
}

/* ---- Answer tokens by summary tokens ---- */

static void draw_row(f2b_svg *svg, const f2b_attention_map *m, int64_t i, float top, double x,
                     double y)
{
    const float *p = m->answer + i * m->columns;
    char label[64];
    f2b_svg_text(svg, x - 10, y + 14, "small end", m->pieces[i]);
    for (int64_t j = 0; j < m->columns; j++)
        f2b_svg_add(svg, "<rect class=\"cell\" x=\"%g\" y=\"%g\" width=\"%d\" height=\"%d\" "
                    "opacity=\"%.3g\"/>\n", x + (double)j * CELL, y, CELL - 2, ROW - 2,
                    0.04 + 0.96 * level_of(p[j], top) / LEVELS);
    snprintf(label, sizeof label, "%.1f %%", 100 * sum_of(p, m->columns));
    f2b_svg_text(svg, x + (double)m->columns * CELL + 8, y + 14, "soft small", label);
}

static int64_t shown_rows(const f2b_attention_map *m)
{
    return m->n_answer < MOST_ROWS ? m->n_answer : MOST_ROWS;
}

static void draw_grid(f2b_svg *svg, const f2b_attention_map *m, double y)
{
    const double x = MARGIN + LABEL;
    const float top = greatest(m->answer, m->n_answer * m->columns);
    char label[32];
    f2b_svg_text(svg, MARGIN, y, "ink",
                 "Pass 2: attention of each answer token (rows) over the summary tokens (columns), "
                 "with their share of all");
    for (int64_t j = 0; j < m->columns; j++) {
        snprintf(label, sizeof label, "%lld", (long long)j + 1);
        f2b_svg_text(svg, x + ((double)j + 0.5) * CELL - 1, y + 24, "soft small middle", label);
    }
    for (int64_t i = 0; i < shown_rows(m); i++)
        draw_row(svg, m, i, top, x, y + 32 + (double)i * ROW);
}

static void draw_head(f2b_svg *svg, const f2b_attention_map *m)
{
    char text[128];
    snprintf(text, sizeof text, "Attention in layer %lld of 0 to %lld, mean over heads",
             (long long)m->layer, (long long)m->layers - 1);
    f2b_svg_text(svg, MARGIN, 32, "bold", text);
    f2b_svg_text(svg, MARGIN, 50, "soft small",
                 "Colour: square root of the weight, relative to the greatest of each picture.");
}

/* Question and answer, a line each, cut at a line's length. */
static void draw_question(f2b_svg *svg, const f2b_attention_map *m, double y)
{
    char line[160];
    snprintf(line, sizeof line, "Question: %.140s", m->question);
    f2b_svg_text(svg, MARGIN, y, "ink", line);
    snprintf(line, sizeof line, "Answer: %.140s", m->text);
    f2b_svg_text(svg, MARGIN, y + 18, "ink", line);
}

static double tiles_height(int64_t n)
{
    const int64_t shown = n < MOST_TILES ? n : MOST_TILES;
    return 12 + (double)((shown + 1) / COLUMNS + 1) * STEP_Y;
}

f2b_status f2b_attention_draw(const f2b_attention_map *m, const char *path)
{
    const bool base = m->K == 0, asked = m->question != NULL;
    const double grid_width = MARGIN + LABEL + (double)(base ? 0 : m->columns) * CELL + 70;
    const double width = fmax(2 * MARGIN + COLUMNS * STEP_X, grid_width);
    double height = 80 + (asked ? 48 : 0);
    if (!base || m->n_answer > 0) height += tiles_height(base ? m->n_answer : m->K);
    if (!base && m->n_answer > 0) height += 60 + (double)shown_rows(m) * ROW;
    f2b_svg *svg = f2b_svg_new(width, height);
    if (svg == NULL) return f2b_last_status();
    f2b_svg_define_image(svg, "picture", m->pixels, m->size, m->size);
    draw_head(svg, m);
    double y = 78;
    if (!base)
        y = draw_tiles(svg, m, m->summary, m->K,
                       "Pass 1: attention of each summary token over the image's patches, with "
                       "their share of all",
                       "mean of all", NULL, y) + 16;
    if (asked) {
        draw_question(svg, m, y);
        y += 50;
    }
    if (m->n_answer > 0 && base)
        (void)draw_tiles(svg, m, m->answer, m->n_answer,
                         "Attention of each answer token over the image's patches, with their "
                         "share of all",
                         "mean of all", m->pieces, y);
    else if (m->n_answer > 0) draw_grid(svg, m, y);
    const f2b_status status = f2b_svg_write(svg, path);
    f2b_svg_free(svg);
    return status;
}
