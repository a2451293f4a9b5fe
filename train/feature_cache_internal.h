/* What the files of the feature cache share. */
#ifndef F2B_TRAIN_FEATURE_CACHE_INTERNAL_H
#define F2B_TRAIN_FEATURE_CACHE_INTERNAL_H

#include <pthread.h>

#include "train/feature_cache.h"

enum { F2BI_FINGERPRINT_BYTES = 16 };

struct f2b_feature_cache {
    f2b_feature_cache_options options;  /* dir is path's; model and image are not read after opening */
    char *dir, *path;                   /* path: dir/<fingerprint> */
    uint8_t fingerprint[F2BI_FINGERPRINT_BYTES];
    f2b_feature_shape shape;
    char *about;                        /* contents of about.json */
    pthread_mutex_t lock;               /* of what follows */
    int64_t damaged;
    bool full;                          /* nothing more is written */
};

/* Bytes of a file's head, before the rows. */
int64_t f2bi_feature_head_bytes(void);

/* fingerprint and about of a cache whose options and shape are set. */
f2b_status f2bi_feature_identity(f2b_feature_cache *cache) F2B_MUST_USE;

/* "0123456789abcdef..." of bytes [n]: text [2 n + 1]. */
void f2bi_hex(const uint8_t *bytes, int n, char *text);

#endif
