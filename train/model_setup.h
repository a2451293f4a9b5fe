/*
 * From a configuration to the model it trains: the base folder, storage and compute types,
 * adapters, summary tokens.
 */
#ifndef F2B_TRAIN_MODEL_SETUP_H
#define F2B_TRAIN_MODEL_SETUP_H

#include "checkpoints/model_folder.h"
#include "data/tokenizer/tokenizer.h"
#include "nn/model.h"
#include "train/config.h"

/** The options of nn/model.h for this configuration; init ids are left empty. errors:
 *  F2B_ERR_INVALID for a storage type that is none; for train.precision fp8 F2B_ERR_CONFIG on the
 *  processor, F2B_ERR_DEVICE on a device without 8-bit floats. */
f2b_status f2b_model_setup_options(const f2b_config *config, const f2b_model_config *sizes,
                                   f2b_device device, f2b_model_options *options) F2B_MUST_USE;

/**
 * Build the model from the opened base folder (which must outlive it). A folder without a projector
 * gets a fresh one, drawn from train.seed, where trainable.projector trains it.
 * tokenizer  read for summary.init: vocabulary alone; may be NULL otherwise.
 * errors     those of the folder and the builder; F2B_ERR_CONFIG where the base is a plain Llama
 *            and the method needs a tower.
 */
f2b_model *f2b_model_setup(const f2b_config *config, f2b_model_folder *folder, f2b_device device,
                           const f2b_tokenizer *tokenizer);

#endif
