/*
 * Writing a compressed store (store.h): images are collected in a shard in hand, which is written
 * when it is full. What was written stays whatever happens after; the same images in the same order
 * give the same bytes, in one go or with any number of interruptions.
 */
#ifndef F2B_CHECKPOINTS_STORE_WRITER_H
#define F2B_CHECKPOINTS_STORE_WRITER_H

#include "checkpoints/store.h"

typedef struct f2b_store_writer f2b_store_writer;

/**
 * Begin a store, or go on with the one that is there.
 * identity      what the tokens will be of. F2B_ERR_FORMAT where the store holds tokens of another
 *               model (both fingerprints are named), F2B_ERR_CONFIG where it was made with other
 *               precision or weights.
 * shard_images  images of a full shard; 2Kd bytes each are kept in memory for the shard in hand.
 * return        a handle to close; NULL with also F2B_ERR_BUSY (another process writes to it),
 *               F2B_ERR_INVALID (the folder holds other files), and the errors of f2b_store_open.
 */
f2b_store_writer *f2b_store_writer_open(const char *path, const f2b_store_identity *identity,
                                        int64_t shard_images);

/** What is in hand is dropped. */
void f2b_store_writer_close(f2b_store_writer *writer);

/** Images and further names, those in hand among them. */
int64_t f2b_store_writer_count(const f2b_store_writer *writer);
int64_t f2b_store_writer_duplicates(const f2b_store_writer *writer);

/** The row of an id, or of an image by its content's hash (16 bytes); -1: there is none. The latter
 *  may be asked from any thread while one thread writes. */
int64_t f2b_store_writer_find(const f2b_store_writer *writer, const char *id);
int64_t f2b_store_writer_find_content(f2b_store_writer *writer, const uint8_t *hash);

/** The content's hash of a row; borrowed. */
const uint8_t *f2b_store_writer_hash(const f2b_store_writer *writer, int64_t row);

/** Whether the shard in hand has its images: the next one needs a commit first. Further names still
 *  have room. */
bool f2b_store_writer_is_full(const f2b_store_writer *writer);

/**
 * Add an image, whose tokens come before the next commit: *tokens is where they go, f16 bits [K, d].
 * id    not known yet, at most F2B_STORE_MAX_ID bytes of UTF-8.
 * hash  its content's, not known yet.
 */
F2B_MUST_USE f2b_status f2b_store_writer_add(f2b_store_writer *writer, const char *id,
                                             const uint8_t *hash, uint16_t **tokens);

/** Add a further name of the image in `row`. */
F2B_MUST_USE f2b_status f2b_store_writer_add_duplicate(f2b_store_writer *writer, const char *id,
                                                       int64_t row);

/**
 * Write the shard in hand, if there is anything in it, and list it. On failure (a full disk, say)
 * all that was written before is as it was, and nothing half-written is taken for whole.
 */
F2B_MUST_USE f2b_status f2b_store_writer_commit(f2b_store_writer *writer);

#endif
