/*
 * Where a model's tensors come from. A builder hands out every tensor by its one name: borrowed from
 * a mapped file where the storage type allows, converted once where not, drawn from the seed where
 * there is no file; and as an f32 master copy in the registry where it is trained. On a device other
 * than the host nothing is borrowed: each tensor is copied there, once, and drawn there.
 */
#ifndef F2B_NN_WEIGHTS_H
#define F2B_NN_WEIGHTS_H

#include "autograd/ops/random_fill/random_fill.h"
#include "nn/parameters.h"

/** A file's tensors, as nn sees them; checkpoints/model_folder.h is behind it in the programs. */
typedef struct f2b_weight_file {
    /** Type and place of a tensor of exactly this shape; *data NULL: it is drawn from the seed, as
     *  without a file; an error that names it otherwise. */
    f2b_status (*find)(void *context, const char *name, int ndim, const int64_t *shape,
                       f2b_dtype *dtype, const void **data);
    bool (*contains)(void *context, const char *name);
    /** The tensor at `data` has been copied and is not read again; NULL where nobody needs to know. */
    void (*release)(void *context, const void *data, int64_t bytes);
    void *context;
} f2b_weight_file;

typedef struct f2b_weight_builder {
    const f2b_weight_file *file;        /* NULL: random start */
    f2b_device device;
    f2b_dtype storage;                  /* of frozen tensors: f32, bf16, f16 (f64 in tests); int8 and
                                         * nf4 of matrices of products, all else being bf16 then */
    bool fp8;                           /* frozen matrices of products that fp8 takes are that instead */
    f2b_dtype master;                   /* of trained tensors: f32 (f64 in tests) */
    uint64_t seed;
    f2b_parameters *parameters;         /* trained tensors are added here */
    f2b_tensor **frozen;                /* owned list of the others, named */
    int64_t n_frozen, capacity;
    int64_t n_fp8, n_not_fp8;           /* with fp8: matrices that are, and those it cannot take */
    const f2b_tensor *first_not_fp8;
} f2b_weight_builder;

/**
 * The tensor `name`. trained: an f32 master copy in the registry under `group` (decay for matrices);
 * else frozen, in the storage type. return: owned by the registry or the builder; NULL on error.
 */
f2b_tensor *f2b_weights_get(f2b_weight_builder *w, const char *name, int ndim, const int64_t *shape,
                            f2b_init init, bool trained, f2b_parameter_group group);

/** As above for the matrix [out, in] of a linear layer, which may be stored as int8, nf4 or fp8. */
f2b_tensor *f2b_weights_matrix(f2b_weight_builder *w, const char *name, int64_t out, int64_t in,
                               f2b_init init, bool trained, f2b_parameter_group group);

/** A tensor that no base model file has (adapters, summary tokens): trained, drawn from the seed. */
f2b_tensor *f2b_weights_new(f2b_weight_builder *w, const char *name, int ndim, const int64_t *shape,
                            f2b_init init, bool decay, f2b_parameter_group group);

/** Fill x (f32, f64, bf16, f16) from the stream of (seed, name): the same for any storage type. */
f2b_status f2b_init_fill(f2b_tensor *x, f2b_init init, uint64_t seed, const char *name) F2B_MUST_USE;

/** Free the frozen tensors (the registry is its owner's). */
void f2b_weights_clear(f2b_weight_builder *w);

#endif
