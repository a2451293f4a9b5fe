/*
 * The tokenizer in memory, shared by the files of this folder: pieces in order of their ids, and a
 * hash table from a piece's text to its id. Never changed after f2b_tokenizer_open.
 */
#ifndef F2B_DATA_TOKENIZER_TOKENIZER_INTERNAL_H
#define F2B_DATA_TOKENIZER_TOKENIZER_INTERNAL_H

#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/utf8.h"

typedef struct f2bi_piece {
    const char *text;               /* NUL-terminated, in `texts` */
    uint32_t bytes;
    float score;
    f2b_piece_type type;
    unsigned char byte;             /* the value of a BYTE piece */
} f2bi_piece;

struct f2b_tokenizer {
    f2bi_piece *pieces;             /* [n] */
    int32_t n;
    char *texts;                    /* all pieces' texts */
    int32_t *table;                 /* [table_mask + 1], id or -1; open addressing */
    uint64_t table_mask;
    int32_t byte_ids[256];          /* valid if byte_fallback */
    int32_t bos, eos, unk;
    char *unk_surface;              /* what the unknown piece decodes to */
    bool byte_fallback;             /* characters without a piece become byte pieces, not `unk` */
    bool dummy_prefix;              /* a space goes before the text */
    bool squeeze;                   /* remove_extra_whitespaces (false in Llama's file) */
    bool splits_at_spaces;          /* no piece has a space after another character */
    bool legacy;
};

/** Fill from the bytes of a tokenizer.model; `path` is for messages. Partial results are freed by
 *  f2b_tokenizer_free. */
F2B_MUST_USE f2b_status f2bi_tokenizer_parse(f2b_tokenizer *tokenizer, const char *path,
                                             const unsigned char *bytes, size_t n);

/** The id of the piece with this text, whatever its type, or -1. */
int32_t f2bi_tokenizer_lookup(const f2b_tokenizer *tokenizer, const char *text, size_t bytes);

#endif
