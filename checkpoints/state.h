/*
 * The state of a training run on disk: RUN/checkpoints/step-00000120/{state.h5, manifest.json} and
 * RUN/latest. A checkpoint is there in full or not at all; the manifest has size and XXH3-128 of
 * state.h5 and is checked before HDF5 opens it, so that damage is named and never read.
 *
 * state.h5: /parameters/<name>, /adam/m/<name>, /adam/v/<name> (f32, contiguous, the tensor's own
 * shape; attribute `updates` of /adam/m/<name> is Adam's count) and root attributes (64-bit
 * integers, doubles, UTF-8 strings of fixed length, up to 64 MiB). Any thread may call these
 * functions, each with a handle of its own; where they need HDF5 they take turns.
 */
#ifndef F2B_CHECKPOINTS_STATE_H
#define F2B_CHECKPOINTS_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "autograd/core/status.h"
#include "checkpoints/named_array.h"

/** A trained tensor: f32, with its moments, or without (m and v both NULL). Borrowed. */
typedef struct f2b_state_tensor {
    f2b_named_array parameter;          /* F2B_F32 */
    const float *m, *v;                 /* the parameter's shape */
    int64_t updates;                    /* Adam's count for this tensor */
} f2b_state_tensor;

typedef enum f2b_attribute_kind {
    F2B_ATTRIBUTE_INTEGER, F2B_ATTRIBUTE_NUMBER, F2B_ATTRIBUTE_TEXT
} f2b_attribute_kind;

/** A named value beside the tensors: a root attribute. Borrowed. */
typedef struct f2b_attribute {
    const char *name;
    f2b_attribute_kind kind;
    int64_t integer;
    double number;
    const char *text;                   /* UTF-8 */
} f2b_attribute;

/** All of a checkpoint. Attributes must hold `config`, `method` and `base_model` (texts, DESIGN
 *  section 4); `step` and the format's own are written by us. */
typedef struct f2b_state {
    int64_t step;                       /* updates done, from 0 */
    const f2b_state_tensor *tensors;
    int64_t n_tensors;
    const f2b_attribute *attributes;
    int64_t n_attributes;
} f2b_state;

/** Told of what went wrong and was passed over: a damaged checkpoint, an old one that cannot be
 *  removed. `text` names it and the reason. NULL functions are allowed where one is asked for. */
typedef void f2b_state_notify(void *user, const char *text);

/**
 * Write checkpoints/step-<step> under `run_dir`, point `latest` at it, then remove what is left of
 * killed writes, checkpoints of later steps (of a continuation that was given up by resuming from
 * an earlier one), and all but the `keep` newest (0 keeps all).
 * On failure (a full disk, say) everything that was there stays and loads, and nothing half-written
 * does. errors: F2B_ERR_IO, F2B_ERR_MEMORY; F2B_ERR_INVALID for a tensor that is not f32, or a bad
 * or repeated name.
 */
F2B_MUST_USE f2b_status f2b_state_save(const char *run_dir, const f2b_state *state, int keep,
                                       f2b_state_notify *notify, void *user);

/** The last part of a save, from `latest` on, for a run whose last save was killed before its end. */
F2B_MUST_USE f2b_status f2b_state_settle(const char *run_dir, int64_t step, int keep,
                                         f2b_state_notify *notify, void *user);

typedef struct f2b_state_file f2b_state_file;

/**
 * Open a checkpoint for reading. `path` is a checkpoint's folder, or a run's: then the newest that
 * is sound is taken, and each damaged one on the way is reported to `notify` with the reason.
 * return: a handle to close, or NULL: F2B_ERR_NOT_FOUND (no checkpoint there at all),
 * F2B_ERR_FORMAT (damaged; of a run: all are), F2B_ERR_IO, F2B_ERR_MEMORY.
 */
f2b_state_file *f2b_state_open(const char *path, f2b_state_notify *notify, void *user);
void f2b_state_close(f2b_state_file *file);

/** The checkpoint's folder; its step. */
const char *f2b_state_path(const f2b_state_file *file);
int64_t f2b_state_step(const f2b_state_file *file);

/** An attribute by name, into *out, borrowed. F2B_ERR_FORMAT where it is missing or of another
 * kind. */
F2B_MUST_USE f2b_status f2b_state_attribute(const f2b_state_file *file, const char *name,
                                            f2b_attribute_kind kind, f2b_attribute *out);

/** All attributes, sorted by name, borrowed: for reports. */
const f2b_attribute *f2b_state_attributes(const f2b_state_file *file, int64_t *n);

/** The tensors, sorted by name; data pointers are NULL. */
int64_t f2b_state_count(const f2b_state_file *file);
const f2b_state_tensor *f2b_state_at(const f2b_state_file *file, int64_t i);
bool f2b_state_has_moments(const f2b_state_file *file, int64_t i);

/**
 * Read the i-th tensor into the caller's arrays, each of the tensor's size; m and v are NULL where
 * the moments are not wanted. errors: F2B_ERR_FORMAT, F2B_ERR_IO, naming file and tensor.
 */
F2B_MUST_USE f2b_status f2b_state_read(f2b_state_file *file, int64_t i, float *parameter, float *m,
                                       float *v);

/** Index of a tensor by name, or -1 (no error is set). */
int64_t f2b_state_find(const f2b_state_file *file, const char *name);

#endif
