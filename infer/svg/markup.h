/*
 * What SVG and HTML files are made of: escaped text, and pictures as data within the file.
 */
#ifndef F2B_INFER_SVG_MARKUP_H
#define F2B_INFER_SVG_MARKUP_H

#include "data/tokenizer/buffers.h"

/** Append a text such that it reads as text, in an attribute too: the characters that mean
 *  something are named; what is no UTF-8, and control characters, become U+FFFD. */
f2b_status f2b_markup_text(f2b_text *out, const char *text) F2B_MUST_USE;

/** Append RGB8 pixels [height, width, 3] as the URI of a PNG: "data:image/png;base64,...". */
f2b_status f2b_markup_picture(f2b_text *out, const unsigned char *rgb, int width,
                              int height) F2B_MUST_USE;

#endif
