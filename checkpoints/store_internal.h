/* The parts of store.h and store_writer.h: names in memory, store.json, and shards as files. */
#ifndef F2B_CHECKPOINTS_STORE_INTERNAL_H
#define F2B_CHECKPOINTS_STORE_INTERNAL_H

#include "checkpoints/file_internal.h"
#include "checkpoints/store.h"

enum {
    F2BI_STORE_HASH_BYTES = 16,
    F2BI_STORE_MAX_TOKENS = 1 << 16,    /* K and d of a file are believed up to here, so that */
    F2BI_STORE_MAX_WIDTH = 1 << 20,     /* sizes cannot overflow */
    F2BI_STORE_MAX_IMAGES = 1 << 24,    /* of a shard */
    F2BI_STORE_MAX_METHOD = 1 << 20,    /* bytes of the method's JSON */
};

/* ---- In memory ---- */

/** Numbers found by a hash; equal hashes are told apart by who asks. Zero-initialise. */
typedef struct f2bi_slots {
    struct f2bi_slot {
        uint64_t hash;
        int64_t number;                 /* + 1; 0: free */
    } *at;
    int64_t n, size;
} f2bi_slots;
F2B_MUST_USE f2b_status f2bi_slots_add(f2bi_slots *slots, uint64_t hash, int64_t number);

/** The next number of that hash, or -1. *place begins as the hash. */
int64_t f2bi_slots_next(const f2bi_slots *slots, uint64_t hash, uint64_t *place);

/** Names by number, from 0, and back. Zero-initialise. */
typedef struct f2bi_names {
    char *text;                         /* one behind the other, each with its zero */
    int64_t bytes, text_room;
    int64_t *starts;
    int64_t n, room;
    f2bi_slots slots;
} f2bi_names;
F2B_MUST_USE f2b_status f2bi_names_add(f2bi_names *names, const char *name, size_t length);
const char *f2bi_names_at(const f2bi_names *names, int64_t i);
int64_t f2bi_names_find(const f2bi_names *names, const char *name);     /* or -1 */
void f2bi_names_clear(f2bi_names *names);

/** All that is known of the images of a store but their tokens. */
typedef struct f2bi_catalog {
    f2bi_names ids;                     /* name i is row i's */
    uint8_t (*hashes)[F2BI_STORE_HASH_BYTES];       /* [ids.n] */
    int64_t hashes_room;
    f2bi_names duplicates;
    int64_t *duplicate_rows, duplicates_room;       /* [duplicates.n] */
} f2bi_catalog;
F2B_MUST_USE f2b_status f2bi_catalog_add(f2bi_catalog *catalog, const char *id, size_t length,
                                         const uint8_t hash[F2BI_STORE_HASH_BYTES]);
F2B_MUST_USE f2b_status f2bi_catalog_add_duplicate(f2bi_catalog *catalog, const char *id,
                                                   size_t length, int64_t row);
int64_t f2bi_catalog_find(const f2bi_catalog *catalog, const char *id);     /* row, or -1 */
void f2bi_catalog_clear(f2bi_catalog *catalog);

/* ---- store.json ---- */

typedef struct f2bi_store_entry {
    char *path;
    int64_t first, images, duplicates, size, offset;
    char checksum[F2BI_HASH_TEXT];      /* of the file */
    char rest[F2BI_HASH_TEXT];          /* of the file without the tokens */
} f2bi_store_entry;

typedef struct f2bi_store_manifest {
    char *path;                         /* the store's folder */
    f2b_store_identity identity;
    char *method;                       /* as JSON, the form that is compared */
    f2bi_store_entry *shards;
    int64_t n, room;
} f2bi_store_manifest;

/** Begin a manifest without shards. */
F2B_MUST_USE f2b_status f2bi_store_manifest_init(f2bi_store_manifest *m, const char *path,
                                                 const f2b_store_identity *identity);
F2B_MUST_USE f2b_status f2bi_store_manifest_read(f2bi_store_manifest *m, const char *path);
F2B_MUST_USE f2b_status f2bi_store_manifest_write(const f2bi_store_manifest *m);
void f2bi_store_manifest_clear(f2bi_store_manifest *m);

/** Append a shard that begins where the last one ends; its path is made. */
F2B_MUST_USE f2b_status f2bi_store_manifest_add(f2bi_store_manifest *m, f2bi_store_entry entry);

/** "…/shard-00007.h5" (f2b_free); images of all shards; bytes of a shard's tokens. */
char *f2bi_store_shard_path(const char *path, int64_t shard);
int64_t f2bi_store_manifest_images(const f2bi_store_manifest *m);
int64_t f2bi_store_token_bytes(const f2bi_store_manifest *m, int64_t images);

/* ---- Shards ---- */

/** Of a new shard: the rows from `first` of the catalog, the duplicates from `first_duplicate`, and
 *  the tokens. Writes, syncs and renames the file at entry->path and fills the entry. On failure
 *  nothing is left of it. */
F2B_MUST_USE f2b_status f2bi_store_shard_write(const f2bi_store_manifest *m,
                                               const f2bi_catalog *catalog, int64_t first_duplicate,
                                               const uint16_t *tokens, f2bi_store_entry *entry);

/** Check shard `s` (with `whole` every byte, else all but the tokens), and append what it holds to
 *  the catalog. errors: F2B_ERR_FORMAT naming the file, F2B_ERR_NOT_FOUND, F2B_ERR_IO. */
F2B_MUST_USE f2b_status f2bi_store_shard_read(const f2bi_store_manifest *m, int64_t s, bool whole,
                                              f2bi_catalog *catalog);

struct f2b_store {
    f2bi_store_manifest manifest;
    f2bi_catalog catalog;
    f2b_store_shard *shards;            /* [manifest.n], as f2b_store_shard_at shows them */
};

#endif
