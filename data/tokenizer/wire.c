/* See wire.h. */
#include "data/tokenizer/wire.h"

#include <string.h>

static bool read_varint(f2bi_wire *w, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; shift < 70 && w->at < w->end; shift += 7) {
        const unsigned char c = *w->at++;
        if (shift == 63 && c > 1) return false;     /* more than 64 bits */
        *value |= (uint64_t)(c & 0x7F) << shift;
        if (c < 0x80) return true;
    }
    return false;
}

static bool read_fixed(f2bi_wire *w, int bytes, uint64_t *value)
{
    if (w->end - w->at < bytes) return false;
    *value = 0;
    for (int i = 0; i < bytes; i++) *value |= (uint64_t)*w->at++ << (8 * i);
    return true;
}

bool f2bi_wire_next(f2bi_wire *w, f2bi_field *field, bool *damaged)
{
    *damaged = false;
    if (w->at == w->end) return false;
    *damaged = true;
    uint64_t key;
    if (!read_varint(w, &key) || key >> 3 == 0 || key >> 3 > UINT32_MAX) return false;
    *field = (f2bi_field){ .number = (uint32_t)(key >> 3) };
    switch (key & 7) {
    case F2BI_WIRE_VARINT:
        field->kind = F2BI_WIRE_VARINT;
        if (!read_varint(w, &field->value)) return false;
        break;
    case F2BI_WIRE_FIXED64:
        field->kind = F2BI_WIRE_FIXED64;
        if (!read_fixed(w, 8, &field->value)) return false;
        break;
    case F2BI_WIRE_FIXED32:
        field->kind = F2BI_WIRE_FIXED32;
        if (!read_fixed(w, 4, &field->value)) return false;
        break;
    case F2BI_WIRE_BYTES:
        field->kind = F2BI_WIRE_BYTES;
        if (!read_varint(w, &field->value) || field->value > (uint64_t)(w->end - w->at))
            return false;
        field->bytes = (f2bi_wire){ w->at, w->at + field->value };
        w->at += field->value;
        break;
    default:
        return false;                               /* groups: no writer of this format uses them */
    }
    *damaged = false;
    return true;
}

float f2bi_wire_float(const f2bi_field *field)
{
    const uint32_t bits = (uint32_t)field->value;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static f2b_status put_raw_varint(f2b_text *out, uint64_t value)
{
    char bytes[10];
    size_t n = 0;
    for (; value >= 0x80; value >>= 7) bytes[n++] = (char)(value | 0x80);
    bytes[n++] = (char)value;
    return f2b_text_append(out, bytes, n);
}

f2b_status f2bi_wire_put_varint(f2b_text *out, uint32_t number, uint64_t value)
{
    F2B_TRY(put_raw_varint(out, (uint64_t)number << 3 | F2BI_WIRE_VARINT));
    return put_raw_varint(out, value);
}

f2b_status f2bi_wire_put_float(f2b_text *out, uint32_t number, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const char bytes[4] = { (char)bits, (char)(bits >> 8), (char)(bits >> 16), (char)(bits >> 24) };
    F2B_TRY(put_raw_varint(out, (uint64_t)number << 3 | F2BI_WIRE_FIXED32));
    return f2b_text_append(out, bytes, sizeof bytes);
}

f2b_status f2bi_wire_put_bytes(f2b_text *out, uint32_t number, const char *bytes, size_t n)
{
    F2B_TRY(put_raw_varint(out, (uint64_t)number << 3 | F2BI_WIRE_BYTES));
    F2B_TRY(put_raw_varint(out, n));
    return f2b_text_append(out, bytes, n);
}
