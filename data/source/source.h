/*
 * Sources: files of conversations and captions, read record by record at random.
 *
 * Opening a source builds an index (where each record begins, and a hash of its image's name) by
 * one streaming pass in a small, fixed amount of memory; nothing of the file is kept. Files come
 * from outside: a record that cannot be used is a fault of that record (fault.h), a file that
 * cannot be divided into records is an error. An open source may be read from many threads at once.
 *
 * Formats:
 *   LLaVA JSON   an array of {id, image?, conversations: [{from, value}, ...]}
 *   COCO JSON    {images: [{id, file_name}], annotations: [{image_id, caption}], ...}; a record is
 *                an entry of `annotations`
 *   TSV          caption TAB file, a row a record, no header
 *   list         a file's name a row (only for F2B_SOURCE_IMAGES, which reads both rows in one file)
 *   folder       the images below it, in the order of their names (only for F2B_SOURCE_IMAGES):
 *                files of known endings, without hidden ones; links to folders are not followed
 *   webdataset   tar shards named by a brace range, "cc3m/{00000..00331}.tar"; a record is a
 *                sample: key.jpg (or png, jpeg, webp, gif, bmp, pnm) and key.txt (or `caption` of
 *                key.json)
 *
 * source  the fact sheet's formats: LLaVA's train.py, COCO captions, webdataset's tariterators.
 */
#ifndef F2B_DATA_SOURCE_SOURCE_H
#define F2B_DATA_SOURCE_SOURCE_H

#include <stddef.h>
#include <stdint.h>

#include "data/source/fault.h"

/** What records of a source are for. */
typedef enum f2b_source_role {
    F2B_SOURCE_CONVERSATIONS, /* LLaVA JSON */
    F2B_SOURCE_CAPTIONS, /* *.tar: webdataset; *.json: LLaVA (array), COCO (object); else TSV */
    F2B_SOURCE_CONVERSATION_CAPTIONS, /* COCO JSON, of which only text and image stem are used */
    F2B_SOURCE_IMAGES,      /* any of the formats, of which only the images are used: a folder is a
                               folder, files as for captions; records without an image are no
                               faults, nor are texts that are missing or bad */
} f2b_source_role;

typedef struct f2b_source_options {
    f2b_source_role role;
    const char *name;       /* how samples and messages call it, "captions[1]" */
    const char *path;       /* file, folder, or for tar a name that may have brace ranges */
    const char *images;     /* folder of the images; NULL: the folder of the file. Not for tar and
                               folders. */
    const char *cache;      /* folder for the indices of large files, made if need be; or NULL */
    int64_t cache_from;     /* files of at least so many bytes are cached; 0: 64 MiB */
} f2b_source_options;

typedef struct f2b_source f2b_source;

/**
 * Open and index a source. The options are copied.
 *
 * The cache is a help, never a need: an index there is used if it was made from the same paths,
 * sizes and times and its checksum is right, otherwise it is built anew and, where that works,
 * written.
 * errors  F2B_ERR_NOT_FOUND or F2B_ERR_IO with the path; F2B_ERR_FORMAT: not the expected
 *         structure, or cut off (the record is named); F2B_ERR_CONFIG: a malformed brace range;
 *         F2B_ERR_MEMORY.
 */
f2b_source *f2b_source_open(const f2b_source_options *options);
void f2b_source_free(f2b_source *source);

/** Number of records, bad ones included; the name given; the format for people ("LLaVA JSON"). */
int64_t f2b_source_count(const f2b_source *source);
const char *f2b_source_name(const f2b_source *source);
const char *f2b_source_format(const f2b_source *source);

/** The file that record i is in: of a range the shard. */
const char *f2b_source_file(const f2b_source *source, int64_t i);

/**
 * Hashes of the image that record i names: the same for two records of one run exactly when they
 * show the same file (`image`: folder and name), or files of one name without folder and extension
 * (`stem`: what joins captions to conversations). 0: no image. Tar samples differ by position.
 */
uint64_t f2b_source_image_key(const f2b_source *source, int64_t i);
uint64_t f2b_source_stem_key(const f2b_source *source, int64_t i);

/** Whether no two records can show one image, whatever their number (tar samples). */
bool f2b_source_images_differ(const f2b_source *source);

/** A record as it stands in the file. Zero-initialise before the first read. */
typedef struct f2b_record {
    f2b_fault fault;        /* F2B_FAULT_NONE, or why it cannot be used */
    char *detail;           /* with a fault: what exactly */
    char *image;            /* the image's name in the file, or NULL: text-only */
    f2b_turn *turns;        /* [n_turns], conversations */
    int64_t n_turns;
    char *caption;          /* captions */
    void *owner;            /* holds the turns' texts; private */
    struct {
        int64_t shard, offset, size;
    } member;               /* where a tar sample's image lies; private */
} f2b_record;

/**
 * Read record i (0 <= i < count) into `record`, which is cleared first.
 * return  F2B_OK also for a bad record (record->fault says so); F2B_ERR_IO or F2B_ERR_MEMORY when
 *         reading itself failed.
 */
f2b_status f2b_source_read(const f2b_source *source, int64_t i, f2b_record *record) F2B_MUST_USE;
void f2b_record_clear(f2b_record *record);

/**
 * The image's name below the source (f2b_free; NULL without memory): its name in the file, for tar
 * samples behind the shard's own below the folder that all shards share, "00000.tar/000000012.jpg".
 * In lists of images an absolute name below the image folder has been made relative to it.
 */
char *f2b_source_image_id(const f2b_source *source, const f2b_record *record);

/** Mark a record as bad, with a formatted detail. An earlier fault is kept. */
void f2b_record_fail(f2b_record *record, f2b_fault fault, const char *format, ...) F2B_PRINTF(3, 4);

/**
 * The bytes of a record's image file (record->image is not NULL; the source is not of conversation
 * captions, which have no image folder); free with f2b_free.
 *
 * The name is joined to the image folder. An absolute name, one with `..`, and one that leads out
 * of the folder through a link is a fault, as is a missing, unreadable, empty or oversized file;
 * then *bytes is NULL. return: as f2b_source_read.
 */
f2b_status f2b_source_image(const f2b_source *source, f2b_record *record, uint8_t **bytes,
                            int64_t *n) F2B_MUST_USE;

#endif
