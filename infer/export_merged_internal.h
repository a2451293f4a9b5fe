/* The parts of export_merged.h: what a folder is made of, and who writes what of it. */
#ifndef F2B_INFER_EXPORT_MERGED_INTERNAL_H
#define F2B_INFER_EXPORT_MERGED_INTERNAL_H

#include <jansson.h>

#include "infer/export_merged.h"

#define F2BI_MERGE_MARKER "f2b_merged.json"

/* One tensor of the folder: where its values come from, and what is added to them. */
typedef struct f2bi_merge_part {
    const char *name;           /* in the registry */
    const f2b_tensor *tensor;   /* of the model; NULL: an unused one of the base's files */
    f2b_named_array array;      /* as it is written; data is set while its shard is */
    const f2b_tensor *a, *b;    /* the adapter to merge, or NULL */
    f2b_tensor *drawn;          /* owned: an unused layer of a base without weights */
} f2bi_merge_part;

typedef struct f2bi_merge {
    const f2b_merge_options *o;
    f2b_merge_result *result;
    f2b_trained_model *from;
    f2bi_merge_part *parts;
    int64_t n, capacity;
    char *folder;               /* where the files are written before they are in place */
    double changed, size;       /* squares, over merged tensors */
} f2bi_merge;

/** The type that a tensor is written in: that of the base's files; f32 where there is none, and
 *  for tensors trained in full. */
f2b_dtype f2bi_merge_type(const f2bi_merge *m, const f2b_tensor *t, bool trained);

/** All parts, W + alpha/r * B A where one has an adapter, into files of shard_bytes. */
f2b_status f2bi_merge_write_weights(f2bi_merge *m) F2B_MUST_USE;

/** All else that the folder has: config, tokenizer, settings, summary tokens, what it is of. */
f2b_status f2bi_merge_write_rest(const f2bi_merge *m) F2B_MUST_USE;

/** Write a JSON file of the folder. */
f2b_status f2bi_merge_write_json(const f2bi_merge *m, const char *name,
                                 json_t *value) F2B_MUST_USE;

/** Do these arrays lie in the file as they are here? */
f2b_status f2bi_merge_read_back(const char *path, const f2b_named_array *arrays,
                                int64_t n) F2B_MUST_USE;

/** Open the folder as a model and compare what it computes with what it is of. */
f2b_status f2bi_merge_prove(f2bi_merge *m) F2B_MUST_USE;

#endif
