/*
 * The output of a frozen vision tower, kept on disk between steps and runs (data.feature_cache).
 *
 * What is kept are the rows of the tower's feature layer, before the projector: they are a quarter of
 * the projector's output, hold nearly all of the work, and stay right where the projector is trained.
 * They are in the type that the run computes in, as the tower made them, so that a run with a cache has
 * the bits of one without.
 *
 *   DIR/<fingerprint>/about.json            for people: of what tower, settings and type these are
 *   DIR/<fingerprint>/ab/cdef....features   an image: its hash (content_hash.h) in hexadecimal
 *
 * The fingerprint is XXH3-128 over every value of the tower, its sizes, the settings that make pixels
 * of an image, the type, and how the device multiplies. An image's file is, little-endian: "F2BFEAT1",
 * fingerprint [16], image's hash [16], rows, width (i64), type (i64: 0 f32, 2 bf16), XXH3-128 of all
 * this and the rows [16], rows x width values. It appears under its name in full or not at all, and
 * its checksum is verified at each reading: one that is damaged is removed, told of, and made again.
 *
 * All calls but open and close may come from any thread, and any number of processes may use one
 * folder at the same time.
 */
#ifndef F2B_TRAIN_FEATURE_CACHE_H
#define F2B_TRAIN_FEATURE_CACHE_H

#include "data/content_hash.h"
#include "data/image/image.h"
#include "data/image/image_settings.h"
#include "nn/model.h"

typedef struct f2b_feature_cache f2b_feature_cache;

typedef struct f2b_feature_cache_options {
    const char *dir;
    const f2b_model *model;             /* its tower is not trained */
    const f2b_image_settings *image;
    f2b_image_aspect aspect;
    /** Told of damaged files and of a disk that is full; from any thread. */
    void (*note)(void *user, const char *text);
    void *user;
} f2b_feature_cache_options;

/** Open; nothing is written yet. The options are copied, the model is read.
 *  errors  F2B_ERR_IO: `dir` is there and is no folder; F2B_ERR_MEMORY; those of the device. */
f2b_feature_cache *f2b_feature_cache_open(const f2b_feature_cache_options *options);
void f2b_feature_cache_close(f2b_feature_cache *cache);

/** What a run does first: make the folder, and note how much of `images` images is there, what they
 *  will take, and that DIR has features of other towers or settings, where it has.
 *  errors  F2B_ERR_IO: the folder cannot be made; F2B_ERR_MEMORY. */
f2b_status f2b_feature_cache_begin(f2b_feature_cache *cache, int64_t images) F2B_MUST_USE;

/** Are the rows of an image here, and sound? (f2b_known_image of a dataset.) */
bool f2b_feature_cache_knows(void *cache, const uint8_t hash[F2B_CONTENT_HASH_BYTES]);

/** The same, and read them: f2b_feature_cache_shape's bytes. What rows holds otherwise is undefined. */
bool f2b_feature_cache_load(f2b_feature_cache *cache, const uint8_t hash[F2B_CONTENT_HASH_BYTES],
                            void *rows);

/** Keep the rows of an image. Where that cannot be (a full disk), it is noted once, and no more are
 *  written by this handle. */
void f2b_feature_cache_store(f2b_feature_cache *cache, const uint8_t hash[F2B_CONTENT_HASH_BYTES],
                             const void *rows);

/** Where the files lie (borrowed); what each image takes on the disk, its rows, width and type. */
const char *f2b_feature_cache_path(const f2b_feature_cache *cache);
typedef struct f2b_feature_shape {
    int64_t rows, width, file_bytes;
    f2b_dtype type;
} f2b_feature_shape;
f2b_feature_shape f2b_feature_cache_shape(const f2b_feature_cache *cache);

/** How many images are there now, by their files' names alone; and the disk's free bytes (-1: not
 *  known). */
int64_t f2b_feature_cache_images(const f2b_feature_cache *cache);
int64_t f2b_feature_cache_free_bytes(const f2b_feature_cache *cache);

#endif
