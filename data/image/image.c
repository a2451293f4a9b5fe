/*
 * From a file or its bytes to RGB8, and from RGB8 to the tower's square. See image.h.
 */
#include "data/image/image.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "autograd/core/alloc.h"
#include "data/image/image_internal.h"

typedef enum format { JPEG, PNG, GIF, BMP, PNM, OTHER } format;

/* First bytes of what we read and of what people have under the name of a JPEG all the same. */
static const struct {
    int offset, length;
    const char *magic;
    format format;
    const char *name;
} signatures[] = {
    { 0, 3, "\xFF\xD8\xFF", JPEG, "JPEG" },
    { 0, 8, "\x89PNG\r\n\x1A\n", PNG, "PNG" },
    { 0, 6, "GIF87a", GIF, "GIF" },
    { 0, 6, "GIF89a", GIF, "GIF" },
    { 0, 2, "BM", BMP, "BMP" },
    { 0, 2, "P2", PNM, "Netpbm" },
    { 0, 2, "P3", PNM, "Netpbm" },
    { 0, 2, "P5", PNM, "Netpbm" },
    { 0, 2, "P6", PNM, "Netpbm" },
    { 8, 4, "WEBP", OTHER, "WebP" },
    { 0, 4, "II*\0", OTHER, "TIFF" },
    { 0, 4, "MM\0*", OTHER, "TIFF" },
    { 4, 8, "ftypavif", OTHER, "AVIF" },
    { 4, 5, "ftyph", OTHER, "HEIF" },
    { 4, 4, "jP  ", OTHER, "JPEG 2000" },
    { 0, 2, "\xFF\x0A", OTHER, "JPEG XL" },
    { 4, 4, "JXL ", OTHER, "JPEG XL" },
    { 0, 4, "8BPS", OTHER, "Photoshop" },
    { 0, 1, "<", OTHER, "HTML, XML or SVG" },
    { 0, 2, "\x1F\x8B", OTHER, "gzip" },
    { 0, 2, "PK", OTHER, "ZIP" },
};

/* Its format, or an error that names what it is. */
static f2b_status sniff(const uint8_t *bytes, int64_t n, const char *name, format *out)
{
    if (n == 0) return f2b_fail(F2B_ERR_FORMAT, "%s: the image file is empty", name);
    for (size_t i = 0; i < sizeof signatures / sizeof *signatures; i++) {
        const int offset = signatures[i].offset, length = signatures[i].length;
        if (n < offset + length || memcmp(bytes + offset, signatures[i].magic, (size_t)length) != 0) {
            continue;
        }
        *out = signatures[i].format;
        if (*out != OTHER) return F2B_OK;
        return f2b_fail(F2B_ERR_FORMAT, "%s: is %s, which is not read; convert it to JPEG or PNG", name,
                        signatures[i].name);
    }
    return f2b_fail(F2B_ERR_FORMAT, "%s: not an image (no known signature); JPEG, PNG, GIF, BMP and "
                    "Netpbm are read", name);
}

f2b_status f2bi_image_check_sides(int64_t width, int64_t height, const char *name)
{
    const bool ok = width >= 1 && height >= 1 && width <= F2B_IMAGE_MAX_SIDE
                    && height <= F2B_IMAGE_MAX_SIDE && width * height <= F2B_IMAGE_MAX_PIXELS;
    if (ok) return F2B_OK;
    return f2b_fail(F2B_ERR_FORMAT, "%s: %lld x %lld pixels; an image has 1 to %d a side and at most "
                    "%d in all", name, (long long)width, (long long)height, F2B_IMAGE_MAX_SIDE,
                    F2B_IMAGE_MAX_PIXELS);
}

/* More pixels than any compressor packs into so few bytes (deflate gives 1,032 bytes a byte, 8,256
 * pixels of one bit): a header that lies, at the price of all the memory it asks for. */
f2b_status f2bi_image_check_density(int64_t width, int64_t height, int64_t n, const char *name)
{
    enum { PIXELS_A_BYTE = 10000, ALWAYS = 1 << 20 };
    if (width * height <= ALWAYS + PIXELS_A_BYTE * n) return F2B_OK;
    return f2b_fail(F2B_ERR_FORMAT, "%s: damaged image (%lld x %lld pixels cannot come out of %lld "
                    "bytes)", name, (long long)width, (long long)height, (long long)n);
}

/* 16-bit grey as Pillow's mode I: values above 255 are white. */
static f2b_status clip_grey16(uint16_t *grey, int64_t pixels, uint8_t **rgb)
{
    *rgb = f2b_alloc_host((size_t)(pixels * 3), F2B_TAG_IMAGES);
    if (*rgb == NULL) return f2b_last_status();
    for (int64_t i = 0; i < pixels; i++) {
        memset(*rgb + i * 3, grey[i] > 255 ? 255 : grey[i], 3);
    }
    return F2B_OK;
}

