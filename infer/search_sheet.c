/* A contact sheet. See search_sheet.h for the contract. */
#include "infer/search_sheet.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "checkpoints/atomic_file.h"
#include "infer/svg/markup.h"

struct f2b_sheet {
    f2b_text text;
    f2b_status status;
    bool in_query;
};

/* ---- Pictures ---- */

uint8_t *f2b_sheet_thumbnail(const f2b_image *image)
{
    static const uint8_t grey[3] = { 0x80, 0x80, 0x80 };
    uint8_t *rgb = f2b_alloc_host((size_t)F2B_SHEET_SIDE * F2B_SHEET_SIDE * 3, F2B_TAG_IMAGES);
    if (rgb == NULL) return NULL;
    if (f2b_image_prepare(image, F2B_IMAGE_PAD, F2B_SHEET_SIDE, grey, rgb) == F2B_OK) return rgb;
    f2b_free(rgb);
    return NULL;
}

static int by_id(const void *a, const void *b)
{
    return strcmp((*(f2b_sheet_picture *const *)a)->id, (*(f2b_sheet_picture *const *)b)->id);
}

/* A picture that cannot be read is as one that is not there: its place says its name. */
static f2b_status read_picture(const f2b_source *source, f2b_record *record, uint8_t **rgb)
{
    uint8_t *bytes = NULL;
    int64_t n = 0;
    f2b_image image = { 0 };
    F2B_TRY(f2b_source_image(source, record, &bytes, &n));
    f2b_status status = F2B_OK;
    if (bytes != NULL && f2b_image_decode(bytes, n, record->image, &image) == F2B_OK)
        *rgb = f2b_sheet_thumbnail(&image);
    if (bytes != NULL && *rgb == NULL && f2b_last_status() == F2B_ERR_MEMORY)
        status = F2B_ERR_MEMORY;
    f2b_image_free(&image);
    f2b_free(bytes);
    return status;
}

/* sorted: by id, [n]; of equal ids each gets the picture. */
static f2b_status take(const f2b_source *source, f2b_record *record, f2b_sheet_picture **sorted,
                       int64_t n, int64_t *missing)
{
    if (record->image == NULL) return F2B_OK;
    char *id = f2b_source_image_id(source, record);
    if (id == NULL) return f2b_last_status();
    const f2b_sheet_picture wanted = { .id = id }, *key = &wanted;
    f2b_sheet_picture **found =
        bsearch(&key, sorted, (size_t)n, sizeof *sorted, by_id);
    f2b_status status = F2B_OK;
    uint8_t *rgb = NULL;
    if (found != NULL && (*found)->rgb == NULL) status = read_picture(source, record, &rgb);
    while (rgb != NULL && found > sorted && strcmp(found[-1]->id, id) == 0) found--;
    for (; status == F2B_OK && rgb != NULL && found < sorted + n && strcmp((*found)->id, id) == 0;
         found++) {
        const size_t bytes = (size_t)F2B_SHEET_SIDE * F2B_SHEET_SIDE * 3;
        (*found)->rgb = f2b_alloc_host(bytes, F2B_TAG_IMAGES);
        if ((*found)->rgb == NULL) status = f2b_last_status();
        else memcpy((*found)->rgb, rgb, bytes), --*missing;
    }
    f2b_free(rgb);
    f2b_free(id);
    return status;
}

f2b_status f2b_sheet_find(const f2b_source *source, f2b_sheet_picture *pictures, int64_t n)
{
    f2b_sheet_picture **sorted = f2b_calloc((size_t)n, sizeof *sorted, F2B_TAG_OTHER);
    if (sorted == NULL) return f2b_last_status();
    for (int64_t i = 0; i < n; i++) sorted[i] = &pictures[i];
    if (n > 0) qsort(sorted, (size_t)n, sizeof *sorted, by_id);
    f2b_record record = { 0 };
    f2b_status status = F2B_OK;
    int64_t missing = n;
    for (int64_t i = 0; status == F2B_OK && missing > 0 && i < f2b_source_count(source); i++) {
        status = f2b_source_read(source, i, &record);
        if (status == F2B_OK) status = take(source, &record, sorted, n, &missing);
    }
    f2b_record_clear(&record);
    f2b_free(sorted);
    return status;
}

