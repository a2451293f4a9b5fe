/*
 * What the readers share. A source is a format (a table of functions) over columns of numbers:
 * where records begin, and hashes of image names. What each column means is the format's business.
 */
#ifndef F2B_DATA_SOURCE_SOURCE_INTERNAL_H
#define F2B_DATA_SOURCE_SOURCE_INTERNAL_H

#include "data/image/image.h"
#include "data/source/source.h"

enum {
    F2BI_COLUMNS = 5,
    F2BI_MAX_RECORD_BYTES = 16 << 20,   /* a longer JSON record or row is a bad one */
    F2BI_MAX_NAME_BYTES = 4096,
};

typedef struct f2bi_column {
    uint64_t *at;
    int64_t n, capacity;
} f2bi_column;
f2b_status f2bi_column_push(f2bi_column *column, uint64_t value) F2B_MUST_USE;

typedef struct f2bi_format {
    const char *text;           /* for people: "LLaVA JSON" */
    f2b_status (*index)(f2b_source *s);                                     /* fill columns */
    int64_t (*count)(const f2b_source *s);
    f2b_status (*read)(const f2b_source *s, int64_t i, f2b_record *record); /* record is clear */
    uint64_t (*image_key)(const f2b_source *s, int64_t i);
    uint64_t (*stem_key)(const f2b_source *s, int64_t i);
} f2bi_format;

extern const f2bi_format f2bi_format_llava, f2bi_format_coco, f2bi_format_tsv, f2bi_format_tar,
    f2bi_format_folder;

struct f2b_source {
    const f2bi_format *format;
    f2b_source_role role;
    char *name;
    char **paths;               /* [n_paths] one file, or the shards */
    int64_t n_paths, bytes;     /* bytes of all files together */
    int fd;                     /* of the one file; -1 for shards, which are opened when read */
    char *images;               /* the image folder without links; NULL for shards */
    uint64_t images_hash;
    int64_t n;                  /* records */
    f2bi_column columns[F2BI_COLUMNS];
    char *names;                /* of a folder's images, one behind the other; else NULL */
};

/* Whether files with this ending (without the dot) are images. */
bool f2bi_is_image_extension(const char *extension);

/* Hash of a text, never 0; of an image's name, of its stem (no folder, no extension). */
uint64_t f2bi_hash(const char *text, size_t n);
uint64_t f2bi_hash_stem(const char *name, size_t n);

/*
 * Bytes [begin, end) of a file with a closing NUL (f2b_free), *n of them.
 * errors  F2B_ERR_FORMAT: an impossible range; F2B_ERR_IO: also a file that became shorter.
 */
char *f2bi_read_range(int fd, const char *path, uint64_t begin, uint64_t end, int64_t *n);

/* "a/{000..123}.tar" to its names: *paths [*n], owned by the caller with f2bi_paths_free. */
f2b_status f2bi_expand(const char *pattern, char ***paths, int64_t *n) F2B_MUST_USE;
void f2bi_paths_free(char **paths, int64_t n);

/* The image file `name` below folder `images` (no links in it); faults go to the record. */
f2b_status f2bi_image_file(const char *images, f2b_record *record, uint8_t **bytes,
                           int64_t *n) F2B_MUST_USE;

/* Which of the paths tar sample i lies in. */
int64_t f2bi_tar_shard(const f2b_source *s, int64_t i);

/* Read columns from the cache folder: true if there, whole and of the same files; write them there
 * (failing to is no error). */
bool f2bi_cache_load(f2b_source *s, const char *folder);
void f2bi_cache_save(const f2b_source *s, const char *folder);

#endif
