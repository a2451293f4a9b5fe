/*
 * What is in a file or folder: a run, one of its checkpoints, an export, a compressed store, a PEFT
 * folder, a model folder, a safetensors or GGUF file. A report is one JSON object, whatever it is
 * about:
 *
 *   kind      "run", "checkpoint", "export", "store", "peft", "model", "safetensors", "gguf"
 *   path      as it was given
 *   facts     what it says of itself: step, method, base model, sizes, metadata; with `verify`,
 *             "checksums": {file: {"size", "xxh3_128"}}
 *   totals    {"tensors", "elements", "bytes"}
 *   tensors   [{"name", "type", "shape", "bytes", and "file", "norm", "updates" where they apply}]
 *   checks    [{"what", "ok", and "why" where it is not}]: what was verified
 *
 * Texts are UTF-8; bytes of files that are not become U+FFFD.
 */
#ifndef F2B_INFER_INSPECT_INSPECT_H
#define F2B_INFER_INSPECT_INSPECT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "autograd/core/status.h"

typedef struct f2b_inspect_options {
    bool norms;         /* Frobenius norm of every tensor listed: reads them all; null where it is
                           of a type that we do not compute with, a text where it is not finite */
    bool verify;        /* check all there is to check: every checkpoint of a run against its
                           manifest, every byte of a store, tokenizer and pictures' settings of a
                           model. What must be checked to be read at all (a checkpoint's checksum,
                           an export's fingerprint, the structure of every file) is checked
                           without it. */
    int64_t limit;      /* tensors listed; 0: all. Totals are always of all. */
} f2b_inspect_options;

/**
 * Report on what lies at `path`. What is found damaged in part is a check that is not ok; what
 * cannot be read at all is an error.
 * return  a new reference; NULL with F2B_ERR_NOT_FOUND (nothing there), F2B_ERR_FORMAT (of a kind
 *         that is not known, or damaged: the text names the file and what is wrong), F2B_ERR_IO,
 *         F2B_ERR_MEMORY.
 */
json_t *f2b_inspect(const char *path, const f2b_inspect_options *options);

/** How many of a report's checks are not ok. */
int64_t f2b_inspect_failures(const json_t *report);

#endif
