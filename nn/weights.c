/* See weights.h. */
#include "nn/weights.h"

#include "autograd/core/quant.h"
#include "autograd/core/rng.h"
#include "autograd/ops/fp8_weight/fp8_weight.h"

f2b_status f2b_init_fill(f2b_tensor *x, f2b_init init, uint64_t seed, const char *name)
{
    const f2b_rng stream = f2b_rng_new(seed, F2B_RNG_INIT, f2b_hash_text(name), 0, 0);
    return f2b_random_fill(x, init, &stream);
}

static void frozen_free(f2b_tensor *t)
{
    f2b_free((char *)(uintptr_t)t->name);
    f2b_tensor_free(t);
}

static f2b_tensor *own(f2b_weight_builder *w, f2b_tensor *t, const char *name)
{
    if (t == NULL) return NULL;
    t->name = f2b_strdup(name, F2B_TAG_OTHER);
    if (t->name == NULL) {
        f2b_tensor_free(t);
        return NULL;
    }
    if (w->n_frozen == w->capacity) {
        const int64_t capacity = w->capacity ? 2 * w->capacity : 256;
        f2b_tensor **grown = f2b_realloc(w->frozen, (size_t)capacity * sizeof *grown, F2B_TAG_OTHER);
        if (grown == NULL) {
            frozen_free(t);
            return NULL;
        }
        w->frozen = grown, w->capacity = capacity;
    }
    return w->frozen[w->n_frozen++] = t;
}

static f2b_tensor *trained_copy(f2b_weight_builder *w, const char *name, int ndim, const int64_t *shape,
                                f2b_init init, const void *data, f2b_dtype dtype, bool decay,
                                f2b_parameter_group group)
{
    f2b_tensor *t = f2b_tensor_new(w->device, w->master, ndim, shape, F2B_TAG_PARAMETERS);
    if (t == NULL) return NULL;
    const f2b_status status = data != NULL ? f2b_tensor_write_as(t, 0, data, dtype, f2b_numel(t))
                                           : f2b_init_fill(t, init, w->seed, name);
    if (status != F2B_OK) {
        f2b_tensor_free(t);
        return NULL;
    }
    return f2b_parameters_add(w->parameters, t, name, group, decay) == F2B_OK ? t : NULL;
}

/* A matrix drawn where t is, as f32 on the host; the caller frees it. */
static float *drawn(const f2b_tensor *t, const char *name, f2b_init init, uint64_t seed)
{
    f2b_tensor *x = f2b_tensor_new(t->device, F2B_F32, t->ndim, t->shape, F2B_TAG_SCRATCH);
    if (x == NULL) return NULL;
    float *host = f2b_alloc_host(f2b_tensor_bytes(x), F2B_TAG_SCRATCH);
    if (host != NULL &&
        (f2b_init_fill(x, init, seed, name) != F2B_OK || f2b_tensor_read(x, host) != F2B_OK)) {
        f2b_free(host);
        host = NULL;
    }
    f2b_tensor_free(x);
    return host;
}

/* Quantise a file's matrix, or one drawn for the purpose, into t. The host does it. */
static f2b_status fill_quantised(f2b_tensor *t, const char *name, f2b_init init, uint64_t seed,
                                 const void *data, f2b_dtype dtype)
{
    const bool there = t->device.kind != F2B_CPU;
    float *values = data == NULL ? drawn(t, name, init, seed) : NULL;
    void *codes = there ? f2b_alloc_host(f2b_tensor_bytes(t), F2B_TAG_SCRATCH) : t->data;
    f2b_status status = (data != NULL || values != NULL) && codes != NULL ? F2B_OK : f2b_last_status();
    if (status == F2B_OK)
        status = f2b_quantise(t->dtype, t->shape[0], t->shape[1], data != NULL ? data : values,
                              data != NULL ? dtype : F2B_F32, codes);
    if (status == F2B_OK && there) status = f2b_tensor_write(t, codes);
    if (there) f2b_free(codes);
    f2b_free(values);
    return status;
}

