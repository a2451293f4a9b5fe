/* What the writer and the reader of a store's shards agree on. */
#ifndef F2B_CHECKPOINTS_STORE_HDF5_INTERNAL_H
#define F2B_CHECKPOINTS_STORE_HDF5_INTERNAL_H

#include <hdf5.h>

#include "checkpoints/store_internal.h"

#define F2BI_STORE_SHARD_FORMAT "fwd2bot-store-shard"
enum { F2BI_STORE_SHARD_VERSION = 1 };

/** IEEE binary16, little-endian; H5Tclose. */
hid_t f2bi_store_f16_type(void);

/** The attributes that a shard and store.json both have: names, and the manifest's values. */
enum { F2BI_STORE_TEXTS = 5 };
static inline const char *f2bi_store_text_name(int i)
{
    return (const char *const[F2BI_STORE_TEXTS]){ "base_model", "adapter", "precision", "weights",
                                                  "method" }[i];
}
static inline const char *f2bi_store_text(const f2bi_store_manifest *m, int i)
{
    return (const char *const[F2BI_STORE_TEXTS]){ m->identity.base, m->identity.adapter,
                                                  m->identity.precision, m->identity.weights,
                                                  m->method }[i];
}

#endif
