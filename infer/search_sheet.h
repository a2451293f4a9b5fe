/*
 * The results of searches as a contact sheet: one HTML file that holds its pictures, for a browser.
 */
#ifndef F2B_INFER_SEARCH_SHEET_H
#define F2B_INFER_SEARCH_SHEET_H

#include "data/image/image.h"
#include "data/source/source.h"

/** A picture of the sheet: what it shows, and where it came from. */
typedef struct f2b_sheet_picture {
    const char *id;             /* borrowed */
    uint8_t *rgb;               /* [F2B_SHEET_SIDE, F2B_SHEET_SIDE, 3], owned; NULL: not found */
} f2b_sheet_picture;
enum { F2B_SHEET_SIDE = 224 };

/** The thumbnail of a picture, in the middle of a square of the sheet's grey: for f2b_free. */
uint8_t *f2b_sheet_thumbnail(const f2b_image *image);

/**
 * Fill the pictures that the source has, by their ids (f2b_source_image_id). What it has not, or
 * cannot be read, keeps rgb NULL. source: opened as F2B_SOURCE_IMAGES.
 */
f2b_status f2b_sheet_find(const f2b_source *source, f2b_sheet_picture *pictures,
                          int64_t n) F2B_MUST_USE;

typedef struct f2b_sheet f2b_sheet;

/** An empty sheet. NULL with F2B_ERR_MEMORY. */
f2b_sheet *f2b_sheet_new(const char *title);
void f2b_sheet_free(f2b_sheet *sheet);

/** Begin a query, shown as text and with its picture (rgb may be NULL); add a result of it: `name`
 *  below its picture (picture NULL: a text, which has none). What fails is remembered for write. */
void f2b_sheet_query(f2b_sheet *sheet, const char *text, const uint8_t *rgb);
void f2b_sheet_result(f2b_sheet *sheet, int64_t rank, double score, const char *name,
                      const f2b_sheet_picture *picture);

/** Close the document and write it, all or nothing. errors: F2B_ERR_IO, F2B_ERR_MEMORY. */
f2b_status f2b_sheet_write(f2b_sheet *sheet, const char *path) F2B_MUST_USE;

#endif
