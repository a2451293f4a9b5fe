/*
 * UTF-8 as SentencePiece reads it: overlong forms, surrogates and values above U+10FFFF are
 * malformed, and a malformed sequence is left byte by byte.
 */
#ifndef F2B_DATA_TOKENIZER_UTF8_H
#define F2B_DATA_TOKENIZER_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define F2BI_SPACE_MARK "\xE2\x96\x81"              /* U+2581, which stands for a space in pieces */
#define F2BI_REPLACEMENT "\xEF\xBF\xBD"             /* U+FFFD */
enum { F2BI_SPACE_MARK_BYTES = 3 };

/** Bytes of the valid character at the start of text (1 to 4), or 0; *code receives its value. */
int f2bi_utf8_decode(const char *text, size_t bytes, uint32_t *code);

/** True if the bytes may yet become a valid character when more follow. */
bool f2bi_utf8_is_prefix(const char *text, size_t bytes);

/** True for what Python's str.strip() removes. */
bool f2bi_is_space(uint32_t code);

/** The part of text without white space at its ends; *bytes receives its length. */
const char *f2bi_strip(const char *text, size_t *bytes);

#endif
