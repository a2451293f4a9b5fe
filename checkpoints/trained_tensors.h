/*
 * What a training run left behind, wherever it lies: a run folder (its newest sound checkpoint),
 * one of its checkpoints, or an export. Its tensors go into a model in two ways: those that a base
 * model has too (language model, projector, tower) take the place of the base's while the model is
 * built; those that the method adds (adapters, summary tokens, temperature) are copied into the
 * registry.
 *
 * Where a run's base lies is told by attributes of its state, beside those of DESIGN section 4:
 * `base_path` and, where there is one, `vision_path` (texts, absolute); and `seed`, from which a base
 * without weights is drawn.
 */
#ifndef F2B_CHECKPOINTS_TRAINED_TENSORS_H
#define F2B_CHECKPOINTS_TRAINED_TENSORS_H

#include "checkpoints/peft.h"
#include "checkpoints/state.h"
#include "nn/method.h"
#include "nn/model_config.h"
#include "nn/weights.h"

#define F2B_STATE_BASE_PATH "base_path"
#define F2B_STATE_VISION_PATH "vision_path"
#define F2B_STATE_SEED "seed"

typedef struct f2b_trained f2b_trained;

/**
 * Open what lies at `path`.
 * config  of the base model: needed to read an export (F2B_ERR_USAGE without); NULL for a run or a
 *         checkpoint, whose base may only be known from itself.
 * notify  told of damaged checkpoints of a run that were passed over; may be NULL.
 * return  a handle to close; NULL with the errors of f2b_state_open and f2b_export_open.
 */
f2b_trained *f2b_trained_open(const char *path, const f2b_model_config *config,
                                        f2b_state_notify *notify, void *user);
void f2b_trained_close(f2b_trained *file);

/** The folder that is read; updates done; the method's settings; the base's fingerprint. */
const char *f2b_trained_path(const f2b_trained *file);
int64_t f2b_trained_step(const f2b_trained *file);
const f2b_method *f2b_trained_method(const f2b_trained *file);
const char *f2b_trained_base_fingerprint(const f2b_trained *file);

/** Folders of the base and of a separate tower, as the run named them; NULL: unknown, or none. */
const char *f2b_trained_base_path(const f2b_trained *file);
const char *f2b_trained_vision_path(const f2b_trained *file);

/** The seed that a base without weights is drawn from; false: it is not known. */
bool f2b_trained_seed(const f2b_trained *file, uint64_t *seed);

/** The tensors, sorted by name; whether there is one of that name. */
int64_t f2b_trained_count(const f2b_trained *file);
const char *f2b_trained_name(const f2b_trained *file, int64_t i);
bool f2b_trained_contains(const f2b_trained *file, const char *name);

/** The i-th tensor with its values (f32), read on first use and kept until the file is closed. */
F2B_MUST_USE f2b_status f2b_trained_at(f2b_trained *file, int64_t i,
                                            f2b_named_array *out);

/**
 * For f2b_model_options.file: the trained tensors, and below them the base's. `under` is NULL for a
 * base without weights: then every tensor that is not in the file is left to be drawn, with
 * f2b_model_options.seed as f2b_trained_seed says; where that is not known it is an error.
 * The file and what is under it are borrowed and must outlive every model built from them.
 */
f2b_weight_file f2b_trained_weights(f2b_trained *file, const f2b_weight_file *under);

/**
 * Copy values into the registry's tensors of the same names, shapes checked.
 * complete  a parameter that the file lacks is an error (use), or keeps its value (a new start).
 * errors    F2B_ERR_FORMAT naming file, tensor and both shapes; F2B_ERR_IO.
 */
F2B_MUST_USE f2b_status f2b_trained_load(f2b_trained *file, f2b_parameters *parameters,
                                              bool complete);

/** Every tensor has gone into a model: F2B_ERR_FORMAT names the first that has not. */
F2B_MUST_USE f2b_status f2b_trained_check_used(const f2b_trained *file);

#endif
