/*
 * The one file that holds stb_image and stb_image_write. Compiled as static functions, because
 * Debian's libstb exports the same names with other limits and another allocator.
 *
 * Their memory comes from our allocator and no block may be larger than the picture in hand
 * explains: a PNG of 10 x 10 pixels that inflates to gigabytes fails here.
 */
#include "data/image/image_internal.h"

#include <string.h>

#include "autograd/core/alloc.h"

static _Thread_local size_t block_limit = (size_t)1 << 20;

static void *stb_alloc(size_t bytes)
{
    return bytes > block_limit ? NULL : f2b_alloc_host(bytes, F2B_TAG_IMAGES);
}

static void *stb_realloc(void *block, size_t bytes)
{
    return bytes > block_limit ? NULL : f2b_realloc(block, bytes, F2B_TAG_IMAGES);
}

#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#define STBI_NO_STDIO
#define STBI_NO_JPEG
#define STBI_NO_HDR
#define STBI_NO_LINEAR
#define STBI_NO_PIC
#define STBI_NO_PSD
#define STBI_NO_TGA
#define STBI_NO_PNM
#define STBI_MAX_DIMENSIONS F2B_IMAGE_MAX_SIDE
#define STBI_ASSERT(x) ((void)0)
#define STBI_MALLOC(bytes) stb_alloc(bytes)
#define STBI_REALLOC(block, bytes) stb_realloc(block, bytes)
#define STBI_FREE(block) f2b_free(block)

#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STBI_WRITE_NO_STDIO
#define STBIW_ASSERT(x) ((void)0)
#define STBIW_MALLOC(bytes) f2b_alloc_host(bytes, F2B_TAG_IMAGES)
#define STBIW_REALLOC(block, bytes) f2b_realloc(block, bytes, F2B_TAG_IMAGES)
#define STBIW_FREE(block) f2b_free(block)

/* Reported at the end of the file, so it stays off: stb declares functions that we do not build. */
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wall"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wunused-but-set-variable"
#include <stb/stb_image.h>
#include <stb/stb_image_write.h>
#pragma GCC diagnostic pop

/* A reader over memory that knows whether the decoder asked for bytes behind the end: most of stb's
 * decoders take such bytes for zeros, so that half a picture would come out as a whole one. */
typedef struct source {
    const uint8_t *bytes;
    int64_t n, at;
    bool overrun;
} source;

static int source_read(void *user, char *data, int size)
{
    source *s = user;
    const int64_t left = s->n - s->at, take = left < size ? left : size;
    if (take == 0 && size > 0) s->overrun = true;
    if (take > 0) memcpy(data, s->bytes + s->at, (size_t)take);
    s->at += take;
    return (int)take;
}

static void source_skip(void *user, int count)
{
    source *s = user;
    if (count > s->n - s->at) s->overrun = true;
    const int64_t to = s->at + count;
    s->at = to < 0 ? 0 : to > s->n ? s->n : to;
}

static int source_eof(void *user)
{
    const source *s = user;
    return s->at >= s->n;
}

static const stbi_io_callbacks callbacks = { source_read, source_skip, source_eof };

bool f2bi_stb_info(const void *bytes, int64_t n, int64_t *width, int64_t *height)
{
    int w = 0, h = 0, channels = 0;
    if (!stbi_info_from_memory(bytes, (int)n, &w, &h, &channels)) return false;
    *width = w, *height = h;
    return true;
}

void *f2bi_stb_decode(const void *bytes, int64_t n, size_t limit, bool grey16, int64_t *width,
                      int64_t *height, bool *truncated)
{
    source s = { .bytes = bytes, .n = n };
    int w = 0, h = 0, channels = 0;
    block_limit = limit;
    void *pixels = grey16 ? (void *)stbi_load_16_from_callbacks(&callbacks, &s, &w, &h, &channels, 1)
                          : (void *)stbi_load_from_callbacks(&callbacks, &s, &w, &h, &channels, 3);
    *width = w, *height = h;
    *truncated = s.overrun;
    return pixels;
}

const char *f2bi_stb_reason(void)
{
    const char *reason = stbi_failure_reason();
    return reason != NULL ? reason : "unknown reason";
}

uint8_t *f2bi_stb_png(const uint8_t *rgb, int width, int height, int *bytes)
{
    return stbi_write_png_to_mem(rgb, width * 3, width, height, 3, bytes);
}
