/*
 * What an image is known by wherever its name does not matter: XXH3-128 of its file's bytes.
 */
#ifndef F2B_DATA_CONTENT_HASH_H
#define F2B_DATA_CONTENT_HASH_H

#include <stdint.h>

enum { F2B_CONTENT_HASH_BYTES = 16 };

/** XXH3-128 of bytes [n], in canonical (big-endian) order. */
void f2b_content_hash(const uint8_t *bytes, int64_t n, uint8_t hash[F2B_CONTENT_HASH_BYTES]);

#endif
