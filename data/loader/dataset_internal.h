/* What the files of the dataset share. */
#ifndef F2B_DATA_LOADER_DATASET_INTERNAL_H
#define F2B_DATA_LOADER_DATASET_INTERNAL_H

#include "data/loader/dataset.h"

/* A caption that can be joined to conversations; sorted by stem, then in file order. */
typedef struct f2bi_join {
    uint64_t stem;
    int64_t global;
} f2bi_join;

/* Members of a pool as global record numbers: first a range, then a list. */
typedef struct f2bi_members {
    int64_t n, first, in_range;
    int64_t *list;
} f2bi_members;

/* Records are numbered globally: all of source 0, then all of source 1, ... */
struct f2b_dataset {
    f2b_dataset_options options;
    char *prompt;
    f2b_tokenizer *tokenizer;
    f2b_source **sources;
    int64_t *first;             /* [n_sources+1] global number of each source's first record */
    int n_sources, n_conversations, n_captions;     /* of each role, in this order */
    f2b_fault_log *faults;
    f2bi_join *joins;
    int64_t n_joins;
    f2bi_members pools[F2B_BATCH_KINDS];
    f2b_sampler *sampler;
    f2b_sequence image_prompt;  /* the same for every image */
    f2b_known_image *known;     /* or NULL */
    void *known_user;
};

/* A record's place. */
typedef struct f2bi_place {
    int source;
    int64_t record;
} f2bi_place;

f2bi_place f2bi_place_of(const f2b_dataset *d, int64_t global);
int64_t f2bi_member(const f2bi_members *pool, int64_t member);

/* Captions joined to a conversation: joins[*first .. *first+return-1]. */
int64_t f2bi_joined(const f2b_dataset *d, f2bi_place conversation, int64_t *first);

/* Hash of the image of a record; for a record without one, a number of its own. */
uint64_t f2bi_image_of(const f2b_dataset *d, int64_t global);

/*
 * Build the sample of kind `kind` from a record (and for captions joined to a conversation, from
 * the record `caption`, else NULL). Of a bad record `bad` receives the place, `record` the fault.
 * text, pixels: what is wanted besides ids: NULL / false to leave out.
 */
typedef struct f2bi_request {
    f2b_batch_kind kind;
    f2bi_place place;
    const f2bi_place *caption;
    bool decode, prepare;       /* the image: decode it; make pixels of it */
    char **text;                /* receives the prompt, or NULL */
} f2bi_request;
f2b_status f2bi_build(f2b_dataset *d, const f2bi_request *request, f2b_record *record,
                      f2bi_place *bad, f2b_sample *sample) F2B_MUST_USE;

void f2bi_sample_clear(f2b_sample *sample);

#endif
