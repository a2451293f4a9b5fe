/*
 * What a run has trained, wherever it lies: a run's folder (its newest sound checkpoint), one
 * checkpoint, or an export. One way in for everything that continues from it or uses it.
 */
#ifndef F2B_CHECKPOINTS_TRAINED_TENSORS_H
#define F2B_CHECKPOINTS_TRAINED_TENSORS_H

#include "checkpoints/peft.h"
#include "checkpoints/state.h"
#include "nn/parameters.h"

typedef struct f2b_trained f2b_trained;

/**
 * Open `path`. `sizes` are the base model's (an export is checked against them).
 * return  a handle to close, or NULL with the errors of f2b_state_open and f2b_export_open;
 *         F2B_ERR_NOT_FOUND says what was looked for.
 */
f2b_trained *f2b_trained_open(const char *path, const f2b_model_config *sizes,
                              f2b_state_notify *notify, void *user);
void f2b_trained_close(f2b_trained *trained);

/** The method it was trained with; the base model's fingerprint and path; updates done. Borrowed. */
const f2b_method *f2b_trained_method(const f2b_trained *trained);
const char *f2b_trained_base_fingerprint(const f2b_trained *trained);
const char *f2b_trained_base_path(const f2b_trained *trained);
int64_t f2b_trained_step(const f2b_trained *trained);

/**
 * Copy every tensor into the parameter of its name.
 * errors  F2B_ERR_CONFIG for a tensor that `parameters` lacks (it says what to do), F2B_ERR_FORMAT
 *         where shapes differ or, with `complete`, where a parameter gets no value.
 */
f2b_status f2b_trained_load(f2b_trained *trained, const f2b_parameters *parameters, bool complete)
    F2B_MUST_USE;

#endif
