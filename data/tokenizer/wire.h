/*
 * The part of protobuf's wire format that ModelProto needs: a reader over a byte range that can
 * never leave it, and writers that append to a text buffer.
 */
#ifndef F2B_DATA_TOKENIZER_WIRE_H
#define F2B_DATA_TOKENIZER_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/tokenizer/buffers.h"

typedef struct f2bi_wire {
    const unsigned char *at, *end;
} f2bi_wire;

typedef struct f2bi_field {
    uint32_t number;
    enum {
        F2BI_WIRE_VARINT = 0,
        F2BI_WIRE_FIXED64 = 1,
        F2BI_WIRE_BYTES = 2,
        F2BI_WIRE_FIXED32 = 5
    } kind;
    uint64_t value;                 /* varint or fixed */
    f2bi_wire bytes;                /* the range, if kind is BYTES */
} f2bi_field;

/** Read the next field. False at the end and on damage; *damaged tells which. */
bool f2bi_wire_next(f2bi_wire *wire, f2bi_field *field, bool *damaged);

/** The f32 of a FIXED32 field. */
float f2bi_wire_float(const f2bi_field *field);

F2B_MUST_USE f2b_status f2bi_wire_put_varint(f2b_text *out, uint32_t number, uint64_t value);
F2B_MUST_USE f2b_status f2bi_wire_put_float(f2b_text *out, uint32_t number, float value);
F2B_MUST_USE f2b_status f2bi_wire_put_bytes(f2b_text *out, uint32_t number, const char *bytes,
                                            size_t n);

#endif
