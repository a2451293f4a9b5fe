/* See utf8.h. */
#include "data/tokenizer/utf8.h"

#include <string.h>

static bool is_trail(unsigned char c) { return (c & 0xC0) == 0x80; }

/* Length that the first byte promises; 0 if it cannot begin a character. */
static size_t promised(unsigned char first)
{
    if (first < 0x80) return 1;
    if (first < 0xC2) return 0;             /* a trailing byte, or an overlong form of ASCII */
    if (first < 0xE0) return 2;
    if (first < 0xF0) return 3;
    return first < 0xF5 ? 4 : 0;
}

/* The second byte excludes overlong forms, surrogates and values above U+10FFFF. */
static bool second_fits(unsigned char first, unsigned char second)
{
    if (!is_trail(second)) return false;
    switch (first) {
    case 0xE0: return second >= 0xA0;
    case 0xED: return second < 0xA0;
    case 0xF0: return second >= 0x90;
    case 0xF4: return second < 0x90;
    default: return true;
    }
}

int f2bi_utf8_decode(const char *text, size_t bytes, uint32_t *code)
{
    const unsigned char *p = (const unsigned char *)text;
    const size_t length = bytes > 0 ? promised(p[0]) : 0;
    if (length == 0 || length > bytes) return 0;
    if (length == 1) {
        *code = p[0];
        return 1;
    }
    if (!second_fits(p[0], p[1])) return 0;
    uint32_t value = p[0] & (0x7Fu >> length);
    for (size_t i = 1; i < length; i++) {
        if (!is_trail(p[i])) return 0;
        value = value << 6 | (p[i] & 0x3Fu);
    }
    *code = value;
    return (int)length;
}

bool f2bi_utf8_is_prefix(const char *text, size_t bytes)
{
    const unsigned char *p = (const unsigned char *)text;
    if (bytes == 0) return true;
    if (bytes >= promised(p[0])) return false;
    if (bytes >= 2 && !second_fits(p[0], p[1])) return false;
    return bytes < 3 || is_trail(p[2]);
}

bool f2bi_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

const char *f2bi_strip(const char *text, size_t *bytes)
{
    const char *begin = text, *end = text + *bytes;
    uint32_t code;
    int length;
    while ((length = f2bi_utf8_decode(begin, (size_t)(end - begin), &code)) > 0 &&
           f2bi_is_space(code))
        begin += length;
    while (end > begin) {
        const char *last = end - 1;
        while (last > begin && is_trail((unsigned char)*last) && end - last < 4) last--;
        length = f2bi_utf8_decode(last, (size_t)(end - last), &code);
        if (length == 0 || last + length != end || !f2bi_is_space(code)) break;
        end = last;
    }
    *bytes = (size_t)(end - begin);
    return begin;
}
