/*
 * The compressed store: a folder of images as K tokens of width d each, made by one model.
 *
 *   store.json        what the tokens are of (K, d, method, fingerprints, arithmetic), and the
 *                     shards with their sizes and checksums. A shard that is not listed is not
 *                     there: listing it is the last step of writing it.
 *   shard-00000.h5    HDF5, never changed once it is there:
 *                       /tokens     f16 [N, K, d], contiguous, no filter: 2Kd bytes an image
 *                       /ids        UTF-8 texts of fixed length [N], padded with zeros
 *                       /hashes     u8 [N, 16], XXH3-128 of each image file's bytes
 *                       /duplicates/ids, /duplicates/rows
 *                                   further names of images that the store has already: i64
 *                                   numbers of rows of the whole store
 *                     and root attributes format, format_version, first_row, base_model, adapter,
 *                     method (JSON), precision, weights.
 *   bad_images.jsonl  images that the last run of f2b-compress could not use, and why.
 *
 * An id is the image's name below its source's folder ("coco/000000139.jpg", for tar shards
 * "00000.tar/000000012.jpg"). Rows are numbered through the shards, from 0. An image that is there
 * twice under different names has one row and two ids. Other files in the folder are ignored.
 *
 * Opening checks the size of every shard and the checksum of all of it but the tokens, before HDF5
 * sees it; f2b_store_verify also reads the tokens. An open store may be read from many threads.
 */
#ifndef F2B_CHECKPOINTS_STORE_H
#define F2B_CHECKPOINTS_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "autograd/core/status.h"
#include "checkpoints/fingerprint.h"
#include "nn/method.h"

#define F2B_STORE_FILE "store.json"
#define F2B_STORE_BAD_FILE "bad_images.jsonl"
enum { F2B_STORE_MAX_ID = 4096 };      /* bytes of an id */

/** What the tokens of a store are of. All must be equal for tokens to be comparable. */
typedef struct f2b_store_identity {
    int64_t tokens, width;              /* K, d */
    f2b_method method;
    char base[F2B_FINGERPRINT_BYTES];   /* f2b_model_folder_fingerprint of the base */
    char adapter[F2B_FINGERPRINT_BYTES];/* f2b_fingerprint_tensors of all that was trained */
    char precision[8], weights[8];      /* arithmetic ("bf16") and storage of frozen weights */
} f2b_store_identity;

typedef struct f2b_store f2b_store;

/**
 * Open a store for reading.
 * return  a handle to close; NULL with F2B_ERR_NOT_FOUND (no store there), F2B_ERR_FORMAT (damaged:
 *         the file and what differs; made by a later version), F2B_ERR_IO, F2B_ERR_MEMORY.
 */
f2b_store *f2b_store_open(const char *path);
void f2b_store_close(f2b_store *store);

/** The folder; what it is of; number of images (rows); of further names of images. */
const char *f2b_store_path(const f2b_store *store);
const f2b_store_identity *f2b_store_get_identity(const f2b_store *store);
int64_t f2b_store_count(const f2b_store *store);
int64_t f2b_store_duplicates(const f2b_store *store);

/**
 * Refuse tokens of another model: F2B_ERR_FORMAT with both fingerprints and what to do.
 * base, adapter  fingerprints of the model at hand (as in f2b_store_identity).
 */
F2B_MUST_USE f2b_status f2b_store_check_model(const f2b_store *store, const char *base,
                                              const char *adapter);

/** The id of a row (0 <= row < count); borrowed. */
const char *f2b_store_id(const f2b_store *store, int64_t row);

/** XXH3-128 of the image file of a row, 16 bytes in the canonical (big-endian) order; borrowed. */
const uint8_t *f2b_store_hash(const f2b_store *store, int64_t row);

/** The row of an id, whether the image's first name or another. F2B_ERR_NOT_FOUND names both id and
 *  store. */
F2B_MUST_USE f2b_status f2b_store_find(const f2b_store *store, const char *id, int64_t *row);

/** The same without an error: the row, or -1. */
int64_t f2b_store_lookup(const f2b_store *store, const char *id);

/** The tokens of a row as f32 [K, d], into the caller's `out`. errors: F2B_ERR_IO. */
F2B_MUST_USE f2b_status f2b_store_read(const f2b_store *store, int64_t row, float *out);

/** A shard: its tokens are `images` * K * d f16 values (little-endian), at byte `offset` of the
 *  file, for rows [first, first + images). A shard may have no images (only further names). */
typedef struct f2b_store_shard {
    const char *path;           /* of the file; borrowed */
    const char *checksum;       /* XXH3-128 of the file, 32 hex digits: what a file made from this
                                   shard (means) may note to know whether it still fits */
    int64_t first, images;
    int64_t offset, bytes;      /* of the tokens; offset is even; 0 and 0 without images */
} f2b_store_shard;
int64_t f2b_store_shards(const f2b_store *store);
const f2b_store_shard *f2b_store_shard_at(const f2b_store *store, int64_t shard);

/** The tokens of a shard mapped for reading, in order: f16 bits [images, K, d]. One shard mapped at
 *  a time keeps memory fixed whatever the size of the store. */
typedef struct f2b_store_map {
    const uint16_t *tokens;     /* NULL without images */
    int64_t images;
    void *base;                 /* private: of the mapping */
    int64_t length;
} f2b_store_map;
F2B_MUST_USE f2b_status f2b_store_map_shard(const f2b_store *store, int64_t shard,
                                            f2b_store_map *map);
void f2b_store_unmap(f2b_store_map *map);

/** Check every byte of one shard of an open store. errors: F2B_ERR_FORMAT naming file and remedy,
 *  F2B_ERR_IO, F2B_ERR_MEMORY. */
F2B_MUST_USE f2b_status f2b_store_check_shard(const f2b_store *store, int64_t shard);

/**
 * Check every byte of a store: each shard's size, checksum and contents, one after the other.
 * told    called for each file with why == NULL where it is sound.
 * return  F2B_OK when all were looked at, sound or not; an error where store.json itself cannot be
 *         read (as f2b_store_open).
 */
typedef void f2b_store_told(void *user, const char *file, const char *why);
F2B_MUST_USE f2b_status f2b_store_verify(const char *path, f2b_store_told *told, void *user);

#endif
