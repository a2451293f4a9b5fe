/* TensorBoard's bytes: CRC-32C, record framing, the few protocol-buffer fields that scalars need.
 * See tensorboard.h for the contract. */
#include <stdbool.h>
#include <string.h>

#include "train/tensorboard.h"

/* Bitwise: a few hundred bytes a step are not worth a table. */
uint32_t f2bi_crc32c(const void *data, size_t bytes)
{
    const uint8_t *p = data;
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < bytes; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (0x82F63B78u & (0u - (crc & 1)));
    }
    return ~crc;
}

uint32_t f2bi_crc32c_masked(const void *data, size_t bytes)
{
    const uint32_t crc = f2bi_crc32c(data, bytes);
    return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

/* A buffer that remembers when it was too small. */
typedef struct sink {
    uint8_t *out;
    size_t n, capacity;
} sink;

static void put(sink *s, const void *data, size_t bytes)
{
    if (s->n <= s->capacity && bytes <= s->capacity - s->n) memcpy(s->out + s->n, data, bytes);
    else s->capacity = 0; /* never fits again */
    s->n += bytes;
}

static void put_byte(sink *s, int byte) { put(s, &(uint8_t){ (uint8_t)byte }, 1); }

static void put_varint(sink *s, uint64_t value)
{
    for (; value >= 0x80; value >>= 7) put_byte(s, (int)(value & 0x7F) | 0x80);
    put_byte(s, (int)value);
}

static size_t varint_bytes(uint64_t value)
{
    size_t n = 1;
    for (; value >= 0x80; value >>= 7) n++;
    return n;
}

/* Little-endian, whatever the processor. */
static void put_little(sink *s, uint64_t bits, int bytes)
{
    for (int i = 0; i < bytes; i++) put_byte(s, (int)(bits >> (8 * i) & 0xFF));
}

/* Summary.Value: 1 tag, 2 simple_value; in Summary as field 1; in Event as field 5. */
static size_t value_bytes(const f2b_scalar *scalar)
{
    const size_t tag = strlen(scalar->tag);
    return 1 + varint_bytes(tag) + tag + 1 + 4;
}

static void put_scalars(sink *s, const f2b_scalar *scalars, int64_t n)
{
    size_t total = 0;
    for (int64_t i = 0; i < n; i++)
        total += 1 + varint_bytes(value_bytes(&scalars[i])) + value_bytes(&scalars[i]);
    put_byte(s, 5 << 3 | 2);
    put_varint(s, total);
    for (int64_t i = 0; i < n; i++) {
        const size_t tag = strlen(scalars[i].tag);
        uint32_t bits;
        memcpy(&bits, &scalars[i].value, sizeof bits);
        put_byte(s, 1 << 3 | 2);
        put_varint(s, value_bytes(&scalars[i]));
        put_byte(s, 1 << 3 | 2);
        put_varint(s, tag);
        put(s, scalars[i].tag, tag);
        put_byte(s, 2 << 3 | 5);
        put_little(s, bits, 4);
    }
}

size_t f2bi_tensorboard_record(uint8_t *out, size_t capacity, f2bi_event_kind kind,
                               double wall_time, int64_t step, const f2b_scalar *scalars, int64_t n)
{
    enum { HEAD = 12 }; /* length and its checksum, filled in at the end */
    if (capacity < HEAD) return 0;
    sink s = { out, HEAD, capacity };
    uint64_t bits;
    memcpy(&bits, &wall_time, sizeof bits);
    put_byte(&s, 1 << 3 | 1);
    put_little(&s, bits, 8);
    if (kind != F2BI_EVENT_VERSION) {
        put_byte(&s, 2 << 3 | 0);
        put_varint(&s, (uint64_t)step);
    }
    if (kind == F2BI_EVENT_VERSION) {
        static const char version[] = "brain.Event:2";
        put_byte(&s, 3 << 3 | 2);
        put_varint(&s, sizeof version - 1);
        put(&s, version, sizeof version - 1);
    } else if (kind == F2BI_EVENT_START) {
        put(&s, "\x3a\x02\x08\x01", 4); /* 7 session_log { 1 status: START } */
    } else {
        put_scalars(&s, scalars, n);
    }
    const size_t payload = s.n - HEAD;
    if (s.n > s.capacity) return 0;
    put_little(&s, f2bi_crc32c_masked(out + HEAD, payload), 4);
    const size_t whole = s.n;
    if (whole > s.capacity) return 0;
    s.n = 0;
    put_little(&s, payload, 8);
    put_little(&s, f2bi_crc32c_masked(out, 8), 4);
    return whole;
}
