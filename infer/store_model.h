/*
 * A store and the model its tokens are of.
 */
#ifndef F2B_INFER_STORE_MODEL_H
#define F2B_INFER_STORE_MODEL_H

#include "checkpoints/store.h"
#include "infer/trained_model.h"

/**
 * What tokens of this model are of.
 * errors  F2B_ERR_CONFIG: a base model, which has no compressed tokens; those of reading its
 *         tensors.
 */
f2b_status f2b_store_identify(const f2b_trained_model *model, f2b_store_identity *out) F2B_MUST_USE;

/** Open a store for use with a model: as f2b_store_open, and F2B_ERR_FORMAT with both fingerprints
 *  where its tokens are another model's. */
f2b_store *f2b_store_open_for(const char *path, const f2b_trained_model *model);

#endif
