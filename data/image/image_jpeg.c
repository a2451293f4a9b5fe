/*
 * JPEG by libjpeg-turbo, the decoder that Pillow uses, with the settings that Pillow uses: the same
 * bytes come out. Stricter than it in one way: where libjpeg warns that it made pixels up, or reaches
 * the end of the file before the picture's, there is no picture.
 */
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

#include "autograd/core/alloc.h"
#include "data/image/image_internal.h"

/* More scans than any encoder writes. A few bytes of a hostile file are a scan of all its pixels. */
enum { MAX_SCANS = 100, ROWS = 16 };

typedef struct decoder {
    struct jpeg_decompress_struct jpeg;         /* first: callbacks get a pointer to it */
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    jmp_buf escape;                             /* libjpeg's way out of an error */
    const char *name;
    int64_t n;
    uint8_t *rgb, *inks;                        /* the picture; ROWS rows of CMYK */
    f2b_status status;
} decoder;

static void stop(j_common_ptr jpeg)
{
    decoder *d = (decoder *)jpeg;
    char reason[JMSG_LENGTH_MAX];
    jpeg->err->format_message(jpeg, reason);
    d->status = f2b_fail(F2B_ERR_FORMAT, "%s: damaged JPEG (%s)", d->name, reason);
    longjmp(d->escape, 1);
}

/* Warnings after which pixels are a guess stop; others tell of oddities that Pillow reads over. */
static void warn(j_common_ptr jpeg, int level)
{
    if (level >= 0) return;                     /* a trace */
    switch (jpeg->err->msg_code) {
    case JWRN_ARITH_BAD_CODE:
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_JPEG_EOF:
    case JWRN_MUST_RESYNC: stop(jpeg); break;
    default: break;
    }
}

static boolean end_of_bytes(j_decompress_ptr jpeg)
{
    decoder *d = (decoder *)jpeg;
    d->status = f2b_fail(F2B_ERR_FORMAT, "%s: truncated JPEG (no end marker)", d->name);
    longjmp(d->escape, 1);
}

static void skip_bytes(j_decompress_ptr jpeg, long count)
{
    if (count <= 0) return;
    if ((size_t)count > jpeg->src->bytes_in_buffer) (void)end_of_bytes(jpeg);
    jpeg->src->next_input_byte += count;
    jpeg->src->bytes_in_buffer -= (size_t)count;
}

static void nothing(j_decompress_ptr jpeg) { (void)jpeg; }

static void count_scans(j_common_ptr jpeg)
{
    decoder *d = (decoder *)jpeg;
    if (d->jpeg.input_scan_number <= MAX_SCANS) return;
    d->status = f2b_fail(F2B_ERR_FORMAT, "%s: damaged JPEG (more than %d scans)", d->name, MAX_SCANS);
    longjmp(d->escape, 1);
}

/* Inks are stored inverted, as Adobe does, whoever wrote the file; the arithmetic is Pillow's. */
static void inks_to_rgb(const uint8_t *inks, int64_t pixels, uint8_t *rgb)
{
    for (int64_t i = 0; i < pixels; i++) {
        const int light = inks[i * 4 + 3];
        for (int c = 0; c < 3; c++) {
            const int product = (255 - inks[i * 4 + c]) * light + 128;
            const int value = light - (((product >> 8) + product) >> 8);
            rgb[i * 3 + c] = (uint8_t)(value < 0 ? 0 : value);
        }
    }
}

static f2b_status read_rows(decoder *d)
{
    struct jpeg_decompress_struct *jpeg = &d->jpeg;
    const int64_t width = jpeg->output_width, height = jpeg->output_height;
    const bool inks = jpeg->out_color_space == JCS_CMYK;
    const int64_t row_bytes = width * (inks ? 4 : 3);
    d->rgb = f2b_alloc_host((size_t)(width * height * 3), F2B_TAG_IMAGES);
    if (inks) d->inks = f2b_alloc_host((size_t)(row_bytes * ROWS), F2B_TAG_SCRATCH);
    if (d->rgb == NULL || (inks && d->inks == NULL)) return f2b_last_status();
    while (jpeg->output_scanline < jpeg->output_height) {
        const int64_t y = jpeg->output_scanline, left = height - y;
        JSAMPROW rows[ROWS];
        for (int i = 0; i < ROWS; i++)
            rows[i] = (inks ? d->inks : d->rgb + y * row_bytes) + (i < left ? i : 0) * row_bytes;
        const int64_t got = jpeg_read_scanlines(jpeg, rows, (JDIMENSION)(left < ROWS ? left : ROWS));
        if (inks) inks_to_rgb(d->inks, got * width, d->rgb + y * width * 3);
    }
    return F2B_OK;
}

/* All that may leave by longjmp. */
static f2b_status decode(decoder *d, const uint8_t *bytes)
{
    struct jpeg_decompress_struct *jpeg = &d->jpeg;
    jpeg_create_decompress(jpeg);
    d->source = (struct jpeg_source_mgr){ bytes, (size_t)d->n, nothing, end_of_bytes, skip_bytes,
                                          jpeg_resync_to_restart, nothing };
    d->progress.progress_monitor = count_scans;
    jpeg->src = &d->source;
    jpeg->progress = &d->progress;
    (void)jpeg_read_header(jpeg, TRUE);
    const int64_t width = jpeg->image_width, height = jpeg->image_height;
    F2B_TRY(f2bi_image_check_sides(width, height, d->name));
    F2B_TRY(f2bi_image_check_density(width, height, d->n, d->name));
    switch (jpeg->num_components) {
    case 1:
    case 3: jpeg->out_color_space = JCS_RGB; break;
    case 4: jpeg->out_color_space = JCS_CMYK; break;
    default:
        return f2b_fail(F2B_ERR_FORMAT, "%s: damaged or unusual JPEG (%d colour components)", d->name,
                        jpeg->num_components);
    }
    /* The coefficients of a progressive picture: two bytes a component and pixel, sides rounded up. */
    jpeg->mem->max_memory_to_use = (long)((1 << 20) + (width + 64) * (height + 64) * 16);
    (void)jpeg_start_decompress(jpeg);
    F2B_TRY(read_rows(d));
    (void)jpeg_finish_decompress(jpeg);
    return F2B_OK;
}

f2b_status f2bi_jpeg_decode(const uint8_t *bytes, int64_t n, const char *name, f2b_image *image)
{
    decoder d = { .name = name, .n = n };
    d.jpeg.err = jpeg_std_error(&d.errors);
    d.errors.error_exit = stop;
    d.errors.emit_message = warn;
    if (setjmp(d.escape) == 0) d.status = decode(&d, bytes);
    if (d.status == F2B_OK)
        *image = (f2b_image){ d.jpeg.image_width, d.jpeg.image_height, d.rgb };
    else f2b_free(d.rgb);
    f2b_free(d.inks);
    jpeg_destroy_decompress(&d.jpeg);
    return d.status;
}
