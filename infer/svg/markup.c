/* See markup.h. */
#include "infer/svg/markup.h"

#include <stdint.h>
#include <string.h>

#include "autograd/core/alloc.h"
#include "data/image/image.h"
#include "data/tokenizer/utf8.h"

/* XML has no control characters; four that mean something are named. */
f2b_status f2b_markup_text(f2b_text *out, const char *text)
{
    for (size_t n = strlen(text); n > 0;) {
        uint32_t code = 0;
        const int valid = f2bi_utf8_decode(text, n, &code);
        const size_t size = valid > 0 ? (size_t)valid : 1;
        const bool allowed = valid > 0 && code >= 0x20 && code != 0x7f && code != 0xfffe &&
                             code != 0xffff;
        if (code == '<') F2B_TRY(f2b_text_add(out, "&lt;"));
        else if (code == '>') F2B_TRY(f2b_text_add(out, "&gt;"));
        else if (code == '&') F2B_TRY(f2b_text_add(out, "&amp;"));
        else if (code == '"') F2B_TRY(f2b_text_add(out, "&quot;"));
        else if (allowed) F2B_TRY(f2b_text_append(out, text, size));
        else F2B_TRY(f2b_text_add(out, F2BI_REPLACEMENT));
        text += size, n -= size;
    }
    return F2B_OK;
}

static f2b_status add_base64(f2b_text *out, const uint8_t *bytes, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        const uint32_t b1 = i + 1 < n ? bytes[i + 1] : 0, b2 = i + 2 < n ? bytes[i + 2] : 0;
        const uint32_t word = (uint32_t)bytes[i] << 16 | b1 << 8 | b2;
        char four[4];
        for (int k = 0; k < 4; k++) four[k] = digits[word >> (18 - 6 * k) & 63];
        if (i + 1 >= n) four[2] = '=';
        if (i + 2 >= n) four[3] = '=';
        F2B_TRY(f2b_text_append(out, four, 4));
    }
    return F2B_OK;
}

f2b_status f2b_markup_picture(f2b_text *out, const unsigned char *rgb, int width, int height)
{
    int64_t n = 0;
    uint8_t *png = f2b_image_encode_png(rgb, width, height, &n);
    if (png == NULL) return f2b_last_status();
    f2b_status status = f2b_text_add(out, "data:image/png;base64,");
    if (status == F2B_OK) status = add_base64(out, png, (size_t)n);
    f2b_free(png);
    return status;
}
