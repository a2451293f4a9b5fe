/*
 * Images of a source into a compressed store: what f2b-compress does.
 */
#ifndef F2B_INFER_COMPRESS_STORE_H
#define F2B_INFER_COMPRESS_STORE_H

#include "checkpoints/store_writer.h"
#include "infer/compress.h"

/** What was done so far. */
typedef struct f2b_compress_counts {
    int64_t records;        /* looked at: those of the source, without those that name an image again */
    int64_t compressed;     /* images added by this call */
    int64_t known;          /* were in the store already, under this name */
    int64_t duplicates;     /* further names of images that the store has, added by this call */
    int64_t bad;            /* cannot be used: told one by one */
    int64_t without_image;  /* text-only records */
} f2b_compress_counts;

/** An image that cannot be used. Texts are valid during the call. */
typedef struct f2b_compress_fault {
    const char *source;     /* "images" */
    int64_t record;         /* from 0 */
    const char *id;         /* NULL where it is not known */
    const char *fault;      /* "broken_image", or "changed_image": the store has tokens of other
                               contents under this name */
    const char *detail;     /* what exactly; may be "" */
} f2b_compress_fault;

typedef struct f2b_compress_options {
    int64_t batch;          /* images a forward pass */
    int workers;            /* threads that read and decode */
    bool (*stop)(void *user);                                       /* may be NULL, as the others */
    f2b_status (*bad)(void *user, const f2b_compress_fault *fault);
    void (*progress)(void *user, const f2b_compress_counts *counts, int64_t total);
    void *user;
} f2b_compress_options;

/**
 * Compress every image of the source (opened as F2B_SOURCE_IMAGES) that the store does not have, in
 * the source's order. Full shards are written as they fill, the last one at the end. An image whose
 * bytes are in the store under another name is not compressed again; its name is kept (store.h).
 * counts   also right after an error.
 * errors   F2B_ERR_STOPPED when `stop` said so: what was not written yet is dropped;
 *          F2B_ERR_NUMBERS: tokens that are not finite or too large for f16, with the image's name;
 *          those of reading, computing and writing, and of `bad`.
 */
f2b_status f2b_compress_store(const f2b_infer *in, const f2b_source *source,
                              f2b_store_writer *writer, const f2b_compress_options *options,
                              f2b_compress_counts *counts) F2B_MUST_USE;

#endif
