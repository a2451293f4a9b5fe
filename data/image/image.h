/*
 * Images: file bytes -> RGB8 -> the square uint8 picture that the vision tower was trained on -> f32.
 *
 * Everything here follows what LLaVA's Python stack does (Pillow's open().convert('RGB'),
 * expand2square, Pillow's bicubic resize on uint8, CLIP's rescale and normalise), because the frozen
 * tower has only ever seen that, and equal to it to the byte: JPEG is decoded by libjpeg-turbo as in
 * Pillow, the lossless formats by stb_image; resizing is our own.
 * All functions are pure but for the files they name, and safe to call from many threads.
 */
#ifndef F2B_DATA_IMAGE_IMAGE_H
#define F2B_DATA_IMAGE_IMAGE_H

#include <stdint.h>

#include "autograd/core/status.h"

/** Limits of what is decoded; more is an error, so that one bad file cannot take the memory. */
enum {
    F2B_IMAGE_MAX_SIDE = 65535,             /* JPEG's own limit */
    F2B_IMAGE_MAX_PIXELS = 89478485,        /* where Pillow starts to warn of a decompression bomb */
    F2B_IMAGE_MAX_FILE_BYTES = 1 << 28,
    F2B_IMAGE_MAX_SIZE = 4096,              /* S, the side of a prepared image */
};

/** Who turns files into pixels, for whatever keeps results made of them (train/feature_cache.h): another
 *  decoder gives other pixels, so a change of decoder changes this text. */
#define F2B_IMAGE_DECODERS "libjpeg-turbo, stb_image, own netpbm"

/** A decoded picture. {0} is an empty one. */
typedef struct f2b_image {
    int64_t width, height;
    uint8_t *rgb;                           /* [height, width, 3], owned; NULL when empty */
} f2b_image;

/** How a picture becomes the S x S square. */
typedef enum f2b_image_aspect {
    F2B_IMAGE_PAD,      /* LLaVA: pad to a square with the mean colour, then resize */
    F2B_IMAGE_CROP,     /* llava-hf: resize the shortest edge to S, then crop the centre */
} f2b_image_aspect;

/**
 * Decode a picture held in memory, by its content and never by its name, as Pillow's
 * convert('RGB') does: grey is copied to three channels, 16-bit colour keeps its upper byte, 16-bit
 * grey without alpha is clipped at 255 (as Pillow does, strange as it is), palettes are looked up,
 * transparency is dropped, Adobe CMYK is converted, the first frame of a GIF is taken, EXIF
 * orientation is ignored. JPEG, PNG, GIF, BMP and binary PNM are read.
 *
 * bytes, n  the file's content, borrowed.
 * name      what error messages call it (a path, or "shard.tar: member").
 * image     receives the picture; free it with f2b_image_free. Left empty on failure.
 * errors    F2B_ERR_FORMAT: not a picture, a format that is not read (it is named), truncated,
 *           damaged (PNG checksums are verified), or above the limits; F2B_ERR_MEMORY.
 */
f2b_status f2b_image_decode(const void *bytes, int64_t n, const char *name, f2b_image *image)
    F2B_MUST_USE;

/** As f2b_image_decode, from a file. errors: also F2B_ERR_NOT_FOUND, F2B_ERR_IO (not a regular file,
 *  unreadable), F2B_ERR_FORMAT for an empty or too large file. */
f2b_status f2b_image_open(const char *path, f2b_image *image) F2B_MUST_USE;

/** Free the pixels and make the image empty. NULL and empty images are allowed. */
void f2b_image_free(f2b_image *image);

/**
 * The square picture of side `size`, as the vision tower expects it.
 *
 * PAD:  side = max(w, h); paste at ((side-w)/2, (side-h)/2) on `background`; Pillow bicubic to
 *       size x size.
 * CROP: Pillow bicubic to (size, size*long/short), shortest edge first; centre crop, an odd excess
 *       halved downwards.
 *
 * image       borrowed, not empty.
 * background  RGB of the padding (f2b_image_settings); unused by CROP.
 * out         [size, size, 3], the caller's.
 * errors      F2B_ERR_INVALID (size outside 1..F2B_IMAGE_MAX_SIZE, empty image), F2B_ERR_MEMORY.
 * source      llava/mm_utils.py expand2square; transformers CLIPImageProcessor;
 *             Pillow src/libImaging/Resample.c.
 */
f2b_status f2b_image_prepare(const f2b_image *image, f2b_image_aspect aspect, int size,
                             const uint8_t background[3], uint8_t *out) F2B_MUST_USE;

/**
 * chw[c,y,x] = ((float)(rgb[y,x,c] / 255) - mean[c]) / std[c], to the bit as transformers computes it
 * (rescale in f64, rounded to f32, then f32).
 * rgb [size, size, 3] borrowed; chw f32 [3, size, size], the caller's.
 */
void f2b_image_normalise(const uint8_t *rgb, int size, const float mean[3], const float std[3],
                         float *chw);

/** RGB8 pixels [height, width, 3] as a PNG in memory (f2b_free), its size into *bytes. NULL with
 *  F2B_ERR_FORMAT (sides above the limits) or F2B_ERR_MEMORY. */
uint8_t *f2b_image_encode_png(const uint8_t *rgb, int64_t width, int64_t height, int64_t *bytes);

/** Write RGB8 pixels [height, width, 3] as a PNG. errors: F2B_ERR_IO with the path; F2B_ERR_MEMORY. */
f2b_status f2b_image_write_png(const char *path, const uint8_t *rgb, int64_t width, int64_t height)
    F2B_MUST_USE;

#endif
