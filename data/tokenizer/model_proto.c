/*
 * Reads ModelProto (google/sentencepiece src/sentencepiece_model.proto) into a tokenizer and checks
 * all that encoding later relies on: valid UTF-8, one unknown piece, all 256 byte pieces, start and
 * end.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <xxhash.h>

#include "autograd/core/alloc.h"
#include "data/tokenizer/tokenizer_internal.h"
#include "data/tokenizer/wire.h"

enum { MODEL_BPE = 2, MAX_PIECES = 1 << 24 };

/* What trainer_spec and normalizer_spec say; proto defaults. */
typedef struct settings {
    uint64_t model_type, bos, eos;
    bool byte_fallback, dummy_prefix, squeeze, escape, space_as_suffix;
    size_t charsmap_bytes;
    f2bi_wire unk_surface;
} settings;

static const char advice[] = "the tokenizer.model of Llama, Vicuna or LLaVA is needed";

static f2b_status damaged_at(const char *path, const char *what, const unsigned char *start,
                             const unsigned char *at)
{
    return f2b_fail(F2B_ERR_FORMAT,
                    "%s: not a SentencePiece model, or damaged (%s near byte %td): copy the file "
                    "again",
                    path, what, at - start);
}

/* Count pieces and their bytes, so that both can be allocated at once. */
static f2b_status measure(const char *path, f2bi_wire file, int64_t *n, size_t *text_bytes)
{
    const unsigned char *start = file.at;
    f2bi_field field;
    bool damaged;
    *n = 0, *text_bytes = 0;
    while (f2bi_wire_next(&file, &field, &damaged)) {
        if (field.number != 1 || field.kind != F2BI_WIRE_BYTES) continue;
        *n += 1;
        *text_bytes += (size_t)field.value + 1; /* more than the text: the message around it */
    }
    if (damaged) return damaged_at(path, "field", start, file.at);
    if (*n == 0 || *n > MAX_PIECES)
        return f2b_fail(F2B_ERR_FORMAT, "%s: %" PRId64 " pieces: not a SentencePiece model; %s",
                        path, *n, advice);
    return F2B_OK;
}

