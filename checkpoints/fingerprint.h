/*
 * Fingerprints: "xxh3:" and 32 hex digits that tell one set of tensors from another. That of a base
 * model, which samples large tensors, is f2b_model_folder_fingerprint (model_folder.h).
 */
#ifndef F2B_CHECKPOINTS_FINGERPRINT_H
#define F2B_CHECKPOINTS_FINGERPRINT_H

#include "autograd/core/status.h"
#include "checkpoints/named_array.h"

enum { F2B_FINGERPRINT_BYTES = 5 + 32 + 1 };

/**
 * XXH3-128 over the tensors in the order of their names, whatever order they come in: name, type,
 * shape and every byte. What a compressed store and an export say of the adapter they come from.
 * errors: F2B_ERR_MEMORY.
 */
F2B_MUST_USE f2b_status f2b_fingerprint_tensors(const f2b_named_array *tensors, int64_t n,
                                                char text[F2B_FINGERPRINT_BYTES]);

#endif
