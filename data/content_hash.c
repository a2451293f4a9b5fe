/* See content_hash.h. */
#include "data/content_hash.h"

#include <string.h>

#include <xxhash.h>

void f2b_content_hash(const uint8_t *bytes, int64_t n, uint8_t hash[F2B_CONTENT_HASH_BYTES])
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes, (size_t)n));
    memcpy(hash, canonical.digest, F2B_CONTENT_HASH_BYTES);
}
