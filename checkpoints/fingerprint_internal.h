/* What identifies a base model (f2b_model_folder_fingerprint), hashed piece by piece. */
#ifndef F2B_CHECKPOINTS_FINGERPRINT_INTERNAL_H
#define F2B_CHECKPOINTS_FINGERPRINT_INTERNAL_H

#include "checkpoints/fingerprint.h"
#include "checkpoints/safetensors.h"
#include "nn/model_config.h"

typedef struct f2bi_fingerprint f2bi_fingerprint;

/** NULL when out of memory. */
f2bi_fingerprint *f2bi_fingerprint_new(void);
void f2bi_fingerprint_config(f2bi_fingerprint *hash, const f2b_model_config *config);
void f2bi_fingerprint_tensor(f2bi_fingerprint *hash, const char *name,
                             const f2b_safetensor *tensor);

/** The text, and the handle freed. */
void f2bi_fingerprint_end(f2bi_fingerprint *hash, char text[F2B_FINGERPRINT_BYTES]);

#endif