/* The value of "<0x0A>", or -1. */
static int byte_value(const char *text, size_t bytes)
{
    static const char digits[] = "0123456789ABCDEF";
    if (bytes != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    const char *high = memchr(digits, text[3], 16), *low = memchr(digits, text[4], 16);
    return high != NULL && low != NULL ? (int)((high - digits) * 16 + (low - digits)) : -1;
}

static bool valid_text(const char *text, size_t bytes)
{
    uint32_t code;
    for (size_t i = 0; i < bytes;) {
        const int length = f2bi_utf8_decode(text + i, bytes - i, &code);
        if (length == 0 || code == 0) return false;
        i += (size_t)length;
    }
    return bytes > 0;
}

/* One SentencePiece message: 1 text, 2 score, 3 type. */
static f2b_status read_piece(const char *path, f2bi_wire message, int32_t id, char **text_at,
                             f2bi_piece *piece)
{
    f2bi_field field;
    bool damaged;
    uint64_t type = F2B_PIECE_NORMAL;
    f2bi_wire text = { NULL, NULL };
    while (f2bi_wire_next(&message, &field, &damaged)) {
        if (field.number == 1 && field.kind == F2BI_WIRE_BYTES) text = field.bytes;
        if (field.number == 2 && field.kind == F2BI_WIRE_FIXED32)
            piece->score = f2bi_wire_float(&field);
        if (field.number == 3 && field.kind == F2BI_WIRE_VARINT) type = field.value;
    }
    if (damaged)
        return f2b_fail(F2B_ERR_FORMAT, "%s: piece %d is damaged: copy the file again", path, id);
    if (type != F2B_PIECE_NORMAL && type != F2B_PIECE_UNKNOWN && type != F2B_PIECE_CONTROL &&
        type != F2B_PIECE_BYTE)
        return f2b_fail(F2B_ERR_FORMAT, "%s: piece %d is %s, which is not read; %s", path, id,
                        type == 4 ? "USER_DEFINED" : type == 5 ? "UNUSED" : "of unknown type",
                        advice);
    const size_t bytes = (size_t)(text.end - text.at);
    if (!isfinite(piece->score) || !valid_text((const char *)text.at, bytes))
        return f2b_fail(F2B_ERR_FORMAT,
                        "%s: piece %d has no valid text or score: copy the file again", path, id);
    memcpy(*text_at, text.at, bytes);
    (*text_at)[bytes] = '\0';
    piece->text = *text_at, piece->bytes = (uint32_t)bytes, piece->type = (f2b_piece_type)type;
    *text_at += bytes + 1;
    return F2B_OK;
}

static f2b_status read_settings(const char *path, f2bi_wire message, bool trainer, settings *s)
{
    const unsigned char *start = message.at;
    f2bi_field field;
    bool damaged;
    while (f2bi_wire_next(&message, &field, &damaged)) {
        if (trainer && field.kind == F2BI_WIRE_VARINT) {
            if (field.number == 3) s->model_type = field.value;
            if (field.number == 24) s->space_as_suffix = field.value != 0;
            if (field.number == 35) s->byte_fallback = field.value != 0;
            if (field.number == 41) s->bos = field.value;
            if (field.number == 42) s->eos = field.value;
        }
        if (trainer && field.number == 44 && field.kind == F2BI_WIRE_BYTES)
            s->unk_surface = field.bytes;
        if (!trainer && field.kind == F2BI_WIRE_VARINT) {
            if (field.number == 3) s->dummy_prefix = field.value != 0;
            if (field.number == 4) s->squeeze = field.value != 0;
            if (field.number == 5) s->escape = field.value != 0;
        }
        if (!trainer && field.number == 2 && field.kind == F2BI_WIRE_BYTES)
            s->charsmap_bytes = (size_t)field.value;
    }
    return damaged
               ? damaged_at(path, trainer ? "trainer_spec" : "normalizer_spec", start, message.at)
               : F2B_OK;
}

static f2b_status refuse(const char *path, const char *setting)
{
    return f2b_fail(F2B_ERR_FORMAT, "%s: a model with %s is not read; %s", path, setting, advice);
}

static f2b_status apply_settings(f2b_tokenizer *t, const char *path, const settings *s)
{
    if (s->model_type != MODEL_BPE) return refuse(path, "another type than BPE");
    if (s->charsmap_bytes != 0) return refuse(path, "a normaliser other than `identity`");
    if (s->space_as_suffix) return refuse(path, "treat_whitespace_as_suffix");
    if (!s->escape) return refuse(path, "escape_whitespaces: false");
    t->byte_fallback = s->byte_fallback;
    t->dummy_prefix = s->dummy_prefix;
    t->squeeze = s->squeeze;
    if (s->bos >= (uint64_t)t->n || s->eos >= (uint64_t)t->n ||
        t->pieces[s->bos].type != F2B_PIECE_CONTROL || t->pieces[s->eos].type != F2B_PIECE_CONTROL)
        return refuse(path, "no start and end pieces");
    t->bos = (int32_t)s->bos, t->eos = (int32_t)s->eos;
    const size_t bytes = (size_t)(s->unk_surface.end - s->unk_surface.at);
    if (bytes > 0 && !valid_text((const char *)s->unk_surface.at, bytes))
        return f2b_fail(F2B_ERR_FORMAT, "%s: unk_surface is not UTF-8: copy the file again", path);
    t->unk_surface = f2b_sprintf(F2B_TAG_DATA, "%.*s", (int)bytes, (const char *)s->unk_surface.at);
    return t->unk_surface != NULL ? F2B_OK : F2B_ERR_MEMORY;
}

/* Unknown and byte pieces, and whether text may be cut before spaces (see tokenizer_encode.c). */
static f2b_status check_pieces(f2b_tokenizer *t, const char *path)
{
    t->unk = -1;
    t->splits_at_spaces = true;
    for (int i = 0; i < 256; i++) t->byte_ids[i] = -1;
    for (int32_t id = 0; id < t->n; id++) {
        f2bi_piece *p = &t->pieces[id];
        if (p->type == F2B_PIECE_UNKNOWN) {
            if (t->unk >= 0) return refuse(path, "two unknown pieces");
            t->unk = id;
        } else if (p->type == F2B_PIECE_BYTE) {
            const int value = byte_value(p->text, p->bytes);
            if (value < 0) return refuse(path, "a byte piece that is not `<0x00>` to `<0xFF>`");
            p->byte = (unsigned char)value;
            t->byte_ids[value] = id;
        } else if (p->type == F2B_PIECE_NORMAL) {
            const char *mark = p->text;
            while (strncmp(mark, F2BI_SPACE_MARK, F2BI_SPACE_MARK_BYTES) == 0)
                mark += F2BI_SPACE_MARK_BYTES;
            if (strstr(mark, F2BI_SPACE_MARK) != NULL) t->splits_at_spaces = false;
        }
    }
    if (t->unk < 0) return refuse(path, "no unknown piece");
    for (int i = 0; i < 256 && t->byte_fallback; i++)
        if (t->byte_ids[i] < 0) return refuse(path, "byte_fallback but not all 256 byte pieces");
    return F2B_OK;
}

static f2b_status index_pieces(f2b_tokenizer *t, const char *path)
{
    uint64_t slots = 64;
    while (slots < 2 * (uint64_t)t->n) slots *= 2;
    t->table = f2b_alloc_host(slots * sizeof *t->table, F2B_TAG_DATA);
    if (t->table == NULL) return F2B_ERR_MEMORY;
    t->table_mask = slots - 1;
    for (uint64_t i = 0; i < slots; i++) t->table[i] = -1;
    for (int32_t id = 0; id < t->n; id++) {
        const f2bi_piece *p = &t->pieces[id];
        if (f2bi_tokenizer_lookup(t, p->text, p->bytes) >= 0)
            return f2b_fail(F2B_ERR_FORMAT, "%s: piece %d (`%.40s`) is there twice", path, id,
                            p->text);
        uint64_t slot = XXH3_64bits(p->text, p->bytes) & t->table_mask;
        while (t->table[slot] >= 0) slot = (slot + 1) & t->table_mask;
        t->table[slot] = id;
    }
    return F2B_OK;
}

int32_t f2bi_tokenizer_lookup(const f2b_tokenizer *t, const char *text, size_t bytes)
{
    uint64_t slot = XXH3_64bits(text, bytes) & t->table_mask;
    for (;; slot = (slot + 1) & t->table_mask) {
        const int32_t id = t->table[slot];
        if (id < 0) return -1;
        if (t->pieces[id].bytes == bytes && memcmp(t->pieces[id].text, text, bytes) == 0) return id;
    }
}

f2b_status f2bi_tokenizer_parse(f2b_tokenizer *t, const char *path, const unsigned char *bytes,
                                size_t n)
{
    static const unsigned char surface[] = " \xE2\x81\x87 ";
    settings s = { .model_type = 1, .bos = 1, .eos = 2, .dummy_prefix = true, .squeeze = true,
                   .escape = true, .unk_surface = { surface, surface + sizeof surface - 1 } };
    f2bi_wire file = { bytes, bytes + n };
    int64_t count;
    size_t text_bytes;
    F2B_TRY(measure(path, file, &count, &text_bytes));
    t->pieces = f2b_calloc((size_t)count, sizeof *t->pieces, F2B_TAG_DATA);
    t->texts = f2b_alloc_host(text_bytes, F2B_TAG_DATA);
    if (t->pieces == NULL || t->texts == NULL) return F2B_ERR_MEMORY;

    char *text_at = t->texts;
    f2bi_field field;
    bool damaged;                           /* `measure` has been through: it stays false */
    while (f2bi_wire_next(&file, &field, &damaged)) {
        if (field.kind != F2BI_WIRE_BYTES) continue;
        if (field.number == 1) {
            F2B_TRY(read_piece(path, field.bytes, t->n, &text_at, &t->pieces[t->n]));
            t->n++;
        } else if (field.number == 2 || field.number == 3) {
            F2B_TRY(read_settings(path, field.bytes, field.number == 2, &s));
        }
    }
    F2B_TRY(apply_settings(t, path, &s));
    F2B_TRY(check_pieces(t, path));
    return index_pieces(t, path);
}
