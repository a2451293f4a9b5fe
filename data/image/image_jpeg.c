/*
 * What must hold of a JPEG before stb_image may see it: stb 2.27, the version of Debian 12, writes
 * behind its Huffman tables when a DHT segment declares more than 256 codes. This walk reads the same
 * markers at the same places as stb does, or refuses where stb refuses too.
 */
#include <string.h>

#include "data/image/image_internal.h"

enum { EOI = 0xD9, DHT = 0xC4, RST0 = 0xD0, RST7 = 0xD7 };

/* The place of the next marker's code at or behind `at`, or n. */
static int64_t next_marker(const uint8_t *bytes, int64_t n, int64_t at)
{
    while (at < n) {
        const uint8_t *mark = memchr(bytes + at, 0xFF, (size_t)(n - at));
        if (mark == NULL) return n;
        at = mark - bytes;
        while (at < n && bytes[at] == 0xFF) at++;       /* fill bytes */
        if (at < n && bytes[at] != 0 && !(bytes[at] >= RST0 && bytes[at] <= RST7)) return at;
    }
    return n;
}

/* The tables of a DHT segment's payload: class and place, 16 counts, that many symbols. */
static bool huffman_tables_fit(const uint8_t *p, int64_t n)
{
    while (n > 0) {
        if (n < 17 || p[0] >> 4 > 1 || (p[0] & 15) > 3) return false;
        int64_t codes = 0;
        for (int i = 1; i <= 16; i++) codes += p[i];
        if (codes > 256 || codes > n - 17) return false;
        p += 17 + codes;
        n -= 17 + codes;
    }
    return true;
}

f2b_status f2bi_jpeg_check(const uint8_t *bytes, int64_t n, const char *name)
{
    for (int64_t at = 2;;) {                            /* behind SOI */
        at = next_marker(bytes, n, at);
        if (at < n && bytes[at] == EOI) return F2B_OK;
        const int64_t length = n - at < 3 ? -1 : bytes[at + 1] << 8 | bytes[at + 2];
        if (length < 0 || length > n - at - 1) {
            return f2b_fail(F2B_ERR_FORMAT, "%s: truncated JPEG (no end marker)", name);
        }
        if (length < 2 || (bytes[at] == DHT && !huffman_tables_fit(bytes + at + 3, length - 2))) {
            return f2b_fail(F2B_ERR_FORMAT, "%s: damaged JPEG (segment %02X at byte %lld)", name,
                            bytes[at], (long long)at - 1);
        }
        at += 1 + length;
    }
}
