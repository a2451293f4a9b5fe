/* See chart.h. */
#include "infer/svg/chart.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "infer/svg/svg.h"

/* Pixels. */
enum { WIDTH = 860, LEFT = 76, RIGHT = 24, PANEL = 250, GAP = 68, TITLE = 34, LEGEND_LINE = 20,
       BOTTOM = 46, LETTER = 8 };

/* A panel's data range and where it lies. */
typedef struct frame {
    double x0, x1, y0, y1;      /* data */
    double left, right, top, bottom;    /* pixels */
} frame;

static double px(const frame *f, double x)
{
    return f->left + (x - f->x0) / (f->x1 - f->x0) * (f->right - f->left);
}

static double py(const frame *f, double y)
{
    return f->bottom - (y - f->y0) / (f->y1 - f->y0) * (f->bottom - f->top);
}

double f2b_chart_step(double low, double high, int wanted)
{
    const double raw = (high - low) / wanted, power = pow(10, floor(log10(raw)));
    const double ratio = raw / power;
    return power * (ratio < 1.5 ? 1 : ratio < 3.5 ? 2 : ratio < 7.5 ? 5 : 10);
}

/* ---- Ranges ---- */

typedef struct range {
    double low, high;
} range;

/* Finite, and small enough that ranges are finite too. */
static bool is_drawn(double v) { return fabs(v) < 1e300; }

static void widen(range *r, double v)
{
    if (!is_drawn(v)) return;
    if (v < r->low) r->low = v;
    if (v > r->high) r->high = v;
}

/* What was found; with room around it where that is no more than rounding, so that ticks differ. */
static range settled(range r)
{
    if (!(r.low <= r.high)) return (range){ 0, 1 };
    const double size = fmax(fabs(r.low), fabs(r.high));
    const double room = r.high - r.low > 1e-9 * size ? 0 : fmax(size * 0.1, 1e-9);
    return (range){ r.low - room, r.high + room };
}

/* y from 0 where that costs little room; else a little more than the data. */
static range y_range(const f2b_panel *p)
{
    range r = { INFINITY, -INFINITY };
    for (int64_t i = 0; i < p->n_series; i++)
        for (int64_t j = 0; j < p->series[i].n; j++) widen(&r, p->series[i].y[j]);
    r = settled(r);
    const double room = (r.high - r.low) * 0.05;
    const bool from_zero = r.low >= 0 && r.low < 0.5 * r.high;
    return (range){ from_zero ? 0 : r.low - room, r.high + room };
}

static range x_range(const f2b_chart *c, bool *any)
{
    range r = { INFINITY, -INFINITY };
    for (int64_t k = 0; k < c->n_panels; k++)
        for (int64_t i = 0; i < c->panels[k].n_series; i++)
            for (int64_t j = 0; j < c->panels[k].series[i].n; j++)
                if (is_drawn(c->panels[k].series[i].y[j])) widen(&r, c->panels[k].series[i].x[j]);
    *any = r.low <= r.high;
    return settled(r);
}

/* ---- Axes ---- */

static void tick_text(char out[32], double v, double step)
{
    if (fabs(v) < step * 1e-6) v = 0;
    snprintf(out, 32, fabs(v) >= 1e6 ? "%.4g" : "%.10g", v);
}

static void draw_axes(f2b_svg *svg, const frame *f, const char *title, const char *x_label)
{
    char text[32];
    const double ys = f2b_chart_step(f->y0, f->y1, 5),
                 xs = fmax(f2b_chart_step(f->x0, f->x1, 8), 1);
    for (double k = ceil(f->y0 / ys); k * ys <= f->y1; k++) {
        const double y = py(f, k * ys);
        f2b_svg_add(svg, "<path class=\"grid\" d=\"M%g %.2fH%g\"/>\n", f->left, y, f->right);
        tick_text(text, k * ys, ys);
        f2b_svg_text(svg, f->left - 8, y + 4, "soft small end", text);
    }
    for (double k = ceil(f->x0 / xs); k * xs <= f->x1; k++) {
        const double x = px(f, k * xs);
        f2b_svg_add(svg, "<path class=\"line\" d=\"M%.2f %gv5\"/>\n", x, f->bottom);
        tick_text(text, k * xs, xs);
        f2b_svg_text(svg, x, f->bottom + 18, "soft small middle", text);
    }
    f2b_svg_add(svg, "<path class=\"line\" d=\"M%g %gV%gH%g\"/>\n", f->left, f->top, f->bottom,
                f->right);
    f2b_svg_text(svg, f->left, f->top - 9, "ink", title);
    f2b_svg_text(svg, f->right, f->bottom + 35, "soft small end", x_label);
}

/* ---- Lines ---- */

/*
 * Many points in one column of pixels are drawn as its lowest and highest, in their order: the line
 * looks the same and the file stays small.
 */
typedef struct column {
    int64_t at, low, high;      /* column; points of the series */
    bool open;
} column;