/* The same on the device that t is on: what comes from a file goes there as the file has it. */
static f2b_status fill_fp8(f2b_tensor *t, const char *name, f2b_init init, uint64_t seed,
                           const void *data, f2b_dtype dtype)
{
    f2b_tensor *src = f2b_tensor_new(t->device, data != NULL ? dtype : F2B_F32, t->ndim, t->shape,
                                     F2B_TAG_SCRATCH);
    if (src == NULL) return f2b_last_status();
    f2b_status status = data != NULL ? f2b_tensor_write(src, data) : f2b_init_fill(src, init, seed, name);
    if (status == F2B_OK) status = f2b_fp8_weight(t, src);
    f2b_tensor_free(src);
    return status;
}

static f2b_status fill(f2b_tensor *t, const char *name, f2b_init init, uint64_t seed,
                       const void *data, f2b_dtype dtype)
{
    if (!f2b_dtype_is_quantised(t->dtype))
        return data != NULL ? f2b_tensor_write_as(t, 0, data, dtype, f2b_numel(t))
                            : f2b_init_fill(t, init, seed, name);
    const f2b_status status = t->dtype == F2B_FP8 ? fill_fp8(t, name, init, seed, data, dtype)
                                                  : fill_quantised(t, name, init, seed, data, dtype);
    if (status != F2B_ERR_NUMBERS) return status;
    return f2b_fail(F2B_ERR_FORMAT, "%s cannot be stored as %s: a row of the file has an infinite "
                    "element or one that is no number", name, f2b_dtype_name(t->dtype));
}

static f2b_tensor *get(f2b_weight_builder *w, const char *name, int ndim, const int64_t *shape,
                       f2b_init init, bool trained, f2b_parameter_group group, f2b_dtype storage)
{
    f2b_dtype dtype = storage;
    const void *data = NULL;
    if (w->file != NULL &&
        w->file->find(w->file->context, name, ndim, shape, &dtype, &data) != F2B_OK)
        return NULL;
    if (trained) return trained_copy(w, name, ndim, shape, init, data, dtype, ndim >= 2, group);
    if (data != NULL && dtype == storage && w->device.kind == F2B_CPU)
        return own(w, f2b_tensor_borrow(w->device, dtype, ndim, shape, data), name);
    f2b_tensor *t = own(w, f2b_tensor_new(w->device, storage, ndim, shape, F2B_TAG_WEIGHTS), name);
    if (t == NULL || fill(t, name, init, w->seed, data, dtype) != F2B_OK) return NULL;
    if (data != NULL && w->file->release != NULL)
        w->file->release(w->file->context, data, f2b_numel(t) * (int64_t)f2b_dtype_size(dtype));
    return t;
}

f2b_tensor *f2b_weights_get(f2b_weight_builder *w, const char *name, int ndim, const int64_t *shape,
                            f2b_init init, bool trained, f2b_parameter_group group)
{
    return get(w, name, ndim, shape, init, trained, group,
               f2b_dtype_is_quantised(w->storage) ? F2B_BF16 : w->storage);
}

f2b_tensor *f2b_weights_matrix(f2b_weight_builder *w, const char *name, int64_t out, int64_t in,
                               f2b_init init, bool trained, f2b_parameter_group group)
{
    const bool fp8 = w->fp8 && !trained, takes = fp8 && f2b_fp8_takes(out, in);
    f2b_tensor *t = get(w, name, 2, (int64_t[]){ out, in }, init, trained, group,
                        takes ? F2B_FP8 : w->storage);
    if (t == NULL || !fp8) return t;
    if (takes) {
        w->n_fp8++;
    } else if (w->n_not_fp8++ == 0) {
        w->first_not_fp8 = t;
    }
    return t;
}

f2b_tensor *f2b_weights_new(f2b_weight_builder *w, const char *name, int ndim, const int64_t *shape,
                            f2b_init init, bool decay, f2b_parameter_group group)
{
    return trained_copy(w, name, ndim, shape, init, NULL, w->master, decay, group);
}

void f2b_weights_clear(f2b_weight_builder *w)
{
    for (int64_t i = 0; i < w->n_frozen; i++) frozen_free(w->frozen[i]);
    f2b_free(w->frozen);
    w->frozen = NULL, w->n_frozen = w->capacity = 0;
}
