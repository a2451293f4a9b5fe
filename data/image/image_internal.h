/* What the files of data/image share: the seams to the decoders, and the resampler. */
#ifndef F2B_DATA_IMAGE_IMAGE_INTERNAL_H
#define F2B_DATA_IMAGE_IMAGE_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>

#include "data/image/image.h"

/* Width and height from the header; false with f2bi_stb_reason. */
bool f2bi_stb_info(const void *bytes, int64_t n, int64_t *width, int64_t *height);

/*
 * Decode to RGB8 [h,w,3], or to u16 [h,w] for grey16. `limit` bounds every single allocation.
 * NULL with f2bi_stb_reason on failure. *truncated tells, also on success, whether the decoder read
 * behind the end of the data. Free with f2b_free.
 */
void *f2bi_stb_decode(const void *bytes, int64_t n, size_t limit, bool grey16, int64_t *width,
                      int64_t *height, bool *truncated);
const char *f2bi_stb_reason(void);

/* RGB8 as a PNG file in memory (f2b_free), or NULL. */
uint8_t *f2bi_stb_png(const uint8_t *rgb, int width, int height, int *bytes);

/*
 * The integrity of a PNG: signature, chunk lengths, CRC-32 of the critical chunks, IEND. stb checks
 * none of it, and would decode flipped bits into a wrong picture. *grey16 becomes true for 16-bit
 * grey without alpha. errors: F2B_ERR_FORMAT naming `name`.
 */
f2b_status f2bi_png_check(const uint8_t *bytes, int64_t n, const char *name, bool *grey16)
    F2B_MUST_USE;

/* JPEG, by libjpeg-turbo (image_jpeg.c). errors: F2B_ERR_FORMAT naming `name`, F2B_ERR_MEMORY. */
f2b_status f2bi_jpeg_decode(const uint8_t *bytes, int64_t n, const char *name, f2b_image *image)
    F2B_MUST_USE;

/*
 * Netpbm pictures P2, P3, P5, P6 of any maxval, as Pillow reads them (stb reads 16-bit ones in the
 * wrong byte order and ignores maxval).
 */
f2b_status f2bi_pnm_decode(const uint8_t *bytes, int64_t n, const char *name, f2b_image *image)
    F2B_MUST_USE;

/* Refuse a picture whose sides are not in 1..F2B_IMAGE_MAX_SIDE or that has too many pixels. */
f2b_status f2bi_image_check_sides(int64_t width, int64_t height, const char *name) F2B_MUST_USE;

/* Refuse more pixels than n bytes can hold, whatever packed them. */
f2b_status f2bi_image_check_density(int64_t width, int64_t height, int64_t n, const char *name)
    F2B_MUST_USE;

/*
 * A picture pasted at (left, top) on a canvas of one colour; the canvas never exists in memory.
 * The picture lies wholly inside.
 */
typedef struct f2bi_canvas {
    const f2b_image *image;
    int64_t width, height, left, top;
    uint8_t background[3];
} f2bi_canvas;

/*
 * Pillow's bicubic resize of the canvas to full_width x full_height, of which only the window
 * [x, x+size) x [y, y+size) is computed: out [size, size, 3].
 */
f2b_status f2bi_resize(const f2bi_canvas *canvas, int64_t full_width, int64_t full_height, int64_t x,
                       int64_t y, int size, uint8_t *out) F2B_MUST_USE;

#endif
