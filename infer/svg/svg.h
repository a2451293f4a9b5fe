/*
 * Pictures as SVG files: one file that any browser shows, on a light or a dark background as the
 * viewer prefers. Colours are classes of one style sheet:
 *
 *   bg (background), ink (text), soft (secondary text), line (axes), grid,
 *   s0 to s7 (strokes of series), heat (fill of a heat map)
 */
#ifndef F2B_INFER_SVG_SVG_H
#define F2B_INFER_SVG_SVG_H

#include "autograd/core/status.h"

enum { F2B_SVG_COLOURS = 8 };

typedef struct f2b_svg f2b_svg;

/** An empty picture of that many pixels, with its background. NULL with F2B_ERR_MEMORY. */
f2b_svg *f2b_svg_new(double width, double height);
void f2b_svg_free(f2b_svg *svg);

/** Append markup as it is. What fails is remembered for f2b_svg_write. */
void f2b_svg_add(f2b_svg *svg, const char *format, ...) F2B_PRINTF(2, 3);

/** Append bytes as they are (a path of any length, say). */
void f2b_svg_append(f2b_svg *svg, const char *bytes, size_t n);

/** A line of text at (x, y), escaped; what is no UTF-8 becomes U+FFFD. `class` also has anchors:
 *  "end" and "middle"; "small", "bold". */
void f2b_svg_text(f2b_svg *svg, double x, double y, const char *class, const char *text);

/** A picture, as a PNG within the file: RGB8 [height, width, 3], into <defs> under `id`. */
void f2b_svg_define_image(f2b_svg *svg, const char *id, const unsigned char *rgb, int width,
                          int height);

/** Close the document and write it, all or nothing. errors: F2B_ERR_IO, F2B_ERR_MEMORY. */
f2b_status f2b_svg_write(f2b_svg *svg, const char *path) F2B_MUST_USE;

#endif
