/*
 * Netpbm: P2 and P5 (grey), P3 and P6 (colour), text and binary, any maxval up to 65535.
 * Values are scaled as Pillow's PpmImagePlugin does; grey above 8 bits becomes its mode I, which
 * convert('RGB') clips at 255.
 */
#include <math.h>

#include "autograd/core/alloc.h"
#include "data/image/image_internal.h"

typedef struct reader {
    const uint8_t *bytes;
    int64_t n, at;
} reader;

static bool is_space(int c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* The next decimal number behind blanks and comments, at most 99,999; -1 if there is none. */
static int64_t next_number(reader *r)
{
    while (r->at < r->n && (is_space(r->bytes[r->at]) || r->bytes[r->at] == '#')) {
        if (r->bytes[r->at] == '#') {
            while (r->at < r->n && r->bytes[r->at] != '\n' && r->bytes[r->at] != '\r') r->at++;
        } else {
            r->at++;
        }
    }
    int64_t value = -1;
    for (; r->at < r->n && r->bytes[r->at] >= '0' && r->bytes[r->at] <= '9'; r->at++) {
        value = (value < 0 ? 0 : value) * 10 + (r->bytes[r->at] - '0');
        if (value > 99999) return -1;
    }
    return value;
}

/* The next sample; -1 at the end of the data. */
static int64_t next_sample(reader *r, bool text, bool wide)
{
    if (text) return next_number(r);
    if (r->n - r->at < (wide ? 2 : 1)) return -1;
    int64_t value = r->bytes[r->at++];
    if (wide) value = value << 8 | r->bytes[r->at++];
    return value;
}

f2b_status f2bi_pnm_decode(const uint8_t *bytes, int64_t n, const char *name, f2b_image *image)
{
    const bool text = bytes[1] == '2' || bytes[1] == '3';
    const bool grey = bytes[1] == '2' || bytes[1] == '5';
    reader r = { bytes, n, 2 };
    const int64_t width = next_number(&r), height = next_number(&r), maxval = next_number(&r);
    if (width < 0 || height < 0 || maxval < 1 || maxval > 65535 || r.at >= n) {
        return f2b_fail(F2B_ERR_FORMAT, "%s: damaged Netpbm header", name);
    }
    F2B_TRY(f2bi_image_check_sides(width, height, name));
    r.at++;                                             /* exactly one blank before the pixels */
    const bool wide = maxval > 255;
    const int64_t samples = width * height * (grey ? 1 : 3);
    if ((n - r.at) / (text ? 1 : wide ? 2 : 1) < samples) {
        return f2b_fail(F2B_ERR_FORMAT, "%s: truncated Netpbm picture", name);
    }
    uint8_t *rgb = f2b_alloc_host((size_t)(width * height * 3), F2B_TAG_IMAGES);
    if (rgb == NULL) return f2b_last_status();

    const double top = grey && wide ? 65535.0 : 255.0;
    for (int64_t i = 0; i < samples; i++) {
        const int64_t value = next_sample(&r, text, wide);
        if (value < 0 || (text && value > maxval)) {
            f2b_free(rgb);
            return f2b_fail(F2B_ERR_FORMAT, "%s: truncated or damaged Netpbm picture (sample %lld of "
                            "%lld)", name, (long long)i, (long long)samples);
        }
        const double scaled = nearbyint((double)value / (double)maxval * top);
        const uint8_t byte = (uint8_t)(scaled > 255.0 ? 255.0 : scaled);
        if (grey) rgb[i * 3] = rgb[i * 3 + 1] = rgb[i * 3 + 2] = byte;
        else rgb[i] = byte;
    }
    *image = (f2b_image){ width, height, rgb };
    return F2B_OK;
}
