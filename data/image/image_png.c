/*
 * What stb_image does not check of a PNG before it decodes it, and writing PNG files.
 */
#include <stdio.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "data/image/image_internal.h"

/* CRC-32 (ISO 3309) of the bytes, four at a time through four tables. */
static uint32_t crc32(const uint8_t *bytes, int64_t n)
{
    static _Thread_local uint32_t table[4][256];
    if (table[0][1] == 0) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int k = 0; k < 8; k++) c = (c >> 1) ^ (c & 1 ? 0xEDB88320u : 0);
            table[0][i] = c;
        }
        for (int t = 1; t < 4; t++) {
            for (uint32_t i = 0; i < 256; i++) {
                table[t][i] = (table[t - 1][i] >> 8) ^ table[0][table[t - 1][i] & 255];
            }
        }
    }
    uint32_t c = 0xFFFFFFFFu;
    for (; n >= 4; n -= 4, bytes += 4) {
        c ^= (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16
             | (uint32_t)bytes[3] << 24;
        c = table[3][c & 255] ^ table[2][c >> 8 & 255] ^ table[1][c >> 16 & 255] ^ table[0][c >> 24];
    }
    for (; n > 0; n--, bytes++) c = (c >> 8) ^ table[0][(c ^ *bytes) & 255];
    return ~c;
}

static uint32_t big32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

f2b_status f2bi_png_check(const uint8_t *bytes, int64_t n, const char *name, bool *grey16)
{
    int64_t at = 8;                                     /* behind the signature */
    *grey16 = false;
    for (;;) {
        if (n - at < 12) return f2b_fail(F2B_ERR_FORMAT, "%s: truncated PNG (no end chunk)", name);
        const int64_t length = big32(bytes + at);
        const uint8_t *type = bytes + at + 4;
        if (length > n - at - 12) {
            return f2b_fail(F2B_ERR_FORMAT, "%s: truncated PNG (a chunk at byte %lld says %lld bytes)",
                            name, (long long)at, (long long)length);
        }
        const bool critical = (type[0] & 0x20) == 0;
        if (critical && crc32(type, length + 4) != big32(bytes + at + 8 + length)) {
            return f2b_fail(F2B_ERR_FORMAT, "%s: damaged PNG (wrong checksum in the chunk at byte "
                            "%lld)", name, (long long)at);
        }
        if (at == 8 && memcmp(type, "IHDR", 4) == 0 && length >= 13) {
            *grey16 = type[4 + 8] == 16 && type[4 + 9] == 0;
        }
        if (memcmp(type, "IEND", 4) == 0) return F2B_OK;
        at += 12 + length;
    }
}

uint8_t *f2b_image_encode_png(const uint8_t *rgb, int64_t width, int64_t height, int64_t *bytes)
{
    if (f2bi_image_check_sides(width, height, "a PNG") != F2B_OK) return NULL;
    int n = 0;
    uint8_t *png = f2bi_stb_png(rgb, (int)width, (int)height, &n);
    if (png == NULL) (void)f2b_fail(F2B_ERR_MEMORY, "out of memory for a PNG");
    *bytes = n;
    return png;
}

f2b_status f2b_image_write_png(const char *path, const uint8_t *rgb, int64_t width, int64_t height)
{
    int64_t bytes;
    uint8_t *png = f2b_image_encode_png(rgb, width, height, &bytes);
    if (png == NULL) return f2b_fail_context("%s", path);
    FILE *file = fopen(path, "wb");
    bool ok = file != NULL;
    if (ok) {
        ok = fwrite(png, 1, (size_t)bytes, file) == (size_t)bytes;
        if (fclose(file) != 0) ok = false;
        if (!ok) (void)remove(path);
    }
    f2b_free(png);
    return ok ? F2B_OK : f2b_fail_errno(F2B_ERR_IO, "%s: cannot write the PNG", path);
}