f2b_status f2b_image_decode(const void *bytes, int64_t n, const char *name, f2b_image *image)
{
    *image = (f2b_image){ 0 };
    if (n > F2B_IMAGE_MAX_FILE_BYTES) {
        return f2b_fail(F2B_ERR_FORMAT, "%s: %lld bytes; an image file has at most %d", name,
                        (long long)n, F2B_IMAGE_MAX_FILE_BYTES);
    }
    format kind = OTHER;
    F2B_TRY(sniff(bytes, n, name, &kind));
    if (kind == JPEG) return f2bi_jpeg_decode(bytes, n, name, image);
    if (kind == PNM) return f2bi_pnm_decode(bytes, n, name, image);
    bool grey16 = false;
    if (kind == PNG) F2B_TRY(f2bi_png_check(bytes, n, name, &grey16));

    int64_t width, height;
    if (!f2bi_stb_info(bytes, n, &width, &height)) {
        return f2b_fail(F2B_ERR_FORMAT, "%s: damaged or unusual image header (%s)", name,
                        f2bi_stb_reason());
    }
    F2B_TRY(f2bi_image_check_sides(width, height, name));
    F2B_TRY(f2bi_image_check_density(width, height, n, name));
    /* No single buffer of a decoder is larger: 16-bit RGBA takes 8 bytes a pixel; the compressed
     * data grow by doubling. */
    const size_t limit = ((size_t)1 << 20) + (size_t)n * 4 + (size_t)((width + 64) * (height + 64)) * 16;
    bool truncated;
    void *pixels = f2bi_stb_decode(bytes, n, limit, grey16, &width, &height, &truncated);
    if (pixels == NULL || truncated) {
        f2b_free(pixels);
        return f2b_fail(F2B_ERR_FORMAT, "%s: %s image (%s)", name, truncated ? "truncated" : "damaged",
                        truncated ? "the file ends before the picture does" : f2bi_stb_reason());
    }
    uint8_t *rgb = pixels;
    if (grey16) {
        const f2b_status status = clip_grey16(pixels, width * height, &rgb);
        f2b_free(pixels);
        F2B_TRY(status);
    }
    *image = (f2b_image){ width, height, rgb };
    return F2B_OK;
}

/* The whole of an open file of `n` bytes. */
static f2b_status read_all(int file, const char *path, uint8_t *bytes, int64_t n)
{
    for (int64_t at = 0; at < n;) {
        const ssize_t got = read(file, bytes + at, (size_t)(n - at));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return f2b_fail_errno(F2B_ERR_IO, "%s: cannot read the image", path);
        if (got == 0) return f2b_fail(F2B_ERR_IO, "%s: became shorter while it was read", path);
        at += got;
    }
    return F2B_OK;
}

f2b_status f2b_image_open(const char *path, f2b_image *image)
{
    *image = (f2b_image){ 0 };
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) {
        return f2b_fail_errno(errno == ENOENT ? F2B_ERR_NOT_FOUND : F2B_ERR_IO,
                              "%s: cannot open the image", path);
    }
    struct stat about;
    f2b_status status = F2B_OK;
    uint8_t *bytes = NULL;
    if (fstat(file, &about) != 0 || !S_ISREG(about.st_mode)) {
        status = f2b_fail(F2B_ERR_IO, "%s: is not a regular file", path);
    } else if (about.st_size > F2B_IMAGE_MAX_FILE_BYTES) {
        status = f2b_fail(F2B_ERR_FORMAT, "%s: %lld bytes; an image file has at most %d", path,
                          (long long)about.st_size, F2B_IMAGE_MAX_FILE_BYTES);
    } else {
        bytes = f2b_alloc_host((size_t)about.st_size, F2B_TAG_FILES);
        status = bytes == NULL ? f2b_last_status() : read_all(file, path, bytes, about.st_size);
    }
    (void)close(file);
    if (status == F2B_OK) status = f2b_image_decode(bytes, about.st_size, path, image);
    f2b_free(bytes);
    return status;
}

void f2b_image_free(f2b_image *image)
{
    if (image == NULL) return;
    f2b_free(image->rgb);
    *image = (f2b_image){ 0 };
}

f2b_status f2b_image_prepare(const f2b_image *image, f2b_image_aspect aspect, int size,
                             const uint8_t background[3], uint8_t *out)
{
    const int64_t w = image->width, h = image->height;
    if (size < 1 || size > F2B_IMAGE_MAX_SIZE || image->rgb == NULL || w < 1 || h < 1) {
        return f2b_fail(F2B_ERR_INVALID, "image_prepare: size %d (1 to %d) of a %lld x %lld picture",
                        size, F2B_IMAGE_MAX_SIZE, (long long)w, (long long)h);
    }
    if (w == size && h == size) {                       /* both passes would be the identity */
        memcpy(out, image->rgb, (size_t)(w * h * 3));
        return F2B_OK;
    }
    if (aspect == F2B_IMAGE_PAD) {
        const int64_t side = w > h ? w : h;
        const f2bi_canvas canvas = { image, side, side, (side - w) / 2, (side - h) / 2,
                                     { background[0], background[1], background[2] } };
        return f2bi_resize(&canvas, size, size, 0, 0, size, out);
    }
    const f2bi_canvas canvas = { .image = image, .width = w, .height = h };
    const int64_t full_w = w <= h ? size : size * w / h, full_h = w <= h ? size * h / w : size;
    return f2bi_resize(&canvas, full_w, full_h, (full_w - size) / 2, (full_h - size) / 2, size, out);
}

void f2b_image_normalise(const uint8_t *rgb, int size, const float mean[3], const float std[3],
                         float *chw)
{
    const int64_t plane = (int64_t)size * size;
    for (int c = 0; c < 3; c++) {
        float value[256];
        for (int v = 0; v < 256; v++) {
            value[v] = ((float)(v * (1.0 / 255.0)) - mean[c]) / std[c];
        }
        for (int64_t i = 0; i < plane; i++) chw[c * plane + i] = value[rgb[i * 3 + c]];
    }
}