static void draw_point(f2b_svg *svg, const frame *f, const f2b_series *s, int64_t j, bool *pen)
{
    f2b_svg_add(svg, "%c%.2f %.2f", *pen ? 'L' : 'M', px(f, s->x[j]), py(f, s->y[j]));
    *pen = true;
}

static void flush_column(f2b_svg *svg, const frame *f, const f2b_series *s, column *c, bool *pen)
{
    if (!c->open) return;
    draw_point(svg, f, s, c->low < c->high ? c->low : c->high, pen);
    if (c->low != c->high) draw_point(svg, f, s, c->low < c->high ? c->high : c->low, pen);
    c->open = false;
}

static void draw_line(f2b_svg *svg, const frame *f, const f2b_series *s)
{
    column c = { 0 };
    bool pen = false;
    f2b_svg_add(svg, "<path class=\"series s%d%s%s\" d=\"", s->colour % F2B_SVG_COLOURS,
                s->faint ? " faint" : "", s->colour >= F2B_SVG_COLOURS ? " dash" : "");
    for (int64_t j = 0; j < s->n; j++) {
        if (!is_drawn(s->y[j])) {
            flush_column(svg, f, s, &c, &pen);
            pen = false;
            continue;
        }
        const int64_t at = (int64_t)floor(px(f, s->x[j]));
        if (c.open && at != c.at) flush_column(svg, f, s, &c, &pen);
        if (!c.open) c = (column){ at, j, j, true };
        if (s->y[j] < s->y[c.low]) c.low = j;
        if (s->y[j] > s->y[c.high]) c.high = j;
    }
    flush_column(svg, f, s, &c, &pen);
    f2b_svg_add(svg, "\"/>\n");
}

/* A line of no length with round ends is a dot in the line's colour. */
static void draw_marks(f2b_svg *svg, const frame *f, const f2b_series *s)
{
    f2b_svg_add(svg, "<path class=\"series s%d\" style=\"stroke-width:5\" d=\"",
                s->colour % F2B_SVG_COLOURS);
    for (int64_t j = 0; j < s->n; j++)
        if (is_drawn(s->y[j]))
            f2b_svg_add(svg, "M%.2f %.2fh0", px(f, s->x[j]), py(f, s->y[j]));
    f2b_svg_add(svg, "\"/>\n");
}

/* ---- Legend ---- */

/* Columns of the text as a reader sees it. */
static int text_columns(const char *text)
{
    int n = 0;
    for (; *text != '\0'; text++) n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

/* Names in a flow of lines; draws where svg is not NULL. Returns the lines taken. */
static int legend(const f2b_chart *c, f2b_svg *svg, double y)
{
    int lines = 1;
    double x = LEFT;
    for (int64_t i = 0; i < c->n_legend; i++) {
        const double width = 34 + LETTER * text_columns(c->legend[i]);
        if (x > LEFT && x + width > WIDTH - RIGHT) x = LEFT, lines++;
        const double base = y + LEGEND_LINE * (lines - 1);
        if (svg != NULL) {
            f2b_svg_add(svg, "<path class=\"series s%d%s\" d=\"M%g %gh18\"/>\n",
                        (int)(i % F2B_SVG_COLOURS), i >= F2B_SVG_COLOURS ? " dash" : "", x,
                        base - 4);
            f2b_svg_text(svg, x + 24, base, "ink", c->legend[i]);
        }
        x += width;
    }
    return lines;
}

f2b_status f2b_chart_write(const f2b_chart *c, const char *path)
{
    bool any;
    const range x = x_range(c, &any);
    if (!any) return f2b_fail(F2B_ERR_DATA, "%s: there is nothing to draw", c->title);
    const double head = TITLE + LEGEND_LINE * legend(c, NULL, 0) + 20;
    f2b_svg *svg = f2b_svg_new(WIDTH, head + (double)c->n_panels * (PANEL + GAP) - GAP + BOTTOM);
    if (svg == NULL) return f2b_last_status();
    f2b_svg_text(svg, LEFT, 26, "bold", c->title);
    (void)legend(c, svg, TITLE + 16);
    for (int64_t k = 0; k < c->n_panels; k++) {
        const f2b_panel *p = &c->panels[k];
        const range y = y_range(p);
        const double top = head + (double)k * (PANEL + GAP) + 10;
        const frame f = { x.low, x.high, y.low, y.high, LEFT, WIDTH - RIGHT, top,
                          top + PANEL - 10 };
        draw_axes(svg, &f, p->title, c->x_label);
        for (int64_t i = 0; i < p->n_series; i++) draw_line(svg, &f, &p->series[i]);
        for (int64_t i = 0; c->marks && i < p->n_series; i++) draw_marks(svg, &f, &p->series[i]);
    }
    const f2b_status status = f2b_svg_write(svg, path);
    f2b_svg_free(svg);
    return status;
}
