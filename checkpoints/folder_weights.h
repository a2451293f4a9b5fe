/*
 * A model folder as the builder of nn/model.h wants it: tensors by name, straight from the map.
 */
#ifndef F2B_CHECKPOINTS_FOLDER_WEIGHTS_H
#define F2B_CHECKPOINTS_FOLDER_WEIGHTS_H

#include "checkpoints/model_folder.h"
#include "nn/weights.h"

/** The folder's tensors; the folder is borrowed and must outlive every model built from it, for
 *  frozen tensors point into its maps. */
f2b_weight_file f2b_folder_weights(f2b_model_folder *folder);

#endif