/* ---- The document ---- */

static const char head[] =
    "<style>\n"
    ":root{color-scheme:light dark}\n"
    "body{font:15px system-ui,'DejaVu Sans',Helvetica,Arial,sans-serif;margin:1.5rem;"
    "background:Canvas;color:CanvasText}\n"
    "h1{font-size:1.3rem}h2{font-size:1.1rem;margin:2rem 0 .7rem;display:flex;gap:1rem;"
    "align-items:center;overflow-wrap:anywhere}\n"
    "h2 img{width:96px;height:96px;border-radius:6px}\n"
    "ol{list-style:none;margin:0;padding:0;display:grid;gap:1rem;"
    "grid-template-columns:repeat(auto-fill,minmax(200px,1fr))}\n"
    "li img,.none{width:100%;aspect-ratio:1;border-radius:6px;background:#80808033;display:block}\n"
    ".none{display:flex;align-items:center;justify-content:center;color:#808080;font-size:12px}\n"
    ".name{font-size:12px;overflow-wrap:anywhere}.score{font-weight:600}\n"
    ".text{font-size:15px}\n"
    "</style>\n</head>\n<body>\n";

static void add(f2b_sheet *s, const char *markup)
{
    if (s->status == F2B_OK) s->status = f2b_text_add(&s->text, markup);
}

static void add_text(f2b_sheet *s, const char *text)
{
    if (s->status == F2B_OK) s->status = f2b_markup_text(&s->text, text);
}

static void add_picture(f2b_sheet *s, const uint8_t *rgb, const char *name)
{
    add(s, "<img alt=\"");
    add_text(s, name);
    add(s, "\" src=\"");
    if (s->status == F2B_OK)
        s->status = f2b_markup_picture(&s->text, rgb, F2B_SHEET_SIDE, F2B_SHEET_SIDE);
    add(s, "\">");
}

f2b_sheet *f2b_sheet_new(const char *title)
{
    f2b_sheet *s = f2b_calloc(1, sizeof *s, F2B_TAG_OTHER);
    if (s == NULL) return NULL;
    add(s, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
           "<meta name=\"viewport\" content=\"width=device-width\">\n<title>");
    add_text(s, title);
    add(s, "</title>\n");
    add(s, head);
    add(s, "<h1>");
    add_text(s, title);
    add(s, "</h1>\n");
    return s;
}

void f2b_sheet_free(f2b_sheet *s)
{
    if (s == NULL) return;
    f2b_text_free(&s->text);
    f2b_free(s);
}

void f2b_sheet_query(f2b_sheet *s, const char *text, const uint8_t *rgb)
{
    if (s->in_query) add(s, "</ol>\n");
    s->in_query = true;
    add(s, "<h2>");
    if (rgb != NULL) add_picture(s, rgb, text);
    add(s, "<span>");
    add_text(s, text);
    add(s, "</span></h2>\n<ol>\n");
}

void f2b_sheet_result(f2b_sheet *s, int64_t rank, double score, const char *name,
                      const f2b_sheet_picture *picture)
{
    char number[64];
    snprintf(number, sizeof number, "%" PRId64 ". <span class=\"score\">%.4f</span>", rank, score);
    add(s, "<li>");
    if (picture != NULL && picture->rgb != NULL) add_picture(s, picture->rgb, name);
    else if (picture != NULL) add(s, "<div class=\"none\">image not found</div>");
    add(s, "<div>");
    add(s, number);
    add(s, picture != NULL ? "</div><div class=\"name\">" : "</div><div class=\"text\">");
    add_text(s, name);
    add(s, "</div></li>\n");
}

f2b_status f2b_sheet_write(f2b_sheet *s, const char *path)
{
    if (s->in_query) add(s, "</ol>\n");
    add(s, "</body>\n</html>\n");
    return s->status != F2B_OK ? s->status : f2b_write_file(path, s->text.text, s->text.n);
}
