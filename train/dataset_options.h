/*
 * From a configuration to its dataset (data/loader/dataset.h): the one place where the keys `data`,
 * `sampler`, `summary` and `model` meet the data room, so that f2b-train and f2b-data agree.
 */
#ifndef F2B_TRAIN_DATASET_OPTIONS_H
#define F2B_TRAIN_DATASET_OPTIONS_H

#include "data/loader/dataset.h"
#include "nn/model_config.h"
#include "train/config.h"

/** data.bad_records and data.max_bad_fraction; the listener hears of every bad record once. */
f2b_fault_policy f2b_config_fault_policy(const f2b_config *config, f2b_fault_listener listener,
                                         void *user);

/**
 * Open the configuration's dataset.
 *
 * model   sizes of the base model (rows of an image, side of an image); borrowed for the call.
 * faults  what happens at bad records, usually f2b_config_fault_policy.
 * return  the dataset, for f2b_dataset_free. Indices of large files are cached in
 *         $XDG_CACHE_HOME/fwd2bot, or ~/.cache/fwd2bot.
 * errors  those of f2b_dataset_open; F2B_ERR_FORMAT: preprocessor_config.json does not fit.
 */
f2b_dataset *f2b_config_dataset(const f2b_config *config, const f2b_model_config *model,
                                f2b_fault_policy faults);

#endif
