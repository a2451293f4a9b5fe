/*
 * The images of a source one after the other, read, hashed, decoded and prepared by worker threads
 * while their user computes. They come in the source's order whatever thread ends first; an image
 * that several records show comes once.
 */
#ifndef F2B_DATA_LOADER_IMAGE_STREAM_H
#define F2B_DATA_LOADER_IMAGE_STREAM_H

#include "data/content_hash.h"
#include "data/image/image.h"
#include "data/image/image_settings.h"
#include "data/source/source.h"

/** What became of a record; the caller's, to be cleared. */
typedef struct f2b_stream_image {
    int64_t record;             /* in the source */
    char *id;                   /* f2b_source_image_id; NULL: the record has no image, or a fault
                                   came before its name was known */
    f2b_fault fault;            /* F2B_FAULT_NONE, or why there are no pixels */
    char *detail;               /* with a fault: what exactly */
    bool hashed;                /* the file could be read */
    uint8_t hash[F2B_CONTENT_HASH_BYTES];   /* content_hash.h */
    uint8_t *pixels;            /* [S, S, 3] prepared; NULL: a fault, no image, or known already */
} f2b_stream_image;
void f2b_stream_image_clear(f2b_stream_image *image);

typedef struct f2b_image_stream_options {
    f2b_image_settings image;
    f2b_image_aspect aspect;
    int workers;                /* threads, at least 1 */
    int64_t ahead;              /* images made ahead at most, at least 1 */
    /** Whether an image of these bytes need not be decoded; called by the workers. May be NULL. */
    bool (*known)(void *user, const uint8_t hash[F2B_CONTENT_HASH_BYTES]);
    void *user;
} f2b_image_stream_options;

typedef struct f2b_image_stream f2b_image_stream;

/** Start. The source is borrowed and must outlive the stream.
 *  errors  F2B_ERR_MEMORY; F2B_ERR_IO: no thread to be had. */
f2b_image_stream *f2b_image_stream_new(const f2b_source *source,
                                       const f2b_image_stream_options *options);

/** Stop the workers within the image they are at, wait for them, and free everything. */
void f2b_image_stream_free(f2b_image_stream *stream);

/** How many records will come: those of the source without those that show an image again. */
int64_t f2b_image_stream_count(const f2b_image_stream *stream);

/**
 * The next record into *image (cleared first); *more is false after the last.
 * errors  F2B_ERR_IO, F2B_ERR_MEMORY: reading itself failed, which says nothing of the image.
 */
f2b_status f2b_image_stream_next(f2b_image_stream *stream, f2b_stream_image *image,
                                 bool *more) F2B_MUST_USE;

/** Seconds that calls of f2b_image_stream_next waited, all together. */
double f2b_image_stream_wait_seconds(const f2b_image_stream *stream);

#endif
