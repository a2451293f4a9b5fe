/* See svg.h. The document grows in one buffer; an error is kept until it is written. */
#include "infer/svg/svg.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"
#include "infer/svg/markup.h"

struct f2b_svg {
    f2b_text text;
    f2b_status status;
};

/* Series colours tell apart with the common colour-vision deficiencies (after Okabe and Ito),
 * lightened where the background is dark. */
static const char style[] =
    "<style>\n"
    "text{font:13px system-ui,'DejaVu Sans',Helvetica,Arial,sans-serif;fill:#1b1f24}\n"
    ".soft{fill:#59636e}.small{font-size:11px}.bold{font-weight:600;font-size:15px}\n"
    ".end{text-anchor:end}.middle{text-anchor:middle}\n"
    ".bg{fill:#fff}.line{stroke:#59636e;fill:none}.grid{stroke:#e2e6ea;fill:none}\n"
    ".series{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}\n"
    ".faint{stroke-width:1;opacity:.28}.dash{stroke-dasharray:6 4}\n"
    ".heat{fill:#e8590c}.cell{fill:#0072b2}\n"
    ".s0{stroke:#0072b2}.s1{stroke:#d55e00}.s2{stroke:#009e73}.s3{stroke:#c2559b}\n"
    ".s4{stroke:#c98a00}.s5{stroke:#7a5cc4}.s6{stroke:#1f9bb5}.s7{stroke:#6b7280}\n"
    "@media (prefers-color-scheme:dark){\n"
    "text{fill:#e6e9ed}.soft{fill:#9aa4af}.bg{fill:#14171c}.line{stroke:#9aa4af}"
    ".grid{stroke:#2a3038}\n"
    ".cell{fill:#58b0ec}\n"
    ".s0{stroke:#58b0ec}.s1{stroke:#ff8a4c}.s2{stroke:#3ecf9f}.s3{stroke:#e88fc4}\n"
    ".s4{stroke:#f2b93b}.s5{stroke:#a990ee}.s6{stroke:#5fd0e6}.s7{stroke:#a3abb5}\n"
    "}\n</style>\n";

f2b_svg *f2b_svg_new(double width, double height)
{
    f2b_svg *svg = f2b_calloc(1, sizeof *svg, F2B_TAG_OTHER);
    if (svg == NULL) return NULL;
    f2b_svg_add(svg,
                "<svg xmlns=\"http://www.w3.org/2000/svg\" "
                "xmlns:xlink=\"http://www.w3.org/1999/xlink\" width=\"%g\" height=\"%g\" "
                "viewBox=\"0 0 %g %g\">\n",
                width, height, width, height);
    f2b_svg_append(svg, style, sizeof style - 1);
    f2b_svg_add(svg, "<rect class=\"bg\" width=\"%g\" height=\"%g\"/>\n", width, height);
    return svg;
}

void f2b_svg_free(f2b_svg *svg)
{
    if (svg == NULL) return;
    f2b_text_free(&svg->text);
    f2b_free(svg);
}

void f2b_svg_append(f2b_svg *svg, const char *bytes, size_t n)
{
    if (svg->status == F2B_OK) svg->status = f2b_text_append(&svg->text, bytes, n);
}

void f2b_svg_add(f2b_svg *svg, const char *format, ...)
{
    char piece[1024];
    va_list arguments;
    va_start(arguments, format);
    const int n = vsnprintf(piece, sizeof piece, format, arguments);
    va_end(arguments);
    F2B_CHECK(n >= 0 && (size_t)n < sizeof piece); /* numbers and class names only */
    f2b_svg_append(svg, piece, (size_t)n);
}

void f2b_svg_text(f2b_svg *svg, double x, double y, const char *class, const char *text)
{
    f2b_svg_add(svg, "<text x=\"%.6g\" y=\"%.6g\" class=\"%s\" xml:space=\"preserve\">", x, y,
                class);
    if (svg->status == F2B_OK) svg->status = f2b_markup_text(&svg->text, text);
    f2b_svg_append(svg, "</text>\n", 8);
}

void f2b_svg_define_image(f2b_svg *svg, const char *id, const unsigned char *rgb, int width,
                          int height)
{
    f2b_svg_add(svg, "<defs><image id=\"%s\" width=\"%d\" height=\"%d\" xlink:href=\"", id, width,
                height);
    if (svg->status == F2B_OK) svg->status = f2b_markup_picture(&svg->text, rgb, width, height);
    f2b_svg_add(svg, "\"/></defs>\n");
}

f2b_status f2b_svg_write(f2b_svg *svg, const char *path)
{
    f2b_svg_append(svg, "</svg>\n", 7);
    if (svg->status != F2B_OK) return svg->status;
    return f2b_write_file(path, svg->text.text, svg->text.n);
}
